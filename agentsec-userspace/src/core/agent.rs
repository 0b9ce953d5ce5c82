//! One agent as the core knows it, and the events about it.

use super::breaker::{Breaker, Transition};
use super::command::Command;
use super::draft::{Draft, EventKind, TripRef, centi, milli};
use super::input::Observation;
use super::names::{mode_name, state_name};
use super::place::Place;
use super::settings::AgentSettings;
use super::time::Time;
use super::totals::Losses;
use super::tripped::{Contributions, Packet, Tripped};
use agentsec_common::agent::Slot;
use agentsec_common::policy::{Mode, SlowSignals, State};
use agentsec_common::risk::{self, Signals};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub slot: Slot,
    pub id: String,
    /// State of each attachment.
    pub attachments: BTreeMap<Place, &'static str>,
    pub settings: AgentSettings,
    pub breaker: Breaker,
    pub pending: Option<PendingTrip>,
    pub latest: Option<Observation>,
    /// Slow signals and until when they hold, monotonic nanoseconds.
    pub slow: Option<(SlowSignals, u64)>,
    pub reported: Reported,
    /// Packet of the latest drop's notice.
    pub last_drop: Option<Packet>,
    /// Packet of the latest new endpoint or violation.
    pub last_untypical: Option<Packet>,
    /// No observation yet since the daemon started.
    pub at_start: bool,
}

/// Totals that events have already told, and when the next one may follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Reported {
    pub dropped: [u64; 2],
    pub would_drop: [u64; 2],
    pub losses: Losses,
    pub next_drops_ns: u64,
    pub next_loss_ns: u64,
}

/// A trip of the kernel that is not acknowledged.
#[derive(Clone, Debug)]
pub(super) struct PendingTrip {
    pub seq: u32,
    /// Monotonic nanoseconds.
    pub seen_ns: u64,
    pub found_at_start: bool,
    /// `None` until the kernel's record is complete.
    pub drafted: Option<DraftedTrip>,
}

/// A pending trip whose event has been emitted.
#[derive(Clone, Debug)]
pub(super) struct DraftedTrip {
    pub tripped: Tripped,
    pub incident: String,
    pub draft: Draft,
    /// The event was given up and has to be emitted again.
    pub failed: bool,
    /// The guard wants the breaker in shadow.
    pub shadow: bool,
}

/// Why a breaker changes, for its event.
pub(super) struct Why<'a> {
    pub action: &'static str,
    pub by: &'a str,
    pub reason: String,
    pub automated: bool,
    /// More fields for the event.
    pub more: Map<String, Value>,
}

impl<'a> Why<'a> {
    pub fn new(action: &'static str, by: &'a str, reason: impl Into<String>) -> Self {
        Self { action, by, reason: reason.into(), automated: false, more: Map::new() }
    }

    pub fn automated(self) -> Self {
        Self { automated: true, ..self }
    }
}

impl Agent {
    /// The state in force: OPEN while the kernel is ahead.
    pub fn state_in_force(&self) -> State {
        if self.pending.is_some() { State::Open } else { self.breaker.state }
    }

    /// The signals of the latest observation, with the slow ones that still hold.
    pub fn signals(&self, now: Time) -> Signals {
        let mut signals = self.latest.as_ref().map_or_else(Signals::default, |latest| latest.signals);
        if let Some((slow, _)) = self.slow.filter(|(_, until)| now.mono_ns < *until) {
            let failures_centi = u32::from(slow.auth_failures) * 100;
            signals.auth_failures_centi = signals.auth_failures_centi.saturating_add(failures_centi);
            signals.deviation_100us = signals.deviation_100us.max(slow.deviation_100us.into());
            signals.extra_milli = signals.extra_milli.max(slow.extra_milli);
        }
        signals
    }

    pub fn contributions(&self, now: Time) -> Contributions {
        risk::score(&self.signals(now), &self.settings.profile).into()
    }

    /// The word for the kernel.
    pub fn set_control(&self) -> Command {
        Command::SetControl { slot: self.slot, control: self.breaker.control(self.settings.row) }
    }

    /// An event about this agent.
    pub fn draft(&self, at: Time, kind: EventKind, data: Value) -> Draft {
        let correlation_id = self.breaker.incident.clone();
        Draft { at, agent_id: Some(self.id.clone()), kind, data, correlation_id, trip: None }
    }

    /// Changes the breaker by `change` and emits the event and the word: the word first when it is stricter.
    /// Whether anything changed.
    pub fn apply(
        &mut self,
        now: Time,
        out: &mut Vec<Command>,
        why: Why<'_>,
        change: impl FnOnce(&mut Breaker, &AgentSettings) -> Option<Transition>,
    ) -> bool {
        let before = (self.breaker.incident.clone(), self.breaker.tripped.clone());
        let Some(transition) = change(&mut self.breaker, &self.settings) else { return false };
        let mut draft =
            self.containment(now, &transition, why, self.breaker.tripped.as_ref().or(before.1.as_ref()));
        draft.correlation_id = draft.correlation_id.or(before.0);
        let (word, event) = (self.set_control(), Command::Record(draft));
        out.extend(if transition.is_stricter() { [word, event] } else { [event, word] });
        true
    }

    /// The event of a change of state or mode.
    pub fn containment(
        &self,
        now: Time,
        transition: &Transition,
        why: Why<'_>,
        tripped: Option<&Tripped>,
    ) -> Draft {
        let (state, mode) = transition.to;
        let mut data = json!({
            "action_type": why.action,
            "trigger_reason": why.reason,
            "automated": why.automated,
            "by": why.by,
            "isolation_level": isolation_level(state, mode),
            "affected_services": self.attachments.keys().map(Place::to_string).collect::<Vec<_>>(),
            "recovery_snapshot": null,
            "from": state_name(transition.from.0),
            "to": state_name(state),
            "from_mode": mode_name(transition.from.1),
            "to_mode": mode_name(mode),
            "epoch": transition.epoch,
            "profile": self.settings.profile_name,
            "risk": milli(self.contributions(now).total()),
            "contributions": self.contributions(now).to_json(),
            "signals": signals_json(&self.signals(now)),
            "tripped": tripped.map(tripped_json),
        });
        if let Value::Object(object) = &mut data {
            object.extend(why.more);
        }
        self.draft(now, EventKind::ContainmentAction, data)
    }

    /// Reference for the acknowledgement of a trip.
    pub fn trip_ref(&self, trip_seq: u32) -> TripRef {
        TripRef { slot: self.slot, trip_seq }
    }
}

fn isolation_level(state: State, mode: Mode) -> &'static str {
    match (mode, state) {
        (Mode::Enforce, State::Open) => "full",
        (Mode::Enforce, State::HalfOpen) => "partial",
        _ => "none",
    }
}

/// A trip for events: the score as decimals.
pub(super) fn tripped_json(tripped: &Tripped) -> Value {
    json!({
        "by": tripped.by,
        "at": super::time::rfc3339(tripped.at_wall_ns),
        "cause": tripped.cause,
        "reason": tripped.reason,
        "risk": milli(tripped.terms.total()),
        "contributions": tripped.terms.to_json(),
        "packet": tripped.packet,
    })
}

/// Signals for events, with units in their names.
pub(super) fn signals_json(signals: &Signals) -> Value {
    json!({
        "volume_bytes": signals.volume,
        "unusual_endpoints": signals.unusual_endpoints,
        "auth_failures": centi(signals.auth_failures_centi),
        "response_time_deviation_us": u64::from(signals.deviation_100us) * 100,
        "requests": signals.requests,
        "anomalous_requests": signals.anomalous_requests,
        "extra": milli(signals.extra_milli),
    })
}
