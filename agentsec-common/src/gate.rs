//! The verdict: from what the daemon says and what the kernel knows to pass or drop.

use crate::policy::{Control, Mode, State, TRIP_MASK};

/// The state in force: OPEN as long as the kernel has tripped and the daemon has not acknowledged it, else
/// what the daemon says.
#[inline(always)]
#[must_use]
pub const fn state_in_force(control: Control, trip_seq: u64) -> State {
    if (trip_seq as u32 & TRIP_MASK) == control.acked_trip { control.state } else { State::Open }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes and counts as passed.
    Pass,
    /// It is dropped and counts as dropped.
    Drop,
    /// It passes, and counts as what enforcement would have dropped.
    WouldDrop,
}

/// What an agent in `state` and `mode` may do with a packet that is `allowed_on_probation` or not.
#[inline(always)]
#[must_use]
pub const fn verdict(state: State, mode: Mode, allowed_on_probation: bool) -> Verdict {
    let passes = match state {
        State::Closed => true,
        State::HalfOpen => allowed_on_probation,
        State::Open => false,
    };
    match (passes, mode) {
        (true, _) | (_, Mode::Exempt) => Verdict::Pass,
        (false, Mode::Shadow) => Verdict::WouldDrop,
        (false, Mode::Enforce) => Verdict::Drop,
    }
}

/// The trip sequence that follows `acked_trip`: what the kernel's compare-exchange writes.
#[inline(always)]
#[must_use]
pub const fn next_trip(acked_trip: u32) -> u64 {
    (acked_trip.wrapping_add(1) & TRIP_MASK) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(state: State, mode: Mode, acked_trip: u32) -> Control {
        Control { state, mode, row: 0, epoch: 0, acked_trip }
    }

    #[test]
    fn no_packet_passes_while_open_and_enforced() {
        for state in [State::Closed, State::HalfOpen, State::Open] {
            for (acked, seq) in [(0, 1), (5, 6), (TRIP_MASK, 0), (7, 3)] {
                let in_force = state_in_force(control(state, Mode::Enforce, acked), seq);
                assert_eq!(in_force, State::Open, "an unacknowledged trip overrides {state:?}");
                for allowed in [false, true] {
                    assert_eq!(verdict(in_force, Mode::Enforce, allowed), Verdict::Drop);
                }
            }
        }
        assert_eq!(state_in_force(control(State::Open, Mode::Enforce, 4), 4), State::Open);
    }

    #[test]
    fn shadow_and_exempt_never_drop() {
        for state in [State::Closed, State::HalfOpen, State::Open] {
            for allowed in [false, true] {
                assert_ne!(verdict(state, Mode::Shadow, allowed), Verdict::Drop);
                assert_eq!(verdict(state, Mode::Exempt, allowed), Verdict::Pass);
            }
        }
        assert_eq!(verdict(State::Open, Mode::Shadow, true), Verdict::WouldDrop);
    }

    #[test]
    fn a_probe_passes_what_is_typical_only() {
        assert_eq!(verdict(State::HalfOpen, Mode::Enforce, true), Verdict::Pass);
        assert_eq!(verdict(State::HalfOpen, Mode::Enforce, false), Verdict::Drop);
    }

    #[test]
    fn trip_sequences_wrap_within_their_bits() {
        assert_eq!(next_trip(0), 1);
        assert_eq!(next_trip(TRIP_MASK), 0);
    }
}
