//! When an anchor's turn is. Pure.

/// The first wait after a failure.
const FIRST_RETRY_NS: u64 = 2_000_000_000;
/// The longest wait after failures, unless the interval is longer.
const LAST_RETRY_NS: u64 = 600_000_000_000;
/// A failure that goes on is told again so often.
const TELL_AGAIN_NS: u64 = 3_600_000_000_000;

/// When an anchor is tried next, and when its failure is told next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Monotonic time of the next attempt.
    pub next_ns: u64,
    tell_ns: Option<u64>,
}

impl Turn {
    /// It worked. Whether a failure that was told is over.
    pub fn worked(&mut self, now_ns: u64, interval_ns: u64) -> bool {
        self.next_ns = now_ns.saturating_add(interval_ns);
        self.tell_ns.take().is_some()
    }

    /// It failed for the `failures`th time in a row: tried again after a wait that doubles. Whether that is told.
    pub fn failed(&mut self, now_ns: u64, interval_ns: u64, failures: u32) -> bool {
        let wait = FIRST_RETRY_NS.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let longest = LAST_RETRY_NS.max(interval_ns);
        self.next_ns = now_ns.saturating_add(wait.min(longest));
        self.is_told(now_ns)
    }

    /// The log contradicts it: looked at again after the interval. Whether that is told.
    pub fn contradicted(&mut self, now_ns: u64, interval_ns: u64) -> bool {
        self.next_ns = now_ns.saturating_add(interval_ns);
        self.is_told(now_ns)
    }

    fn is_told(&mut self, now_ns: u64) -> bool {
        let told = self.tell_ns.is_none_or(|tell_ns| now_ns >= tell_ns);
        if told {
            self.tell_ns = Some(now_ns.saturating_add(TELL_AGAIN_NS));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_retried_later_and_later_and_told_once_an_hour() {
        const SECOND: u64 = 1_000_000_000;
        let mut turn = Turn::default();
        let mut now = 0;
        let mut waits = Vec::new();
        let mut told = Vec::new();
        for failures in 1..=16 {
            if turn.failed(now, 60 * SECOND, failures) {
                told.push(now / SECOND);
            }
            waits.push((turn.next_ns - now) / SECOND);
            now = turn.next_ns;
        }
        assert_eq!(waits[..6], [2, 4, 8, 16, 32, 64]);
        assert_eq!(waits[12..], [600; 4]);
        assert_eq!(told, [0, 4022]);
        assert!(turn.worked(now, 60 * SECOND) && turn.next_ns == now + 60 * SECOND);
        assert!(!turn.worked(now, 60 * SECOND), "nothing to be told any more");
        assert!(turn.contradicted(now, SECOND) && !turn.contradicted(now + SECOND, SECOND));
    }
}
