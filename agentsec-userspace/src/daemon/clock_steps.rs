//! Whether the wall clock was set, or stood still for the other one: who reads the log has to know.

use crate::core::Time;

/// A smaller step is none, nanoseconds: both clocks are slewed alike, and they are not read at the same instant.
const STEP_NS: u64 = 1_000_000_000;

/// How far the wall clock is ahead of the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockSteps {
    ahead_ns: i64,
    /// What was read last, if it was something else.
    suspected_ns: Option<i64>,
}

const fn ahead(now: Time) -> i64 {
    now.wall_ns.wrapping_sub(now.mono_ns).cast_signed()
}

impl ClockSteps {
    pub(super) const fn new(now: Time) -> Self {
        Self { ahead_ns: ahead(now), suspected_ns: None }
    }

    /// The step that two readings one after the other agree on, nanoseconds; positive is ahead. One alone may have been
    /// interrupted between its two clocks.
    pub(super) const fn step(&mut self, now: Time) -> Option<i64> {
        let ahead_ns = ahead(now);
        if ahead_ns.abs_diff(self.ahead_ns) < STEP_NS {
            self.suspected_ns = None;
            return None;
        }
        let suspected_ns = self.suspected_ns.replace(ahead_ns);
        match suspected_ns {
            Some(suspected_ns) if ahead_ns.abs_diff(suspected_ns) < STEP_NS => {
                let step_ns = ahead_ns.saturating_sub(self.ahead_ns);
                *self = Self::new(now);
                Some(step_ns)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_once_and_when_two_readings_agree_on_it() {
        let at = |mono_ms: u64, ahead_ms: u64| Time {
            mono_ns: mono_ms * 1_000_000,
            wall_ns: (mono_ms + ahead_ms) * 1_000_000,
        };
        let mut clock = ClockSteps::new(at(100, 50_000));
        assert_eq!(clock.step(at(200, 50_999)), None, "less than a second");
        assert_eq!(clock.step(at(300, 53_000)), None, "interrupted between the clocks");
        assert_eq!(clock.step(at(400, 50_000)), None);
        assert_eq!(clock.step(at(500, 20_000)), None);
        assert_eq!(clock.step(at(600, 20_000)), Some(-30_000_000_000), "set back");
        assert_eq!(clock.step(at(700, 20_000)), None, "once");
        assert_eq!(clock.step(at(800, 90_000)), None);
        assert_eq!(clock.step(at(900, 40_000)), None, "somewhere else already");
        assert_eq!(clock.step(at(1000, 40_000)), Some(20_000_000_000));
    }

    #[test]
    fn times_without_sense_are_no_panic() {
        let mut clock = ClockSteps::new(Time { mono_ns: u64::MAX, wall_ns: 0 });
        let set = Time { mono_ns: 0, wall_ns: u64::MAX };
        assert_eq!([clock.step(set), clock.step(set)], [None, None], "they differ by two nanoseconds");
        let far = Time { mono_ns: 1 << 63, wall_ns: 0 };
        assert_eq!(clock.step(far), None);
        assert_eq!(clock.step(far), Some(i64::MIN));
    }
}
