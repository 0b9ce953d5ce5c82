//! One agent's circuit breaker.
//!
//! CLOSED passes, OPEN drops, HALF_OPEN passes what is typical to see whether the agent behaves. A probe that
//! fails lengthens the next cool-down, so that an agent which stays bad costs ever less attention; a clean probe
//! forgives everything. Time is an argument: whoever holds the breaker says when it is.

use super::settings::BreakerSettings;
use super::time::Time;
use super::tripped::Tripped;
use agentsec_common::policy::{Control, EPOCH_MASK, Mode, State, TRIP_MASK};

/// A breaker's state. Only `enter` changes `state`, `mode` and `epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    pub(super) state: State,
    pub(super) mode: Mode,
    pub(super) epoch: u32,
    /// The last trip sequence that is recorded or decided over.
    pub(super) acked_trip: u32,
    /// Whether only an operator ends OPEN.
    pub(super) hold: bool,
    /// Cool-down of the current or next OPEN.
    pub(super) cooldown_ns: u64,
    /// Monotonic nanoseconds at which the cool-down or the probe ends.
    pub(super) deadline_ns: Option<u64>,
    /// The incident, from the trip until CLOSED.
    pub(super) incident: Option<String>,
    /// Why it is open, or was before the probe.
    pub(super) tripped: Option<Tripped>,
    /// The mode to return to when the guard has put the breaker into shadow.
    pub(super) shadowed_from: Option<Mode>,
}

/// A change of state or mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: (State, Mode),
    /// After.
    pub to: (State, Mode),
    /// The epoch that it begins.
    pub epoch: u32,
}

impl Transition {
    /// Whether more is dropped after it than before.
    #[must_use]
    pub fn is_stricter(&self) -> bool {
        strictness(self.to) > strictness(self.from)
    }
}

fn strictness((state, mode): (State, Mode)) -> u8 {
    match (mode, state) {
        (Mode::Shadow | Mode::Exempt, _) => 0,
        (Mode::Enforce, State::Closed) => 0,
        (Mode::Enforce, State::HalfOpen) => 1,
        (Mode::Enforce, State::Open) => 2,
    }
}

impl Breaker {
    /// A breaker in `state`, with nothing behind it.
    #[must_use]
    pub fn new(state: State, mode: Mode, epoch: u32, acked_trip: u32, settings: &BreakerSettings) -> Self {
        Self {
            state: if mode == Mode::Exempt { State::Closed } else { state },
            mode,
            epoch: epoch & EPOCH_MASK,
            acked_trip: acked_trip & TRIP_MASK,
            hold: false,
            cooldown_ns: settings.cooldown_ns,
            deadline_ns: None,
            incident: None,
            tripped: None,
            shadowed_from: None,
        }
    }

    /// The word for the kernel.
    #[must_use]
    pub fn control(&self, row: u16) -> Control {
        Control { state: self.state, mode: self.mode, row, epoch: self.epoch, acked_trip: self.acked_trip }
    }

    /// The only way to another state or mode; `None` when it is the present one.
    fn enter(&mut self, state: State, mode: Mode) -> Option<Transition> {
        let from = (self.state, self.mode);
        if from == (state, mode) {
            return None;
        }
        (self.state, self.mode) = (state, mode);
        self.epoch = self.epoch.wrapping_add(1) & EPOCH_MASK;
        Some(Transition { from, to: (state, mode), epoch: self.epoch })
    }

    /// Opens the circuit. `automatic` trips of a probing agent lengthen the cool-down. `None` when it is open, or
    /// exempt: an exempt agent is CLOSED, also when the kernel tripped just before it was exempted.
    pub(super) fn trip(
        &mut self,
        now: Time,
        tripped: Tripped,
        incident: String,
        automatic: bool,
        settings: &BreakerSettings,
    ) -> Option<Transition> {
        if self.mode == Mode::Exempt {
            return None;
        }
        let failed_probe = self.state == State::HalfOpen && automatic;
        let transition = self.enter(State::Open, self.mode)?;
        if failed_probe {
            let longer = self.cooldown_ns.saturating_mul(settings.backoff.into());
            self.cooldown_ns = longer.min(settings.max_cooldown_ns);
        }
        self.incident.get_or_insert(incident);
        self.tripped = Some(tripped);
        self.set_open_deadline(now, settings);
        Some(transition)
    }

    /// Starts the cool-down of an OPEN circuit, if it has one.
    pub(super) fn set_open_deadline(&mut self, now: Time, settings: &BreakerSettings) {
        let ends = settings.auto_probe && !self.hold;
        self.deadline_ns = ends.then(|| now.mono_ns.saturating_add(self.cooldown_ns));
    }

    /// OPEN → HALF_OPEN. `None` when it is not open.
    pub(super) fn probe(&mut self, now: Time, settings: &BreakerSettings) -> Option<Transition> {
        if self.state != State::Open {
            return None;
        }
        self.hold = false;
        self.deadline_ns = Some(now.mono_ns.saturating_add(settings.probe_ns));
        self.enter(State::HalfOpen, self.mode)
    }

    /// Closes the circuit and forgets the incident. `None` when it is closed.
    pub(super) fn close(&mut self, settings: &BreakerSettings) -> Option<Transition> {
        if self.state == State::Closed {
            return None;
        }
        let mode = self.shadowed_from.take().unwrap_or(self.mode);
        let transition = self.enter(State::Closed, mode);
        self.forget(settings);
        transition
    }

    fn forget(&mut self, settings: &BreakerSettings) {
        self.hold = false;
        self.deadline_ns = None;
        self.incident = None;
        self.tripped = None;
        self.cooldown_ns = settings.cooldown_ns;
    }

    /// Another mode. Exempt closes the circuit. `None` when it is the present one.
    pub(super) fn set_mode(&mut self, mode: Mode, settings: &BreakerSettings) -> Option<Transition> {
        self.shadowed_from = None;
        if mode == Mode::Exempt {
            let transition = self.enter(State::Closed, mode);
            self.forget(settings);
            return transition;
        }
        self.enter(self.state, mode)
    }

    /// Puts the breaker into shadow until it closes. `None` when nothing would have been dropped anyway.
    pub(super) fn hold_in_shadow(&mut self) -> Option<Transition> {
        if self.mode != Mode::Enforce {
            return None;
        }
        self.shadowed_from = Some(self.mode);
        self.enter(self.state, Mode::Shadow)
    }

    /// Whether the cool-down or the probe has ended.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.deadline_ns.is_some_and(|deadline| now.mono_ns >= deadline)
    }

    /// Whether the kernel has tripped beyond what is acknowledged.
    #[must_use]
    pub fn is_ahead(&self, trip_seq: u32) -> bool {
        trip_seq & TRIP_MASK != self.acked_trip
    }

    /// The trip `trip_seq` is recorded or decided over.
    pub(super) fn acknowledge(&mut self, trip_seq: u32) {
        self.acked_trip = trip_seq & TRIP_MASK;
    }
}
