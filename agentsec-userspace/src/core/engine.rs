//! Every agent's breaker, driven by inputs.

use super::agent::{Agent, Reported, Why};
use super::command::Command;
use super::draft::{Draft, EventKind};
use super::explain::{self, Explanation};
use super::guard::Guard;
use super::input::{AgentAdded, AttachmentChange, Input, Observation};
use super::names::{mode_name, state_name};
use super::persist::{self, AgentState};
use super::place::Place;
use super::settings::{AgentSettings, GuardSettings};
use super::time::Time;
use super::view::{self, AgentView};
use super::{group, observe, trip};
use agentsec_common::agent::Slot;
use agentsec_common::policy::{Mode, SlowSignals, State};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How long slow signals hold without being repeated, nanoseconds.
pub const SIGNALS_HOLD_NS: u64 = 10_000_000_000;

/// Decides for every agent.
#[derive(Clone, Debug)]
pub struct Engine {
    agents: BTreeMap<Slot, Agent>,
    guard: Guard,
}

impl Engine {
    /// An engine that knows no agent.
    #[must_use]
    pub fn new(guard: GuardSettings) -> Self {
        Self { agents: BTreeMap::new(), guard: Guard::new(guard) }
    }

    /// New bounds for automatic trips.
    pub fn configure_guard(&mut self, guard: GuardSettings) {
        self.guard.configure(guard);
    }

    /// What to do about `input` at `now`, in this order.
    pub fn handle(&mut self, now: Time, input: Input) -> Vec<Command> {
        let mut out = Vec::new();
        match input {
            Input::Observed(observations) => self.observed(now, observations, &mut out),
            Input::Notice(notice) => {
                let draft =
                    self.agents.get_mut(&notice.slot).and_then(|agent| observe::notice(agent, now, &notice));
                out.extend(draft.map(Command::Record));
            }
            Input::Refused { at_ns, flow, epoch, by } => {
                let agent = self.agents.get(&flow.slot());
                out.extend(
                    agent
                        .map(|agent| Command::Record(observe::refused(agent, now, at_ns, &flow, epoch, &by))),
                );
            }
            Input::Signals { slot, signals } => self.signals(now, slot, signals, &mut out),
            Input::Operator { request, by } => {
                group::carry_out(&mut self.agents, now, &request, &by, &mut self.guard, &mut out)
            }
            Input::AgentAdded(added) => self.added(now, *added, &mut out),
            Input::AgentConfigured { slot, settings } => self.configured(now, slot, *settings, &mut out),
            Input::AgentRemoved { slot, reason } => {
                if let Some(agent) = self.agents.remove(&slot) {
                    let data = json!({ "reason": reason, "state": state_name(agent.state_in_force()) });
                    out.push(Command::Record(agent.draft(now, EventKind::AgentRemoved, data)));
                }
            }
            Input::Attachment { slot, place, change } => self.attachment(now, slot, place, &change, &mut out),
            Input::RecordLost { count } => {
                let data = json!({ "what": "ring", "notices_lost": count });
                out.push(Command::Record(Draft::daemon(now, EventKind::Loss, data)));
            }
            Input::Recorded { slot, trip_seq } => {
                if let Some(agent) = self.agents.get_mut(&slot) {
                    trip::recorded(agent, now, trip_seq, &mut out);
                }
            }
            Input::RecordFailed { slot, trip_seq } => {
                if let Some(agent) = self.agents.get_mut(&slot) {
                    trip::record_failed(agent, trip_seq);
                }
            }
        }
        out
    }

    fn observed(&mut self, now: Time, observations: Vec<Observation>, out: &mut Vec<Command>) {
        for observed in observations {
            let Some(agent) = self.agents.get_mut(&observed.slot) else { continue };
            agent.latest = Some(observed.clone());
            trip::observe(agent, now, &observed, &mut self.guard, out);
            if std::mem::take(&mut agent.at_start) {
                observe::set_baseline(agent);
            }
            observe::judge(agent, now, &mut self.guard, out);
            // Deadlines act on what was just seen: a probe is clean only if the kernel has not tripped by now.
            observe::keep_deadline(agent, now, out);
            observe::report_drops(agent, now, out);
            observe::report_losses(agent, now, out);
        }
    }

    fn signals(&mut self, now: Time, slot: Slot, signals: SlowSignals, out: &mut Vec<Command>) {
        if let Some(agent) = self.agents.get_mut(&slot) {
            let valid_until_ns = now.mono_ns.saturating_add(SIGNALS_HOLD_NS);
            agent.slow = Some((signals, valid_until_ns));
            out.push(Command::SetSignals { slot, signals, valid_until_ns });
        }
    }

    fn added(&mut self, now: Time, added: AgentAdded, out: &mut Vec<Command>) {
        let (breaker, origin) = persist::restore(now, &added);
        let configured = added.saved.as_ref().map_or(breaker.mode, |saved| saved.configured_mode.into());
        let (slot, pinned) = (added.slot, added.pinned);
        let mut agent = Agent {
            slot,
            id: added.id,
            attachments: added.places.into_iter().map(|place| (place, "pending")).collect(),
            settings: added.settings,
            breaker,
            pending: None,
            latest: None,
            slow: None,
            reported: Reported::default(),
            last_drop: None,
            last_untypical: None,
            at_start: true,
        };
        let data = json!({
            "origin": origin.name(),
            "state": state_name(agent.breaker.state),
            "mode": mode_name(agent.breaker.mode),
            "epoch": agent.breaker.epoch,
            "profile": agent.settings.profile_name,
            "attachments": agent.attachments.keys().map(Place::to_json).collect::<Vec<_>>(),
        });
        out.push(Command::Record(agent.draft(now, EventKind::AgentAdded, data)));
        if pinned != Some(agent.breaker.control(agent.settings.row)) {
            out.push(agent.set_control());
        }
        let edited = (configured != agent.settings.mode).then_some(agent.settings.mode);
        configure_mode(&mut agent, now, edited, out);
        self.agents.insert(slot, agent);
    }

    fn configured(&mut self, now: Time, slot: Slot, settings: AgentSettings, out: &mut Vec<Command>) {
        let Some(agent) = self.agents.get_mut(&slot) else { return };
        let old = std::mem::replace(&mut agent.settings, settings);
        let (times, breaker) = (agent.settings.breaker, &mut agent.breaker);
        match breaker.state {
            State::Closed => breaker.cooldown_ns = times.cooldown_ns,
            State::Open if old.breaker.auto_probe != times.auto_probe => {
                breaker.set_open_deadline(now, &times)
            }
            State::Open | State::HalfOpen => {}
        }
        if old.row != agent.settings.row {
            out.push(agent.set_control());
        }
        let edited = (old.mode != agent.settings.mode).then_some(agent.settings.mode);
        configure_mode(agent, now, edited, out);
    }

    fn attachment(
        &mut self,
        now: Time,
        slot: Slot,
        place: Place,
        change: &AttachmentChange,
        out: &mut Vec<Command>,
    ) {
        let Some(agent) = self.agents.get_mut(&slot) else { return };
        let (state, kind, more) = match change {
            AttachmentChange::Attached { number } => {
                ("attached", EventKind::AgentAttached, json!({ "number": number }))
            }
            AttachmentChange::Detached => {
                ("detached", EventKind::AgentDetached, json!({ "why": "detached" }))
            }
            AttachmentChange::Missing => ("missing", EventKind::AgentDetached, json!({ "why": "missing" })),
            AttachmentChange::Failed { error } => {
                ("failed", EventKind::AgentDetached, json!({ "why": "failed", "error": error }))
            }
        };
        let mut data = place.to_json();
        if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
            data.extend(more);
        }
        // A missing interface is looked for again and again; only the change is news.
        if agent.attachments.insert(place, state) != Some(state) {
            out.push(Command::Record(agent.draft(now, kind, data)));
        }
    }

    /// Every agent, in the order of slots.
    #[must_use]
    pub fn views(&self, now: Time) -> Vec<AgentView> {
        self.agents.values().map(|agent| view::of(agent, now)).collect()
    }

    /// One agent.
    #[must_use]
    pub fn view(&self, now: Time, slot: Slot) -> Option<AgentView> {
        self.agents.get(&slot).map(|agent| view::of(agent, now))
    }

    /// One agent's score, per mille.
    #[must_use]
    pub fn risk_milli(&self, now: Time, slot: Slot) -> Option<u16> {
        self.agents.get(&slot).map(|agent| agent.contributions(now).total())
    }

    /// Why an agent is in its state, and what would change it.
    #[must_use]
    pub fn explain(&self, now: Time, slot: Slot) -> Option<Explanation> {
        self.agents.get(&slot).map(|agent| explain::of(agent, now))
    }

    /// The slot of the agent `id`.
    #[must_use]
    pub fn slot_of(&self, id: &str) -> Option<Slot> {
        self.agents.values().find(|agent| agent.id == id).map(|agent| agent.slot)
    }

    /// Every tag that an agent has.
    #[must_use]
    pub fn tags(&self) -> BTreeSet<&str> {
        self.agents.values().flat_map(|agent| &agent.settings.tags).map(String::as_str).collect()
    }

    /// What to save, in the order of slots.
    #[must_use]
    pub fn states(&self, now: Time, boot_id: &str) -> Vec<AgentState> {
        let state = |agent: &Agent| {
            let breaker = trip::foreseen(agent, now);
            AgentState::of(&agent.id, &breaker, agent.settings.mode, boot_id, now)
        };
        self.agents.values().map(state).collect()
    }

    #[cfg(test)]
    pub(super) fn agent(&self, slot: Slot) -> &Agent {
        &self.agents[&slot]
    }
}

/// Puts an edited mode into force, and in any case one that the agent may have.
fn configure_mode(agent: &mut Agent, now: Time, edited: Option<Mode>, out: &mut Vec<Command>) {
    let mode = agent.settings.admitted(edited.unwrap_or(agent.breaker.mode));
    if mode == agent.breaker.mode {
        return;
    }
    let why = Why::new("CONFIGURE", "configuration", format!("configured to be in mode {}", mode_name(mode)));
    agent.apply(now, out, why, |breaker, settings| breaker.set_mode(mode, &settings.breaker));
}
