//! Which interactions are recorded: all of a risky agent, and all with one; of calm ones the first with each endpoint and
//! every so manieth flow after it. What is left out is counted, and the count is an event.
//!
//! Which flow is one of those is a matter of its ends, not of who looks: where both ends are agents, both sides record the
//! same flows; intervals begin for all agents at once for the same reason. A secret seed goes into it, so nobody can choose ports that are never recorded.

use super::{FlowSummary, OpenedBy};
use crate::core::draft::{Draft, EventKind};
use crate::core::time::{Time, rfc3339};
use agentsec_common::policy::State;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
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

/// How an agent stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub agent: String,
    /// The state in force.
    pub state: State,
    /// Its risk, per mille.
    pub risk_milli: u16,
    /// Its profile wants all of its interactions, however calm it is.
    pub complete: bool,
}

/// An endpoint as the glossary has it.
type Endpoint = (OpenedBy, u8, IpAddr, u16);

/// One agent's interval.
#[derive(Clone, Debug, Default)]
struct Interval {
    began_ns: u64,
    endpoints: HashSet<Endpoint>,
    left_out: LeftOut,
}

/// Interactions that are not in the log, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) interactions: u64,
    pub(super) outbound_bytes: u64,
    pub(super) inbound_bytes: u64,
}

impl LeftOut {
    pub(super) fn add(&mut self, flow: &FlowSummary) {
        self.interactions += 1;
        self.outbound_bytes += flow.outbound.bytes;
        self.inbound_bytes += flow.inbound.bytes;
    }
}

/// Decides for all agents.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    settings: SamplingSettings,
    seed: u64,
    agents: BTreeMap<String, Interval>,
}

impl Sampler {
    /// One that has seen nothing. The seed is nobody else's to know.
    #[must_use]
    pub fn new(settings: SamplingSettings, seed: u64) -> Self {
        Self { settings, seed, agents: BTreeMap::new() }
    }

    /// Other settings from now on.
    pub fn configure(&mut self, settings: SamplingSettings) {
        self.settings = settings;
    }

    /// Whether to record `flow` of an agent that stands so, with an agent that stands so on the other side if there is one.
    /// If not, it is counted.
    pub fn admits(
        &mut self,
        now: Time,
        flow: &FlowSummary,
        standing: &Standing,
        peer: Option<&Standing>,
    ) -> bool {
        let settings = self.settings;
        if !self.agents.contains_key(&flow.agent) {
            // All intervals begin together, so that an endpoint is new on both sides of a flow or on neither.
            let began_ns = now.mono_ns - now.mono_ns % settings.interval_ns.max(1);
            let interval = Interval { began_ns, ..Interval::default() };
            self.agents.insert(flow.agent.clone(), interval);
        }
        let is_chosen = self.is_chosen(flow);
        let Some(interval) = self.agents.get_mut(&flow.agent) else { return true };
        let port = if flow.opened_by == OpenedBy::Agent { flow.remote.port() } else { flow.local.port() };
        let endpoint = (flow.opened_by, flow.protocol, flow.remote.ip(), port);
        let is_new = interval.endpoints.len() < ENDPOINTS && interval.endpoints.insert(endpoint);
        let is_calm = |standing: &Standing| {
            standing.state == State::Closed
                && standing.risk_milli < settings.calm_below_milli
                && !standing.complete
        };
        if is_new || is_chosen || !is_calm(standing) || peer.is_some_and(|peer| !is_calm(peer)) {
            return true;
        }
        interval.left_out.add(flow);
        false
    }

    /// Whether it is one of so many, from whichever side.
    fn is_chosen(&self, flow: &FlowSummary) -> bool {
        let ends =
            if flow.local <= flow.remote { (flow.local, flow.remote) } else { (flow.remote, flow.local) };
        let mut hash = DefaultHasher::new();
        (self.seed, flow.protocol, ends).hash(&mut hash);
        hash.finish().is_multiple_of(self.settings.one_in.max(1).into())
    }

    /// Ends the intervals that are over; what was left out in them is told. An agent that has gone is forgotten so.
    pub fn end_intervals(&mut self, now: Time) -> Vec<Draft> {
        let interval_ns = self.settings.interval_ns;
        self.end(now, |interval| now.mono_ns.saturating_sub(interval.began_ns) >= interval_ns)
    }

    /// Ends all intervals.
    pub fn end_all(&mut self, now: Time) -> Vec<Draft> {
        self.end(now, |_| true)
    }

    fn end(&mut self, now: Time, is_over: impl Fn(&Interval) -> bool) -> Vec<Draft> {
        let settings = self.settings;
        let over = self.agents.extract_if(.., |_, interval| is_over(interval));
        over.filter(|(_, interval)| interval.left_out.interactions > 0)
            .map(|(agent, interval)| {
                told(
                    now,
                    agent,
                    "interactions_sampled",
                    interval.left_out,
                    interval.began_ns,
                    settings.one_in,
                )
            })
            .collect()
    }
}

/// That interactions of an agent were left out.
pub(super) fn told(
    now: Time,
    agent: String,
    what: &str,
    left_out: LeftOut,
    since_ns: u64,
    one_in: u32,
) -> Draft {
    let data = json!({
        "what": what,
        "interactions": left_out.interactions,
        "outbound_bytes": left_out.outbound_bytes,
        "inbound_bytes": left_out.inbound_bytes,
        "one_in": one_in,
        "since": rfc3339(now.wall_at(since_ns)),
    });
    Draft { agent_id: Some(agent), ..Draft::daemon(now, EventKind::Loss, data) }
}
