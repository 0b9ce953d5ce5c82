//! Ageing of endpoints: the kernel only adds them.

use std::collections::BTreeSet;

use agentsec_common::agent::Slot;
use agentsec_common::endpoint::{Endpoint, EndpointKey, EndpointKind};

use crate::core::Time;

use super::Daemon;

/// An endpoint is forgotten when it has been silent for so long, nanoseconds.
const IDLE_NS: u64 = 600_000_000_000;
/// Between two looks at all endpoints.
const INTERVAL_NS: u64 = 60_000_000_000;
/// The same while a list is filling up.
const PRESSED_INTERVAL_NS: u64 = 5_000_000_000;

impl Daemon {
    /// Removes endpoints that have been silent for long; for twice the window only, in the lists that press. One
    /// that still counts in a window is never removed, or it would count twice.
    pub(super) fn age_endpoints(&mut self, now: Time) {
        let pressing = self.pressing();
        self.next_ageing_ns =
            now.mono_ns + if pressing.is_empty() { INTERVAL_NS } else { PRESSED_INTERVAL_NS };
        let idle: Vec<EndpointKey> = self
            .kernel
            .collector
            .endpoints()
            .filter(|(key, endpoint)| self.is_idle(now, key, endpoint, pressing.contains(&key.slot)))
            .map(|(key, _)| key)
            .collect();
        for key in idle {
            match self.kernel.collector.remove_endpoint(&key) {
                Ok(true) => {
                    let kind = EndpointKind::from_byte(key.kind).unwrap_or(EndpointKind::Opened);
                    self.kernel.enforcer.add_endpoints_removed(key.slot, kind, 1);
                }
                Ok(false) => {}
                Err(error) => self.complain("endpoints", &error),
            }
            self.flows.forget_owed(&key);
            if let Err(error) = self.kernel.collector.remove_responses(&key) {
                self.complain("endpoints", &error);
            }
        }
    }

    fn is_idle(&self, now: Time, key: &EndpointKey, endpoint: &Endpoint, pressing: bool) -> bool {
        let silent = now.mono_ns.saturating_sub(endpoint.last_seen_ns);
        let Some(window_ns) = self.roster.window_ns(key.slot) else {
            return true;
        };
        let limit = if pressing { 2 * window_ns } else { IDLE_NS.max(2 * window_ns) };
        silent > limit
    }

    /// The agents whose lists press: more than half full, or more than their share of a map that is. What one
    /// agent fills up, the others do not pay for.
    fn pressing(&self) -> BTreeSet<Slot> {
        let lists: Vec<List> = self.roster.slots().into_iter().filter_map(|slot| self.list(slot)).collect();
        pressing(&lists, u64::from(self.config.daemon.max_endpoints))
    }

    fn list(&self, slot: Slot) -> Option<List> {
        let cap = u64::from(self.roster.profile(slot)?.endpoint_cap);
        let live = [EndpointKind::Opened, EndpointKind::Accepted].map(|kind| self.live_endpoints(slot, kind));
        Some(List { slot, live, cap })
    }

    /// Endpoints of a kind in an agent's list.
    pub(super) fn live_endpoints(&self, slot: u32, kind: EndpointKind) -> u64 {
        let inserted = self.kernel.collector.ledger(slot).endpoints_inserted[kind as usize];
        inserted.wrapping_sub(self.kernel.enforcer.endpoints_removed(slot, kind))
    }
}

/// An agent's endpoints, or connections.
pub(super) struct List {
    pub(super) slot: Slot,
    /// How many there are of each kind.
    pub(super) live: [u64; 2],
    /// How many there may be of each.
    pub(super) cap: u64,
}

/// The agents whose lists press, of all that share a map of a capacity.
pub(super) fn pressing(lists: &[List], capacity: u64) -> BTreeSet<Slot> {
    let total = |list: &List| list.live.iter().sum::<u64>();
    let is_full = lists.iter().map(total).sum::<u64>() * 2 > capacity;
    let share = capacity / (2 * lists.len().max(1) as u64);
    let presses =
        |list: &&List| list.live.iter().any(|live| live * 2 > list.cap) || is_full && total(list) > share;
    lists.iter().filter(presses).map(|list| list.slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(slot: Slot, opened: u64) -> List {
        List { slot, live: [opened, 0], cap: 100 }
    }

    #[test]
    fn only_lists_that_are_more_than_half_full_press() {
        assert!(pressing(&[list(0, 50), list(1, 3)], 1_000).is_empty());
        assert_eq!(pressing(&[list(0, 51), list(1, 3)], 1_000), BTreeSet::from([0]));
        assert!(pressing(&[], 1_000).is_empty());
    }

    #[test]
    fn of_a_map_that_is_more_than_half_full_those_press_that_have_more_than_their_share() {
        let lists = [list(0, 40), list(1, 40), list(2, 40), list(3, 2)];
        assert!(pressing(&lists, 244).is_empty(), "half full");
        assert_eq!(pressing(&lists, 240), BTreeSet::from([0, 1, 2]));
    }
}
