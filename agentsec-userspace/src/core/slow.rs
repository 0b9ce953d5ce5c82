//! One agent's signals that only the daemon sees, from all that find them, as the one word that the kernel honours.

use agentsec_common::policy::SlowSignals;
use agentsec_common::window::{BUCKETS, BucketClock, Moment, Step};

/// Between two words that say the same, nanoseconds: well within the time that one holds.
const REPEAT_NS: u64 = 1_000_000_000;

/// What was found of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slow {
    /// Window of failed authentications that the daemon has found.
    failures: [u64; BUCKETS],
    /// Deviation with the answers that are late, 100 µs.
    deviation_100us: u16,
    /// The epoch in force, and since when.
    epoch: Option<(u32, u64)>,
    /// What was said last, and when.
    said: Option<(SlowSignals, u64)>,
}

impl Slow {
    /// Since when the agent's epoch lasts, monotonic nanoseconds. A new one starts from nothing, as the kernel's windows do.
    pub fn since_ns(&mut self, now_ns: u64, epoch: u32) -> u64 {
        match self.epoch {
            Some((known, since_ns)) if known == epoch => since_ns,
            before => {
                self.epoch = Some((epoch, now_ns));
                if before.is_some() {
                    self.deviation_100us = 0;
                }
                now_ns
            }
        }
    }

    /// Counts failed authentications at a moment of the agent's windows.
    pub fn fail(&mut self, moment: Moment, failures: u32) {
        let word = &mut self.failures[moment.index()];
        match moment.step(*word, failures.into()) {
            Step::Add => *word += u64::from(failures),
            Step::Restart(fresh) => *word = fresh,
            Step::Full => {}
        }
    }

    /// Keeps the deviation with the answers that are late; zero when none is.
    pub fn set_deviation_100us(&mut self, deviation: u16) {
        self.deviation_100us = deviation;
    }

    /// What is to be said at `now_ns`, if anything: what has changed, and again what lasts, until it is over.
    pub fn say(&mut self, now_ns: u64, clock: BucketClock, epoch: u32) -> Option<SlowSignals> {
        self.since_ns(now_ns, epoch);
        let failures = clock.moment(now_ns, epoch).sum(&self.failures);
        let signals = SlowSignals {
            auth_failures: u16::try_from(failures).unwrap_or(u16::MAX),
            deviation_100us: self.deviation_100us,
            extra_milli: 0,
        };
        let is_due = match self.said {
            Some((said, _)) if said != signals => true,
            Some((_, at_ns)) => {
                signals != SlowSignals::default() && now_ns.saturating_sub(at_ns) >= REPEAT_NS
            }
            None => signals != SlowSignals::default(),
        };
        is_due.then(|| {
            self.said = Some((signals, now_ns));
            signals
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW_NS: u64 = 60_000_000_000;
    const START: u64 = 1 << 45;
    const TICK: u64 = 250_000_000;

    fn clock() -> BucketClock {
        BucketClock::for_window(WINDOW_NS)
    }

    /// What is said at each tick of so many.
    fn ticks(slow: &mut Slow, from: u64, count: u64) -> Vec<Option<SlowSignals>> {
        (0..count).map(|tick| slow.say(from + tick * TICK, clock(), 3)).collect()
    }

    #[test]
    fn nothing_found_says_nothing() {
        assert!(ticks(&mut Slow::default(), START, 1000).iter().all(Option::is_none));
    }

    #[test]
    fn failures_and_lateness_are_one_word_that_is_repeated_and_then_taken_back() {
        let mut slow = Slow::default();
        slow.fail(clock().moment(START, 3), 2);
        slow.fail(clock().moment(START, 3), 1);
        slow.set_deviation_100us(700);
        let said = ticks(&mut slow, START, 5);
        let word = SlowSignals { auth_failures: 3, deviation_100us: 700, extra_milli: 0 };
        assert_eq!(said, [Some(word), None, None, None, Some(word)]);
        slow.set_deviation_100us(0);
        let failures = SlowSignals { auth_failures: 3, ..SlowSignals::default() };
        assert_eq!(slow.say(START + 5 * TICK, clock(), 3), Some(failures), "changes are said at once");
        let later = ticks(&mut slow, START + 6 * TICK, 300);
        let last = later.iter().flatten().last();
        assert_eq!(last, Some(&SlowSignals::default()), "once the window is over");
        let told = later.iter().flatten().filter(|said| **said == SlowSignals::default()).count();
        assert_eq!(told, 1, "and then no more");
        let lasted = later.iter().position(|said| *said == Some(SlowSignals::default())).unwrap() as u64;
        let window = (lasted + 6) * TICK;
        assert!((WINDOW_NS..WINDOW_NS / 7 * 8 + WINDOW_NS / 50).contains(&window), "{window}");
    }

    #[test]
    fn a_new_epoch_starts_from_nothing() {
        let mut slow = Slow::default();
        assert_eq!(slow.since_ns(START, 3), START);
        slow.fail(clock().moment(START, 3), 2);
        slow.set_deviation_100us(700);
        assert!(slow.say(START, clock(), 3).is_some());
        assert_eq!(slow.say(START + TICK, clock(), 4), Some(SlowSignals::default()));
        assert_eq!(slow.since_ns(START + 2 * TICK, 4), START + TICK);
    }

    #[test]
    fn more_failures_than_the_word_holds_are_as_many_as_it_holds() {
        let mut slow = Slow::default();
        slow.fail(clock().moment(START, 3), 70_000);
        assert_eq!(slow.say(START, clock(), 3).unwrap().auth_failures, u16::MAX);
    }
}
