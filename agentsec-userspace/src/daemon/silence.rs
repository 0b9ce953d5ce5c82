//! Whether the log's disk answers, by what is written and what waits.

use crate::core::Time;
use crate::record::writer::Counts;

/// A log that takes so long for an event is silent, nanoseconds.
const SILENT_NS: u64 = 5_000_000_000;

/// Since when nothing was written although something waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    written: u64,
    since_ns: u64,
}

impl Silence {
    pub(super) const fn new(now: Time) -> Self {
        Self { written: 0, since_ns: now.mono_ns }
    }

    /// Whether the log is silent now.
    pub(super) const fn is_silent(&mut self, now: Time, counts: Counts) -> bool {
        if counts.queued == 0 || counts.written != self.written {
            *self = Self { written: counts.written, since_ns: now.mono_ns };
        }
        now.mono_ns.saturating_sub(self.since_ns) >= SILENT_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_silent_when_what_waits_is_not_written_for_a_while() {
        let at = |second: u64| Time { mono_ns: second * 1_000_000_000, wall_ns: 0 };
        let counts = |written, queued| Counts { written, queued, lost: 0 };
        let mut silence = Silence::new(at(0));
        assert!(!silence.is_silent(at(100), counts(0, 0)), "nothing is to be written");
        assert!(!silence.is_silent(at(101), counts(0, 3)));
        assert!(!silence.is_silent(at(104), counts(1, 9)), "it gets on");
        assert!(!silence.is_silent(at(108), counts(1, 9)));
        assert!(silence.is_silent(at(109), counts(1, 9)));
        assert!(!silence.is_silent(at(110), counts(10, 0)), "it is well again");
    }
}
