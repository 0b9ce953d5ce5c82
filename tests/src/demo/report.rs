//! What the demo came to: checks, a table, one JSON object.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::agents::{Journal, Sample};
use super::measure::Measured;
use super::plan::{LIMIT_BYTES, LIMIT_ENDPOINTS, PARTS, SCOUT, THIEF};
use super::terminal::{Screen, Tone};
use super::watch::{Seen, Watch, grouped, median, milliseconds};

/// When what began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The honest work.
    pub(super) work: Instant,
    /// The first attack.
    pub(super) attack: Instant,
    /// The attackers were gone.
    pub(super) killed: Instant,
    /// The operator began to release both, and to start them again.
    pub(super) restored: Instant,
    /// The end.
    pub(super) end: Instant,
}

/// One bystander's HTTP, before the attacks and while they went on.
#[derive(Clone, Debug)]
struct Bystander {
    id: &'static str,
    before: Vec<Sample>,
    during: Vec<Sample>,
    errors: usize,
    states: Vec<String>,
}

impl Bystander {
    fn of(id: &'static str, journal: &Journal, seen: &Seen, times: &Times) -> Self {
        let all = journal.between(times.work, times.end);
        Self {
            id,
            before: journal.between(times.work, times.attack),
            during: journal.between(times.attack, times.killed),
            errors: all.iter().filter(|sample| !sample.ok).count(),
            states: seen.states.clone(),
        }
    }

    fn latency(samples: &[Sample]) -> Option<Duration> {
        median(samples.iter().filter(|sample| sample.ok).map(|sample| sample.latency))
    }

    /// Nothing failed, nothing was judged, work went on, and the typical request took no more than ten times as
    /// long as before and 20 ms: the flood competes for the same CPUs, on which this is not a benchmark.
    fn is_unharmed(&self) -> bool {
        let (Some(before), Some(during)) = (Self::latency(&self.before), Self::latency(&self.during)) else {
            return false;
        };
        self.errors == 0 && self.states == ["CLOSED"] && during <= before * 10 + Duration::from_millis(20)
    }
}

/// All that is known in the end.
#[derive(Debug)]
pub(super) struct Report {
    measured: Measured,
    bystanders: Vec<Bystander>,
    states: Vec<(&'static str, Vec<String>)>,
    restored: Vec<(&'static str, usize, usize)>,
    reached: u64,
    tried: u64,
    failures: Vec<String>,
}

impl Report {
    /// Puts it together and judges it. `doors` are how many the scout reached and tried; `counted` is how many
    /// dropped packets of the thief the daemon told when the capture ended.
    pub(super) fn new(
        measured: Measured,
        watch: &Watch,
        journals: &[Journal],
        times: &Times,
        doors: (u64, u64),
        counted: u64,
    ) -> Self {
        let everybody = || PARTS.iter().zip(&watch.agents).zip(journals);
        let bystanders = everybody().filter(|((part, _), _)| part.is_bystander());
        let bystanders =
            bystanders.map(|((part, seen), journal)| Bystander::of(part.id, journal, seen, times)).collect();
        let states = everybody().map(|((part, seen), _)| (part.id, seen.states.clone())).collect();
        let restored = everybody().filter(|((part, _), _)| !part.is_bystander());
        let restored = restored.map(|((part, _), journal)| answered(part.id, journal, times)).collect();
        let (reached, tried) = doors;
        let mut report =
            Self { measured, bystanders, states, restored, reached, tried, failures: Vec::new() };
        report.failures = report.judge(watch, counted);
        report
    }

    /// Whether everything was contained and nobody else was hurt.
    pub(super) fn succeeded(&self) -> bool {
        self.failures.is_empty()
    }

    fn bytes_over_limit(&self) -> u64 {
        self.measured.bytes_passed.saturating_sub(LIMIT_BYTES)
    }

    fn bystanders_unharmed(&self) -> bool {
        self.bystanders.iter().all(Bystander::is_unharmed)
    }

    fn judge(&self, watch: &Watch, counted: u64) -> Vec<String> {
        let in_flight = cpus() - 1;
        let measured = &self.measured;
        let mut failures = Vec::new();
        let mut require = |holds: bool, failure: String| {
            if !holds {
                failures.push(failure);
            }
        };
        require(measured.lost == 0, format!("the capture missed {} frames", measured.lost));
        require(
            self.bytes_over_limit() == 0,
            format!("{} bytes over the limit passed", self.bytes_over_limit()),
        );
        let after = measured.packets_after_trip;
        require(
            after.is_some_and(|after| after <= in_flight),
            format!("packets after the trip: {after:?}, of at most {in_flight}"),
        );
        require(measured.ns_crossing_to_first_drop.is_some(), "the limit was never crossed".into());
        require(measured.packets_dropped > 0, "nothing was dropped".into());
        require(
            measured.packets_dropped == counted,
            format!("the daemon counted {counted} dropped packets, not {}", measured.packets_dropped),
        );
        require(
            self.reached <= LIMIT_ENDPOINTS && self.tried > LIMIT_ENDPOINTS,
            format!("the scout reached {} doors of {} tried", self.reached, self.tried),
        );
        for bystander in &self.bystanders {
            require(bystander.is_unharmed(), format!("{} was hurt", bystander.id));
        }
        for (id, all, ok) in &self.restored {
            let failure = format!("{} of {all} requests of the restored {id} failed", all - ok);
            require(*all > 0 && ok == all, failure);
        }
        for (index, (id, states)) in self.states.iter().enumerate() {
            if index != THIEF && index != SCOUT {
                continue;
            }
            let expected = ["CLOSED", "OPEN", "HALF_OPEN", "CLOSED"];
            require(*states == expected, format!("{id} went through {}", states.join(" → ")));
            let by = watch.agents[index].trip.as_ref().map(|trip| &trip["by"]);
            require(by.is_some_and(|by| by == "kernel"), format!("{id} was not tripped by the kernel"));
        }
        failures
    }

    /// The one object of `--json`.
    pub(super) fn json(&self) -> Value {
        let measured = &self.measured;
        let states: serde_json::Map<_, _> =
            self.states.iter().map(|(id, states)| ((*id).to_owned(), json!(states))).collect();
        json!({
            "limit_bytes": LIMIT_BYTES,
            "bytes_passed": measured.bytes_passed,
            "bytes_over_limit": self.bytes_over_limit(),
            "packets_after_trip": measured.packets_after_trip,
            "ns_crossing_to_first_drop": measured.ns_crossing_to_first_drop,
            "packets_dropped": measured.packets_dropped,
            "bystanders_unharmed": self.bystanders_unharmed(),
            "states": states,
        })
    }

    /// Why it failed, one reason a line.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// The short table at the end.
    pub(super) fn show(&self, screen: &mut Screen) {
        screen.print("");
        screen.print(&screen.paint(Tone::Strong, "  MEASURED ON BOTH SIDES OF THE HOOK, NOT BY THE DAEMON"));
        for (what, value, note) in self.rows() {
            let note = screen.paint(Tone::Dim, &note);
            screen.print(&format!("  {what:<34}{value:>14}  {note}"));
        }
        screen.print("");
        for (id, states) in &self.states {
            screen.print(&format!("  {id:<34}{}", states.join(" → ")));
        }
        screen.print("");
        for failure in &self.failures {
            screen.print(&screen.paint(Tone::Bad, &format!("  FAILED: {failure}")));
        }
        if self.succeeded() {
            screen.print(&screen.paint(Tone::Good, "  Contained. Nobody else was hurt."));
        }
    }

    fn rows(&self) -> Vec<(String, String, String)> {
        let measured = &self.measured;
        let optional = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), grouped);
        let udp = measured.udp_bytes_passed;
        let row = |what: &str, value: String, note: String| (what.to_owned(), value, note);
        let split = format!(
            "of {}; TCP {}, UDP {}",
            grouped(LIMIT_BYTES),
            grouped(measured.bytes_passed.saturating_sub(udp)),
            grouped(udp)
        );
        let mut rows = vec![
            row("bytes passed", grouped(measured.bytes_passed), split),
            row("bytes over the limit", grouped(self.bytes_over_limit()), String::new()),
            row(
                "packets after the trip",
                optional(measured.packets_after_trip),
                format!("at most {} on {} CPUs", cpus() - 1, cpus()),
            ),
            row(
                "ns from crossing to first drop",
                optional(measured.ns_crossing_to_first_drop),
                "0: the packet that crosses is dropped".into(),
            ),
            row("packets dropped", grouped(measured.packets_dropped), "sent by summarizer".into()),
            row(
                "doors that the sweep reached",
                grouped(self.reached),
                format!("of {} tried, {LIMIT_ENDPOINTS} allowed", grouped(self.tried)),
            ),
        ];
        rows.extend(self.bystanders.iter().map(|bystander| {
            let latency = |samples: &[Sample]| Bystander::latency(samples).map_or("–".into(), milliseconds);
            let note = format!(
                "HTTP errors; median {} before, {} during",
                latency(&bystander.before),
                latency(&bystander.during)
            );
            row(bystander.id, bystander.errors.to_string(), note)
        }));
        rows.extend(self.restored.iter().map(|(id, all, ok)| {
            let note = format!("requests answered of {} since its release", grouped(*all as u64));
            row(id, grouped(*ok as u64), note)
        }));
        rows
    }
}

/// How many requests an agent made since it was released, and how many were answered.
fn answered(id: &'static str, journal: &Journal, times: &Times) -> (&'static str, usize, usize) {
    let samples = journal.between(times.restored, times.end);
    (id, samples.len(), samples.iter().filter(|sample| sample.ok).count())
}

fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}
