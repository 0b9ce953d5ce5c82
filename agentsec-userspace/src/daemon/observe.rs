//! The kernel's words as the core's observations.

use agentsec_common::agent::Slot;
use agentsec_common::ledger::{Ledger, violations_in};
use agentsec_common::policy::TRIP_MASK;
use agentsec_common::risk::{Signals, deviation_100us};
use agentsec_common::window::{BUCKETS, GAUGE_MAX, Moment};

use crate::core::totals::{Losses, Totals};
use crate::core::{Observation, Time};

use super::Daemon;

impl Daemon {
    /// Every agent's words.
    pub(super) fn observe_all(&mut self, now: Time) -> Vec<Observation> {
        let slots = self.roster.slots();
        slots.into_iter().filter_map(|slot| self.observe(now, slot)).collect()
    }

    /// One agent's words; `None` for a slot that is nobody's.
    pub(super) fn observe(&mut self, now: Time, slot: Slot) -> Option<Observation> {
        let profile = self.roster.profile(slot)?;
        let control = self.kernel.enforcer.control(slot)?;
        let ledger = self.kernel.collector.ledger(slot);
        let moment = profile.bucket_clock().moment(now.mono_ns, control.epoch);
        let counters = match self.kernel.collector.counters(slot) {
            Ok(counters) => counters,
            Err(error) => {
                self.complain("counters", &error);
                return None;
            }
        };
        Some(Observation {
            slot,
            trip_seq: ledger.trip_seq as u32 & TRIP_MASK,
            trip: (ledger.trip.seq == ledger.trip_seq).then_some(ledger.trip),
            signals: signals(&ledger, moment),
            violations: violations_in(ledger.violations, control.epoch),
            totals: Totals::from(&ledger),
            losses: Losses::from(&ledger),
            counters,
        })
    }
}

/// What the kernel sees by itself at a moment, as it judges it. The slow signals are the core's own; it adds them.
fn signals(ledger: &Ledger, now: Moment) -> Signals {
    let clamped = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    // The kernel judges by gauges, which hold no more.
    let gauged = |value: u64| clamped(value).min(GAUGE_MAX);
    let sum = |window: &[u64; BUCKETS]| now.sum(window);
    Signals {
        volume: sum(&ledger.volume),
        unusual_endpoints: clamped(sum(&ledger.unusual)),
        auth_failures_centi: gauged(sum(&ledger.auth)),
        deviation_100us: gauged(deviation_100us(sum(&ledger.deviation), sum(&ledger.responses))),
        requests: gauged(sum(&ledger.requests)),
        anomalous_requests: gauged(sum(&ledger.anomalous)),
        extra_milli: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::collector::{LEDGER_WORDS, ledger_of};
    use agentsec_common::window::{BucketClock, Step, VALUE_FULL};

    #[test]
    fn every_signal_of_the_ledger_is_read_over_its_window() {
        let mut ledger = ledger_of([0; LEDGER_WORDS]);
        let now = BucketClock::for_window(60_000_000_000).moment(1 << 45, 7);
        let put = |window: &mut [u64; BUCKETS], amount: u64| {
            let Step::Restart(word) = now.step(0, amount) else { panic!("the window is empty") };
            window[now.index()] = word;
        };
        put(&mut ledger.volume, 1000);
        put(&mut ledger.unusual, 2);
        put(&mut ledger.auth, 525);
        put(&mut ledger.deviation, 4000);
        put(&mut ledger.responses, 9);
        put(&mut ledger.requests, 30);
        put(&mut ledger.anomalous, 3);
        let expected = Signals {
            volume: 1000,
            unusual_endpoints: 2,
            auth_failures_centi: 525,
            deviation_100us: 0,
            requests: 30,
            anomalous_requests: 3,
            extra_milli: 0,
        };
        assert_eq!(signals(&ledger, now), expected, "nine response times are too few");
        put(&mut ledger.responses, 10);
        put(&mut ledger.auth, VALUE_FULL - 1);
        let expected = Signals { auth_failures_centi: GAUGE_MAX, deviation_100us: 400, ..expected };
        assert_eq!(signals(&ledger, now), expected);
        let restarted = Moment { epoch: 8, ..now };
        assert_eq!(signals(&ledger, restarted), Signals::default(), "windows restart with an epoch");
    }
}
