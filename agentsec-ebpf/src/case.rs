//! A packet of an agent, as the functions of the program hand it on.
//!
//! Plain numbers, no pointers: what the verifier checks as a function of its own may read it, and looks up the
//! agent's words by slot again (an array look-up is two nanoseconds, and inlined code that the verifier follows
//! on every path is paid at each load).

use core::mem::MaybeUninit;

use agentsec_common::agent::{Direction, Slot};
use agentsec_common::packet::Headers;

/// A packet and what is known about it.
#[repr(C)]
pub struct Case {
    /// Coarse monotonic time.
    pub now_ns: u64,
    /// On the wire.
    pub bytes: u64,
    /// On the wire.
    pub packets: u64,
    /// The agent.
    pub slot: Slot,
    /// Its epoch when the packet came.
    pub epoch: u32,
    /// The last acknowledged trip when the packet came.
    pub acked_trip: u32,
    /// Row of its profile.
    pub row: u32,
    /// Names the row's content: see [`agentsec_common::profile::Profile::tag`].
    pub profile_tag: u32,
    /// A [`Direction`].
    pub inbound: u8,
    /// Kind of the packet's endpoint, once known.
    pub endpoint_kind: u8,
    /// Whether the profile expects the packet's endpoint, once known.
    pub typical: u8,
    /// What the recorder has to know: see [`marks`].
    pub marks: u8,
    /// What the packet says.
    pub headers: Headers,
}

/// Bits of [`Case::marks`]. They are in the case, because what else is kept until a packet is decided about takes room in
/// the deepest frame of all.
pub mod marks {
    use agentsec_common::policy::{Control, State};

    /// This packet tripped the circuit.
    pub const TRIPPED: u8 = 1;
    /// It passes, and enforcement would have dropped it.
    pub const WOULD_DROP: u8 = 2;
    /// Packets of the agent are recorded.
    pub const RECORDED: u8 = 4;
    const STATE_SHIFT: u8 = 4;
    const MODE_SHIFT: u8 = 6;

    /// The state and mode that the packet meets.
    #[inline(always)]
    pub const fn of(control: Control, state: State) -> u8 {
        (state as u8) << STATE_SHIFT | (control.mode as u8) << MODE_SHIFT
    }

    /// The [`State`], as a byte.
    #[inline(always)]
    pub const fn state(marks: u8) -> u8 {
        marks >> STATE_SHIFT & 3
    }

    /// The [`Mode`](agentsec_common::policy::Mode), as a byte.
    #[inline(always)]
    pub const fn mode(marks: u8) -> u8 {
        marks >> MODE_SHIFT
    }
}

const WORDS: usize = size_of::<Case>() / 8;
const _: () = assert!(WORDS * 8 == size_of::<Case>());

impl Case {
    /// All zero, written word by word: the compiler would call a byte-wise `memset`, and copy
    /// [`Headers::NONE`] from a map, which together take as long as a look-up.
    #[inline(always)]
    pub fn blank(room: &mut MaybeUninit<Self>) -> &mut Self {
        for index in 0..WORDS {
            // SAFETY: within the room, which is whole words long and as aligned as one.
            unsafe { room.as_mut_ptr().cast::<u64>().add(index).write_volatile(0) };
        }
        // SAFETY: every field is an integer, a bool or an enum with a variant for zero.
        unsafe { room.assume_init_mut() }
    }

    /// Which way the packet goes.
    #[inline(always)]
    pub fn direction(&self) -> Direction {
        if self.inbound != 0 { Direction::Inbound } else { Direction::Outbound }
    }
}
