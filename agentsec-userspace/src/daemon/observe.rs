//! The kernel's words as the core's observations.

use agentsec_common::agent::Slot;
use agentsec_common::ledger::violations_in;
use agentsec_common::policy::TRIP_MASK;
use agentsec_common::risk::Signals;

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
        // The slow signals are the core's own; it adds them.
        let signals = Signals {
            volume: moment.sum(&ledger.volume),
            unusual_endpoints: u32::try_from(moment.sum(&ledger.unusual)).unwrap_or(u32::MAX),
            ..Signals::default()
        };
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
            signals,
            violations: violations_in(ledger.violations, control.epoch),
            endpoint_overflow: ledger.endpoint_overflow,
            notices_lost: ledger.notices_lost,
            counters,
        })
    }
}
