//! What the daemon tells the kernel about an agent: words that are each stored and loaded whole.

/// A circuit's state.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Pass, count, judge.
    Closed = 1,
    /// Probe: pass only traffic with typical endpoints.
    HalfOpen = 2,
    /// Drop everything.
    Open = 3,
}

/// Whether the state is enforced.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Judged and enforced.
    Enforce = 0,
    /// Judged; what would be dropped is counted and passes.
    Shadow = 1,
    /// Counted; never judged, never dropped.
    Exempt = 2,
}

/// Mask of [`Control::epoch`].
pub const EPOCH_MASK: u32 = (1 << 20) - 1;
/// Mask of trip sequences.
pub const TRIP_MASK: u32 = (1 << 24) - 1;

/// The word that a verdict rests on.
///
/// ```text
/// bit 0..2 state (0: no policy) | 2..4 mode | 4..20 profile row | 20..40 epoch | 40..64 acknowledged trip
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The state while no unacknowledged trip overrides it.
    pub state: State,
    /// Whether it is enforced.
    pub mode: Mode,
    /// Row of the agent's profile.
    pub row: u16,
    /// Counts transitions; windows restart when it changes. 20 bits.
    pub epoch: u32,
    /// The last trip sequence that the daemon has logged. 24 bits.
    pub acked_trip: u32,
}

impl Control {
    /// As stored. Never zero.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.state as u64
            | (self.mode as u64) << 2
            | (self.row as u64) << 4
            | ((self.epoch & EPOCH_MASK) as u64) << 20
            | ((self.acked_trip & TRIP_MASK) as u64) << 40
    }

    /// From a stored word; `None` when there is no policy.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        let state = match word & 3 {
            0 => return None,
            1 => State::Closed,
            2 => State::HalfOpen,
            _ => State::Open,
        };
        let mode = match (word >> 2) & 3 {
            1 => Mode::Shadow,
            2 => Mode::Exempt,
            _ => Mode::Enforce,
        };
        Some(Self {
            state,
            mode,
            row: (word >> 4) as u16,
            epoch: (word >> 20) as u32 & EPOCH_MASK,
            acked_trip: (word >> 40) as u32 & TRIP_MASK,
        })
    }
}

/// Slow and reported signals, in one word with an expiry, so that a dead daemon's inputs fade.
///
/// ```text
/// bit 0..16 auth failures | 16..32 response time deviation, 100 µs | 32..42 extra risk, per mille
///     | 42..63 valid until, 2^30 ns of the monotonic clock | 63 present
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlowSignals {
    /// Failed authentications in the window.
    pub auth_failures: u16,
    /// Mean absolute deviation of response times, in units of 100 µs.
    pub deviation_100us: u16,
    /// Added to the score, per mille, at most 1000.
    pub extra_milli: u16,
}

const VALID_UNTIL_SHIFT: u32 = 42;
const VALID_UNTIL_MASK: u64 = (1 << 21) - 1;
const PRESENT: u64 = 1 << 63;

impl SlowSignals {
    /// As stored, valid until `valid_until_ns` of the monotonic clock, rounded up to 2^30 ns.
    #[must_use]
    pub const fn to_word(self, valid_until_ns: u64) -> u64 {
        let extra = if self.extra_milli > 1000 { 1000 } else { self.extra_milli };
        let until = ((valid_until_ns >> 30) + 1) & VALID_UNTIL_MASK;
        self.auth_failures as u64
            | (self.deviation_100us as u64) << 16
            | (extra as u64) << 32
            | until << VALID_UNTIL_SHIFT
            | PRESENT
    }

    /// What a stored word says at `now_ns`: nothing once it has expired.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64, now_ns: u64) -> Self {
        // The distance is taken in 21 bits of about a second: unambiguous for twelve days either way.
        let left = (word >> VALID_UNTIL_SHIFT).wrapping_sub(now_ns >> 30) & VALID_UNTIL_MASK;
        if word & PRESENT == 0 || left == 0 || left > VALID_UNTIL_MASK / 2 {
            return Self { auth_failures: 0, deviation_100us: 0, extra_milli: 0 };
        }
        Self {
            auth_failures: word as u16,
            deviation_100us: (word >> 16) as u16,
            extra_milli: (word >> 32) as u16 & 0x3ff,
        }
    }
}

/// One agent's policy: a cache line, every word of it stored atomically.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// A [`Control`]; zero means that the slot has no policy, and its packets are dropped.
    pub control: u64,
    /// [`SlowSignals`]; zero means none.
    pub signals: u64,
    /// How many endpoints the daemon has removed from the agent's list, by
    /// [`EndpointKind`](crate::endpoint::EndpointKind). The kernel subtracts them from what it inserted.
    pub endpoints_removed: [u64; 2],
    /// How many connections the daemon has removed from the agent's list. The kernel subtracts them as well.
    pub flows_removed: u64,
    /// What is recorded of its packets: [`Orders`](crate::recorder::Orders).
    pub recorder: u64,
    /// A random number of the daemon's, so that nobody can tell which packets are recorded.
    pub recorder_salt: u64,
    /// Explicit padding to a cache line.
    pub reserved: u64,
}

const _: () = assert!(size_of::<Policy>() == 64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_control() -> impl Strategy<Value = Control> {
        let state = prop_oneof![Just(State::Closed), Just(State::HalfOpen), Just(State::Open)];
        let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Shadow), Just(Mode::Exempt)];
        (state, mode, any::<u16>(), 0..=EPOCH_MASK, 0..=TRIP_MASK)
            .prop_map(|(state, mode, row, epoch, acked_trip)| Control { state, mode, row, epoch, acked_trip })
    }

    proptest! {
        #[test]
        fn a_control_survives_its_word(control in any_control()) {
            prop_assert_ne!(control.to_word(), 0);
            prop_assert_eq!(Control::from_word(control.to_word()), Some(control));
        }

        #[test]
        fn slow_signals_hold_until_their_time_and_then_fade(
            auth_failures: u16, deviation_100us: u16, extra_milli in 0..=1000u16,
            now in 0u64..1 << 60, validity in 0u64..1 << 40, later in 2u64 << 30..1 << 50,
        ) {
            let signals = SlowSignals { auth_failures, deviation_100us, extra_milli };
            let word = signals.to_word(now + validity);
            prop_assert_eq!(SlowSignals::from_word(word, now), signals);
            prop_assert_eq!(SlowSignals::from_word(word, now + validity), signals);
            prop_assert_eq!(SlowSignals::from_word(word, now + validity + later), SlowSignals::default());
        }
    }

    #[test]
    fn an_untouched_word_is_no_policy_and_no_signals() {
        assert_eq!(Control::from_word(0), None);
        assert_eq!(SlowSignals::from_word(0, 0), SlowSignals::default());
    }
}
