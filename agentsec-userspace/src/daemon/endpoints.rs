//! Ageing of endpoints: the kernel only adds them.

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
    /// Removes endpoints that have been silent for long; for twice the window only, when an agent's list or the
    /// map is more than half full. One that still counts in a window is never removed, or it would count twice.
    pub(super) fn age_endpoints(&mut self, now: Time) {
        let pressed = self.is_pressed();
        self.next_ageing_ns = now.mono_ns + if pressed { PRESSED_INTERVAL_NS } else { INTERVAL_NS };
        let idle: Vec<EndpointKey> = self
            .kernel
            .collector
            .endpoints()
            .filter(|(key, endpoint)| self.is_idle(now, key, endpoint, pressed))
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
        }
    }

    fn is_idle(&self, now: Time, key: &EndpointKey, endpoint: &Endpoint, pressed: bool) -> bool {
        let silent = now.mono_ns.saturating_sub(endpoint.last_seen_ns);
        let Some(window_ns) = self.roster.window_ns(key.slot) else {
            return true;
        };
        let limit = if pressed { 2 * window_ns } else { IDLE_NS.max(2 * window_ns) };
        silent > limit
    }

    /// Whether an agent's list, or the map, is more than half full.
    fn is_pressed(&self) -> bool {
        let mut total = 0;
        for slot in self.roster.slots() {
            let Some(profile) = self.roster.profile(slot) else { continue };
            for kind in [EndpointKind::Opened, EndpointKind::Accepted] {
                let live = self.live_endpoints(slot, kind);
                total += live;
                if live * 2 > u64::from(profile.endpoint_cap) {
                    return true;
                }
            }
        }
        total * 2 > u64::from(self.config.daemon.max_endpoints)
    }

    /// Endpoints of a kind in an agent's list.
    pub(super) fn live_endpoints(&self, slot: u32, kind: EndpointKind) -> u64 {
        let inserted = self.kernel.collector.ledger(slot).endpoints_inserted[kind as usize];
        inserted.wrapping_sub(self.kernel.enforcer.endpoints_removed(slot, kind))
    }
}
