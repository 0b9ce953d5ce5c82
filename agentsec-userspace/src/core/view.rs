//! Agents as commands and pages show them.

use super::agent::Agent;
use super::names::{ModeName, StateName};
use super::time::{Time, rfc3339};
use super::totals::{Losses, Totals};
use super::tripped::{By, Contributions, Packet};
use agentsec_common::agent::Slot;
use agentsec_common::counters::{Counters, Traffic};
use agentsec_common::policy::State;
use serde::Serialize;

/// One agent, as of the latest observation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgentView {
    /// Its id.
    pub id: String,
    /// Its slot.
    pub slot: Slot,
    /// The state in force.
    pub state: StateName,
    /// Its mode.
    pub mode: ModeName,
    /// The score, 0 to 1.
    pub risk: f64,
    /// The score, per mille.
    pub risk_milli: u16,
    /// The score's terms, per mille.
    pub contributions: Contributions,
    /// Counts transitions.
    pub epoch: u32,
    /// Whether only an operator ends OPEN.
    pub hold: bool,
    /// Whether the kernel has tripped and the event is not recorded yet.
    pub trip_unrecorded: bool,
    /// What happens next, in words.
    pub next: String,
    /// Milliseconds until the cool-down or the probe ends.
    pub deadline_in_ms: Option<u64>,
    /// Name of its profile.
    pub profile: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Wire bytes in the window.
    pub volume_bytes: u64,
    /// Unusual endpoints in the window.
    pub unusual_endpoints: u32,
    /// Failed authentications in the window, hundredths.
    pub auth_failures_centi: u32,
    /// Response time deviation, 100 µs.
    pub deviation_100us: u32,
    /// Requests in the window.
    pub requests: u32,
    /// Anomalous ones of them.
    pub anomalous_requests: u32,
    /// What was counted of requests and answers, ever.
    pub totals: Totals,
    /// What was lost, ever.
    pub losses: Losses,
    /// Probe violations in this epoch.
    pub violations: u32,
    /// Sent by the agent.
    pub outbound: TrafficView,
    /// Sent to the agent.
    pub inbound: TrafficView,
    /// Packets that shadow mode let pass.
    pub would_drop_packets: u64,
    /// Their wire bytes.
    pub would_drop_bytes: u64,
    /// Who opened the circuit; kept until it is closed.
    pub tripped: Option<TrippedView>,
    /// The incident.
    pub incident: Option<String>,
}

/// One direction's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrafficView {
    /// Wire bytes that passed.
    pub bytes: u64,
    /// Packets that passed.
    pub packets: u64,
    /// Wire bytes that were dropped.
    pub dropped_bytes: u64,
    /// Packets that were dropped.
    pub dropped_packets: u64,
}

impl From<&Traffic> for TrafficView {
    fn from(traffic: &Traffic) -> Self {
        let Traffic { bytes, packets, dropped_bytes, dropped_packets } = *traffic;
        Self { bytes, packets, dropped_bytes, dropped_packets }
    }
}

/// A trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrippedView {
    /// Who.
    pub by: By,
    /// RFC 3339.
    pub at: String,
    /// A limit's name, `risk`, `probe_violation` or `operator`.
    pub cause: String,
    /// In words.
    pub reason: String,
    /// The score at that moment, per mille.
    pub risk_milli: u16,
    /// Its terms, per mille.
    pub contributions: Contributions,
    /// The packet, when one did it.
    pub packet: Option<Packet>,
}

pub(super) fn of(agent: &Agent, now: Time) -> AgentView {
    let contributions = agent.contributions(now);
    let signals = agent.signals(now);
    let counters = agent.latest.as_ref().map_or_else(Counters::default, |latest| latest.counters);
    let [outbound, inbound] = &counters.traffic;
    let risk_milli = contributions.total();
    AgentView {
        id: agent.id.clone(),
        slot: agent.slot,
        state: agent.state_in_force().into(),
        mode: agent.breaker.mode.into(),
        risk: f64::from(risk_milli) / 1000.0,
        risk_milli,
        contributions,
        epoch: agent.breaker.epoch,
        hold: agent.breaker.hold,
        trip_unrecorded: agent.pending.is_some(),
        next: next(agent, now),
        deadline_in_ms: agent.breaker.deadline_ns.map(|at| at.saturating_sub(now.mono_ns) / 1_000_000),
        profile: agent.settings.profile_name.clone(),
        tags: agent.settings.tags.clone(),
        volume_bytes: signals.volume,
        unusual_endpoints: signals.unusual_endpoints,
        auth_failures_centi: signals.auth_failures_centi,
        deviation_100us: signals.deviation_100us,
        requests: signals.requests,
        anomalous_requests: signals.anomalous_requests,
        totals: agent.latest.as_ref().map(|latest| latest.totals).unwrap_or_default(),
        losses: agent.latest.as_ref().map(|latest| latest.losses).unwrap_or_default(),
        violations: agent.latest.as_ref().map_or(0, |latest| latest.violations),
        outbound: outbound.into(),
        inbound: inbound.into(),
        would_drop_packets: counters.would_drop_packets,
        would_drop_bytes: counters.would_drop_bytes,
        tripped: tripped(agent),
        incident: agent.breaker.incident.clone(),
    }
}

fn tripped(agent: &Agent) -> Option<TrippedView> {
    let drafted = agent.pending.as_ref().and_then(|pending| pending.drafted.as_ref());
    let tripped = drafted.map(|drafted| &drafted.tripped).or(agent.breaker.tripped.as_ref())?;
    Some(TrippedView {
        by: tripped.by,
        at: rfc3339(tripped.at_wall_ns),
        cause: tripped.cause.clone(),
        reason: tripped.reason.clone(),
        risk_milli: tripped.terms.total(),
        contributions: tripped.terms,
        packet: tripped.packet.clone(),
    })
}

/// What happens next if nobody does anything.
pub(super) fn next(agent: &Agent, now: Time) -> String {
    if agent.pending.is_some() {
        return "stays open until the trip's event is recorded; then its cool-down begins".into();
    }
    let left = |at: u64| at.saturating_sub(now.mono_ns).div_ceil(1_000_000_000);
    match (agent.breaker.state, agent.breaker.deadline_ns) {
        (State::Closed, _) => "nothing, unless it trips".into(),
        (State::HalfOpen, Some(at)) => format!("closes in {} s if it stays clean", left(at)),
        (State::Open, Some(at)) => format!("probe in {} s", left(at)),
        (State::Open, None) if agent.breaker.hold => "held: stays open until an operator releases it".into(),
        (_, None) => "stays so until an operator releases it (auto_probe is off)".into(),
    }
}
