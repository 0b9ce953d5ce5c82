//! When an agent's next snapshot is due, and whether it may be taken. Pure: time and chance are passed in.

use agentsec_common::policy::State;

/// The longest that failures put off the next attempt.
const MOST_NS: u64 = 3_600_000_000_000;

/// One agent's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When it is due, monotonic nanoseconds.
    pub due_ns: u64,
    /// Failures in a row.
    pub failures: u32,
}

impl Turn {
    /// The first turn: somewhere in the first interval, so that agents do not come all at once.
    #[must_use]
    pub fn first(interval_ns: u64, chance: f64, now_ns: u64) -> Self {
        Self { due_ns: now_ns.saturating_add(scaled(interval_ns, chance)), failures: 0 }
    }

    /// The turn after one that went well or not. An interval is a tenth shorter or longer, by chance; each failure
    /// in a row doubles it.
    #[must_use]
    pub fn next(self, went_well: bool, interval_ns: u64, chance: f64, now_ns: u64) -> Self {
        let failures = if went_well { 0 } else { self.failures.saturating_add(1) };
        let longer = interval_ns.saturating_mul(1 << failures.min(20));
        let base = if failures == 0 { interval_ns } else { longer.min(MOST_NS.max(interval_ns)) };
        Self { due_ns: now_ns.saturating_add(scaled(base, 0.9 + 0.2 * chance)), failures }
    }
}

fn scaled(ns: u64, factor: f64) -> u64 {
    (ns as f64 * factor) as u64
}

/// Why no snapshot is taken although it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Its circuit is not CLOSED: its state may be the attacker's.
    NotClosed,
    /// Its risk is high.
    Risky,
}

/// Whether a snapshot may be taken of an agent in this state and at this risk.
///
/// # Errors
///
/// Why not.
pub fn may(state: State, risk_milli: u16, max_risk_milli: u32) -> Result<(), Skip> {
    if state != State::Closed {
        return Err(Skip::NotClosed);
    }
    if u32::from(risk_milli) >= max_risk_milli { Err(Skip::Risky) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: u64 = 60_000_000_000;

    #[test]
    fn failures_put_the_next_attempt_off_and_success_brings_it_back() {
        let mut turn = Turn { due_ns: 0, failures: 0 };
        let mut waits = Vec::new();
        for _ in 0..6 {
            turn = turn.next(false, 5 * MINUTE, 0.5, 0);
            waits.push(turn.due_ns / MINUTE);
        }
        assert_eq!(waits, [10, 20, 40, 60, 60, 60]);
        assert_eq!(turn.next(true, 5 * MINUTE, 0.5, 0), Turn { due_ns: 5 * MINUTE, failures: 0 });
        let daily = Turn { due_ns: 0, failures: 7 }.next(false, 1440 * MINUTE, 0.5, 0);
        assert_eq!(daily.due_ns, 1440 * MINUTE, "never more often than if all were well");
    }

    #[test]
    fn none_is_taken_of_an_agent_that_may_be_compromised() {
        for (state, risk, expected) in [
            (State::Closed, 349, Ok(())),
            (State::Closed, 350, Err(Skip::Risky)),
            (State::HalfOpen, 0, Err(Skip::NotClosed)),
            (State::Open, 0, Err(Skip::NotClosed)),
        ] {
            assert_eq!(may(state, risk, 350), expected, "{state:?} {risk}");
        }
    }

    proptest! {
        #[test]
        fn a_turn_is_never_far_from_its_interval(
            interval in MINUTE..10_000 * MINUTE, chance in 0.0f64..1.0, now in 0u64..1 << 60, failures in 0u32..u32::MAX,
        ) {
            let first = Turn::first(interval, chance, now).due_ns - now;
            prop_assert!(first <= interval);
            let next = Turn { due_ns: 0, failures }.next(true, interval, chance, now).due_ns - now;
            prop_assert!(next >= interval * 89 / 100 && next <= interval * 111 / 100);
            let later = Turn { due_ns: 0, failures }.next(false, interval, chance, now).due_ns - now;
            prop_assert!(later >= interval * 89 / 100 && later <= (2 * interval).max(MOST_NS) * 111 / 100);
        }
    }
}
