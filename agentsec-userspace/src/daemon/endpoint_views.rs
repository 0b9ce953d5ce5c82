//! An agent's endpoints as the API shows them: what they were told, what connections have not told them yet, and how they
//! answer.

use std::collections::HashMap;

use agentsec_common::agent::Slot;
use agentsec_common::endpoint::{Endpoint, EndpointKey, EndpointKind, Typical};
use agentsec_common::sample::Responses;
use agentsec_common::times::COARSE_SHIFT;
use anyhow::Result;

use crate::api::views::{EndpointList, EndpointTraffic, EndpointView, mean_ms, ns_as_ms, protocol_name};
use crate::api::{RequestError, Timestamp};
use crate::clock;
use crate::core::Time;
use crate::core::address::from_address;
use crate::core::flows::{Untold, endpoint_of};
use crate::core::recent::quantiles_ns;

use super::Daemon;

impl Daemon {
    pub(super) fn endpoints_of(&mut self, agent: &str) -> Result<EndpointList, RequestError> {
        let slot = self.slot(agent)?;
        let now = clock::now();
        // First the endpoints: what a connection tells one meanwhile is missed, and not counted twice.
        let found: Vec<(EndpointKey, Endpoint)> =
            self.kernel.collector.endpoints().filter(|(key, _)| key.slot == slot).collect();
        let untold = match self.untold(slot) {
            Ok(untold) => untold,
            Err(error) => {
                self.complain("connections", &error);
                HashMap::new()
            }
        };
        let mut endpoints: Vec<EndpointView> = found
            .iter()
            .map(|(key, endpoint)| {
                let untold = untold.get(key).copied().unwrap_or_default();
                // What cannot be read is shown as none.
                let responses = self.kernel.collector.responses(key).ok().flatten();
                view(now, key, endpoint, &untold, responses.as_ref())
            })
            .collect();
        endpoints.sort_by_key(|view| std::cmp::Reverse(view.outbound.bytes + view.inbound.bytes));
        let overflow = self.kernel.collector.ledger(slot).endpoint_overflow;
        Ok(EndpointList { agent: agent.to_owned(), endpoints, overflow })
    }

    /// What has passed on an agent's connections and its endpoints have not been told, those included that are over.
    fn untold(&mut self, slot: Slot) -> Result<HashMap<EndpointKey, Untold>> {
        let mut untold: HashMap<EndpointKey, Untold> = self.flows.owed_to(slot).collect();
        self.kernel.collector.each_flow(|key, flow| {
            if key.slot() == slot {
                untold.entry(endpoint_of(&key, &flow)).or_default().add(&Untold::of(&flow));
            }
        })?;
        Ok(untold)
    }
}

pub(super) fn view(
    now: Time,
    key: &EndpointKey,
    endpoint: &Endpoint,
    untold: &Untold,
    responses: Option<&Responses>,
) -> EndpointView {
    let seen = |mono_ns: u64| Timestamp(now.wall_at(mono_ns) / 1_000_000);
    let passed = |direction: usize| EndpointTraffic {
        bytes: endpoint.bytes[direction] + untold.bytes[direction],
        packets: endpoint.packets[direction] + untold.packets[direction],
    };
    let (_, p50, p99) = responses.map_or((0, None, None), |found| quantiles_ns(&found.times, COARSE_SHIFT));
    EndpointView {
        remote: from_address(key.remote),
        port: key.port,
        protocol: protocol_name(key.protocol).into_owned(),
        direction: EndpointKind::from_byte(key.kind).unwrap_or(EndpointKind::Opened).into(),
        typical: Some(Typical::latest(endpoint.typical)),
        outbound: passed(0),
        inbound: passed(1),
        first_seen: seen(endpoint.first_seen_ns),
        last_seen: seen(endpoint.last_seen_ns),
        responses: responses.map_or(0, |found| found.count),
        p50_ms: p50.map(ns_as_ms),
        p99_ms: p99.map(ns_as_ms),
        deviation_ms: responses.and_then(|found| mean_ms(found.deviation_100us, found.count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentsec_common::times::{COARSE_BUCKETS, time_bucket};

    #[test]
    fn an_endpoint_shows_what_it_was_told_and_what_it_was_not_and_how_it_answers() {
        let key = EndpointKey { slot: 1, port: 443, protocol: 6, kind: 0, remote: [0, 0, 0, 1] };
        let endpoint = Endpoint { bytes: [1000, 50], packets: [10, 5], ..Endpoint::default() };
        let untold = Untold { bytes: [24, 0], packets: [1, 0] };
        let mut times = [0; COARSE_BUCKETS];
        times[time_bucket(5_000_000) >> COARSE_SHIFT] = 3;
        let responses = Responses { count: 3, deviation_100us: 1350, times };
        let view = view(clock::now(), &key, &endpoint, &untold, Some(&responses));
        assert_eq!(view.outbound, EndpointTraffic { bytes: 1024, packets: 11 });
        assert_eq!(view.inbound, EndpointTraffic { bytes: 50, packets: 5 });
        assert_eq!((view.responses, view.deviation_ms), (3, Some(45.0)));
        let p50 = view.p50_ms.unwrap();
        assert!((4.3..5.7).contains(&p50), "{p50}: a quarter of an octave is exact to a seventh");
        assert_eq!(view.p99_ms, view.p50_ms);
    }
}
