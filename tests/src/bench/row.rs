//! What a measurement came to.

use serde_json::{Value, json};

/// One line of the report.
#[derive(Clone, Debug)]
pub(super) struct Row {
    bench: &'static str,
    what: String,
    measured: String,
    aim: Option<Aim>,
}

/// A number and what it should be.
#[derive(Clone, Debug)]
struct Aim {
    value: f64,
    limit: f64,
    at_least: bool,
    unit: &'static str,
}

impl Aim {
    /// A number that is none meets nothing.
    fn met(&self) -> bool {
        if self.at_least { self.value >= self.limit } else { self.value <= self.limit }
    }
}

impl Row {
    /// Something worth knowing without a target.
    pub(super) fn information(
        bench: &'static str,
        what: impl Into<String>,
        measured: impl Into<String>,
    ) -> Self {
        Self { bench, what: what.into(), measured: measured.into(), aim: None }
    }

    /// `value` shall not exceed `limit`.
    pub(super) fn at_most(
        bench: &'static str,
        what: impl Into<String>,
        measured: impl Into<String>,
        value: f64,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        let aim = Some(Aim { value, limit, at_least: false, unit });
        Self { aim, ..Self::information(bench, what, measured) }
    }

    /// `value` shall reach `limit`.
    pub(super) fn at_least(
        bench: &'static str,
        what: impl Into<String>,
        measured: impl Into<String>,
        value: f64,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        let aim = Some(Aim { value, limit, at_least: true, unit });
        Self { aim, ..Self::information(bench, what, measured) }
    }

    /// Whether the target is met; `None` without one.
    pub(super) fn met(&self) -> Option<bool> {
        self.aim.as_ref().map(Aim::met)
    }

    pub(super) fn to_json(&self) -> Value {
        let aim = self.aim.as_ref();
        json!({
            "bench": self.bench,
            "what": self.what,
            "measured": self.measured,
            "value": aim.map(|aim| aim.value),
            "unit": aim.map(|aim| aim.unit),
            "target": aim.map(|aim| aim.limit),
            "target_is": aim.map(|aim| if aim.at_least { "at least" } else { "at most" }),
            "met": self.met(),
        })
    }

    /// As one or two lines of text.
    pub(super) fn to_text(&self) -> String {
        let (mark, target) = match &self.aim {
            None => ("    ", String::new()),
            Some(aim) => (
                if aim.met() { "met " } else { "MISS" },
                format!("  [{} {}{}]", if aim.at_least { "≥" } else { "≤" }, aim.limit, aim.unit),
            ),
        };
        format!("{mark}  {:<12} {}: {}{target}", self.bench, self.what, self.measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_at_its_limit_and_never_by_what_is_no_number() {
        let at_most = |value| Row::at_most("b", "w", "m", value, 1.0, "×").met();
        assert_eq!((at_most(1.0), at_most(1.01), at_most(f64::NAN)), (Some(true), Some(false), Some(false)));
        let at_least = |value| Row::at_least("b", "w", "m", value, 1.0, "×").met();
        assert_eq!(
            (at_least(1.0), at_least(0.99), at_least(f64::NAN)),
            (Some(true), Some(false), Some(false))
        );
        assert_eq!(Row::information("b", "w", "m").met(), None);
    }
}
