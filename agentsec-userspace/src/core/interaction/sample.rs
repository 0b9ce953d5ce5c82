//! Which interactions are recorded: all of a risky agent; of a calm one the first with each endpoint and every so
//! manieth after it. What is left out is counted, and the count is an event.

use super::{FlowSummary, OpenedBy};
use crate::core::draft::{Draft, EventKind};
use crate::core::time::Time;
use agentsec_common::policy::State;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Endpoints of an agent that are remembered within an interval; those beyond are sampled like known ones.
const ENDPOINTS: usize = 1024;

/// How to sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplingSettings {
    /// An agent is calm while its circuit is CLOSED and its risk, per mille, is below this.
    pub calm_below_milli: u16,
    /// Of a calm agent's interactions with an endpoint that is known already, one in so many is recorded; 1 is all.
    pub one_in: u32,
    /// After this long endpoints are new again, and what was left out is told. Nanoseconds.
    pub interval_ns: u64,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self { calm_below_milli: 200, one_in: 16, interval_ns: 60_000_000_000 }
    }
}

/// An endpoint as the glossary has it.
type Endpoint = (OpenedBy, u8, IpAddr, u16);

/// One agent's interval.
#[derive(Clone, Debug, Default)]
struct Interval {
    began_ns: u64,
    endpoints: BTreeSet<Endpoint>,
    repeated: u32,
    left_out: LeftOut,
}

#[derive(Clone, Copy, Debug, Default)]
struct LeftOut {
    interactions: u64,
    outbound_bytes: u64,
    inbound_bytes: u64,
}

/// Decides for all agents.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    settings: SamplingSettings,
    agents: BTreeMap<String, Interval>,
}

impl Sampler {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(settings: SamplingSettings) -> Self {
        Self { settings, agents: BTreeMap::new() }
    }

    /// Whether to record `flow` of an agent in this state, with this risk. If not, it is counted.
    pub fn admits(&mut self, now: Time, flow: &FlowSummary, state: State, risk_milli: u16) -> bool {
        let settings = self.settings;
        if !self.agents.contains_key(&flow.agent) {
            let interval = Interval { began_ns: now.mono_ns, ..Interval::default() };
            self.agents.insert(flow.agent.clone(), interval);
        }
        let Some(interval) = self.agents.get_mut(&flow.agent) else { return true };
        let port = if flow.opened_by == OpenedBy::Agent { flow.remote.port() } else { flow.local.port() };
        let endpoint = (flow.opened_by, flow.protocol, flow.remote.ip(), port);
        let is_new = !interval.endpoints.contains(&endpoint) && interval.endpoints.len() < ENDPOINTS;
        if is_new {
            interval.endpoints.insert(endpoint);
        }
        let is_calm = state == State::Closed && risk_milli < settings.calm_below_milli;
        if !is_calm || is_new {
            return true;
        }
        interval.repeated = interval.repeated.wrapping_add(1);
        if interval.repeated.is_multiple_of(settings.one_in.max(1)) {
            return true;
        }
        interval.left_out.interactions += 1;
        interval.left_out.outbound_bytes += flow.outbound.bytes;
        interval.left_out.inbound_bytes += flow.inbound.bytes;
        false
    }

    /// Ends the intervals that are over; what was left out in them is told. An agent that has gone is forgotten so.
    pub fn end_intervals(&mut self, now: Time) -> Vec<Draft> {
        let settings = self.settings;
        let is_over =
            |interval: &Interval| now.mono_ns.saturating_sub(interval.began_ns) >= settings.interval_ns;
        let over = self.agents.extract_if(.., |_, interval| is_over(interval));
        over.filter(|(_, interval)| interval.left_out.interactions > 0)
            .map(|(agent, interval)| told(now, agent, &interval, settings))
            .collect()
    }
}

fn told(now: Time, agent: String, interval: &Interval, settings: SamplingSettings) -> Draft {
    let LeftOut { interactions, outbound_bytes, inbound_bytes } = interval.left_out;
    let data = json!({
        "what": "interactions_sampled",
        "interactions": interactions,
        "outbound_bytes": outbound_bytes,
        "inbound_bytes": inbound_bytes,
        "one_in": settings.one_in,
        "since": crate::core::time::rfc3339(now.wall_at(interval.began_ns)),
    });
    Draft { agent_id: Some(agent), ..Draft::daemon(now, EventKind::Loss, data) }
}
