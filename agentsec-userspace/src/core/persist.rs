//! What survives a restart, and how a breaker comes back from it.
//!
//! The kernel's word wins where it says something else than the file: it is what has been enforced all along.
//! Nothing here releases early: a deadline counts only in the boot that set it, on the monotonic clock, and
//! after a reboot a cool-down starts again in full, whatever the wall clock has done in between.

use super::breaker::Breaker;
use super::input::AgentAdded;
use super::names::{ModeName, StateName};
use super::settings::BreakerSettings;
use super::time::Time;
use super::tripped::{By, Contributions, Tripped};
use agentsec_common::policy::{Control, Mode, State};
use serde::{Deserialize, Serialize};

/// One agent's breaker as saved after every change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    /// The agent.
    pub id: String,
    /// Its state.
    pub state: StateName,
    /// Its mode.
    pub mode: ModeName,
    /// The mode that was configured, to notice that the configuration has changed since.
    pub configured_mode: ModeName,
    /// Its epoch.
    pub epoch: u32,
    /// The last trip that was acknowledged.
    pub acked_trip: u32,
    /// Whether only an operator ends OPEN.
    pub hold: bool,
    /// Cool-down in force, nanoseconds.
    pub cooldown_ns: u64,
    /// End of the cool-down or the probe: monotonic nanoseconds of the boot `boot_id`.
    pub deadline_mono_ns: Option<u64>,
    /// The same as Unix nanoseconds, for people only.
    pub deadline_wall_ns: Option<u64>,
    /// The boot in which it was saved.
    pub boot_id: String,
    /// The incident.
    pub incident: Option<String>,
    /// Why it is or was open.
    pub tripped: Option<Tripped>,
    /// The mode to return to when the guard holds it in shadow.
    pub shadowed_from: Option<ModeName>,
}

impl AgentState {
    /// `breaker` as it is now.
    #[must_use]
    pub fn of(id: &str, breaker: &Breaker, configured: Mode, boot_id: &str, now: Time) -> Self {
        let wall = |deadline: u64| now.wall_ns.saturating_add(deadline.saturating_sub(now.mono_ns));
        Self {
            id: id.to_owned(),
            state: breaker.state.into(),
            mode: breaker.mode.into(),
            configured_mode: configured.into(),
            epoch: breaker.epoch,
            acked_trip: breaker.acked_trip,
            hold: breaker.hold,
            cooldown_ns: breaker.cooldown_ns,
            deadline_mono_ns: breaker.deadline_ns,
            deadline_wall_ns: breaker.deadline_ns.map(wall),
            boot_id: boot_id.to_owned(),
            incident: breaker.incident.clone(),
            tripped: breaker.tripped.clone(),
            shadowed_from: breaker.shadowed_from.map(Into::into),
        }
    }
}

/// Where a breaker's state came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was known of the agent.
    Newcomer,
    /// The file, after a reboot or an unload.
    Saved,
    /// The kernel's word.
    Pinned,
}

impl Origin {
    /// As written in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Newcomer => "newcomer",
            Self::Saved => "saved",
            Self::Pinned => "pinned",
        }
    }
}

/// The breaker of an agent that becomes known. Its mode is what was enforced, not yet what is configured.
pub(super) fn restore(now: Time, added: &AgentAdded) -> (Breaker, Origin) {
    let settings = &added.settings.breaker;
    let saved = added.saved.as_ref().filter(|saved| saved.id == added.id);
    match (added.pinned, saved) {
        (Some(control), saved) => (from_pin(now, control, saved, added), Origin::Pinned),
        (None, Some(saved)) => {
            let epoch = saved.epoch.max(added.fresh_epoch);
            let mut breaker =
                Breaker::new(saved.state.into(), saved.mode.into(), epoch, added.trip_seq, settings);
            take_details(&mut breaker, now, saved, added);
            (breaker, Origin::Saved)
        }
        (None, None) => {
            let mode = added.settings.admitted(added.settings.mode);
            let mut breaker = Breaker::new(added.newcomer, mode, added.fresh_epoch, added.trip_seq, settings);
            set_deadline(&mut breaker, now, None, settings);
            (breaker, Origin::Newcomer)
        }
    }
}

fn from_pin(now: Time, control: Control, saved: Option<&AgentState>, added: &AgentAdded) -> Breaker {
    let settings = &added.settings.breaker;
    let Control { state, mode, epoch, acked_trip, .. } = control;
    let mut breaker = Breaker::new(state, mode, epoch, acked_trip, settings);
    match saved {
        Some(saved) if State::from(saved.state) == state => take_details(&mut breaker, now, saved, added),
        _ if state == State::Open => {
            // The daemon died between two writes and nobody knows whether an operator wanted this held: a
            // quarantine that ends by itself would be the worse mistake.
            breaker.hold = true;
            breaker.incident = Some(incident(&added.id, now, epoch));
            breaker.tripped = Some(unknown_trip(now));
        }
        _ => set_deadline(&mut breaker, now, None, settings),
    }
    breaker
}

fn take_details(breaker: &mut Breaker, now: Time, saved: &AgentState, added: &AgentAdded) {
    let settings = &added.settings.breaker;
    breaker.hold = saved.hold && breaker.state == State::Open;
    breaker.cooldown_ns =
        saved.cooldown_ns.clamp(settings.cooldown_ns, settings.max_cooldown_ns.max(settings.cooldown_ns));
    breaker.incident = saved.incident.clone();
    breaker.tripped = saved.tripped.clone();
    breaker.shadowed_from = saved.shadowed_from.map(Into::into).filter(|_| breaker.mode == Mode::Shadow);
    let same_boot = saved.boot_id == added.boot_id;
    set_deadline(breaker, now, saved.deadline_mono_ns.filter(|_| same_boot), settings);
}

/// At most the whole cool-down or probe from now; the whole of it when no deadline of this boot is known.
fn set_deadline(breaker: &mut Breaker, now: Time, saved: Option<u64>, settings: &BreakerSettings) {
    let length = match breaker.state {
        State::Closed => None,
        State::HalfOpen => Some(settings.probe_ns),
        State::Open => (settings.auto_probe && !breaker.hold).then_some(breaker.cooldown_ns),
    };
    let full = length.map(|length| now.mono_ns.saturating_add(length));
    breaker.deadline_ns = full.map(|full| saved.map_or(full, |saved| saved.min(full)));
}

/// Names an incident: unique per agent, as epochs do not repeat within a day.
pub(super) fn incident(id: &str, now: Time, epoch: u32) -> String {
    format!("{id}-{:x}-{epoch:x}", now.wall_ns)
}

/// Names what an operator does to all agents of a tag at once, which is not an incident of its own.
pub(super) fn group(tag: &str, now: Time) -> String {
    format!("tag-{tag}-{:x}", now.wall_ns)
}

fn unknown_trip(now: Time) -> Tripped {
    Tripped {
        by: By::Daemon,
        at_wall_ns: now.wall_ns,
        cause: "unknown".into(),
        reason: "found open at start; the daemon had stopped before it could save why".into(),
        terms: Contributions::default(),
        packet: None,
    }
}
