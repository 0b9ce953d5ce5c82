//! The flight recorder: the latest packets of an agent, kept in the kernel until its circuit opens.
//!
//! One array holds the entries of all recorders. A recorder is a run of entries, a power of two of them, and an agent's
//! packets go round in its own. Which recorder is whose, and what is recorded there, is one word of the agent's policy.
//! While a circuit is OPEN nothing is recorded, so what was there when it opened stays until it closes again.

/// Bytes of a packet that an entry can hold.
pub const DATA_BYTES: usize = 128;
/// Fewest bytes of a packet that may be asked for: Ethernet, IPv6 and UDP, or IPv4 and TCP with some options.
pub const SNAP_BYTES_MIN: u32 = 64;
/// Fewest entries of a recorder, as a power of two.
pub const DEPTH_LOG2_MIN: u32 = 4;
/// Most of them.
pub const DEPTH_LOG2_MAX: u32 = 12;
/// Greatest [`Orders::one_in`].
pub const ONE_IN_MAX: u16 = (1 << 14) - 1;
/// Most recorders.
pub const RECORDERS_MAX: u32 = (1 << 20) - 1;

/// What is recorded of an agent, in one word.
///
/// ```text
/// bit 0..20 recorder + 1 (0: none) | 20 on | 21 payload | 22..30 bytes | 30..34 log2 of entries | 34..48 one in
///     | 48..64 generation
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    /// The recorder.
    pub recorder: u32,
    /// Whether anything is recorded.
    pub on: bool,
    /// Whether payload is recorded, and not only headers.
    pub payload: bool,
    /// The most bytes of a packet that are recorded, at most [`DATA_BYTES`].
    pub snap_bytes: u8,
    /// Entries of every recorder, as a power of two.
    pub depth_log2: u8,
    /// One packet in so many is recorded; what trips the circuit or is dropped always is.
    pub one_in: u16,
    /// Counts the agents that had the slot: entries of another generation are of another agent.
    pub generation: u16,
}

/// Bit of a word that says that something is recorded.
pub const ON: u64 = 1 << 20;
const PAYLOAD: u64 = 1 << 21;
const GENERATION_SHIFT: u32 = 48;

impl Orders {
    /// As stored.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        let one_in = if self.one_in > ONE_IN_MAX { ONE_IN_MAX } else { self.one_in };
        (self.recorder as u64 + 1) & 0xf_ffff
            | if self.on { ON } else { 0 }
            | if self.payload { PAYLOAD } else { 0 }
            | (self.snap_bytes as u64) << 22
            | (self.depth_log2 as u64 & 0xf) << 30
            | (one_in as u64) << 34
            | (self.generation as u64) << GENERATION_SHIFT
    }

    /// From a stored word; `None` when the agent has no recorder.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        let recorder = word as u32 & 0xf_ffff;
        if recorder == 0 {
            return None;
        }
        Some(Self {
            recorder: recorder - 1,
            on: word & ON != 0,
            payload: word & PAYLOAD != 0,
            snap_bytes: (word >> 22) as u8,
            depth_log2: (word >> 30) as u8 & 0xf,
            one_in: (word >> 34) as u16 & ONE_IN_MAX,
            generation: generation_of(word),
        })
    }

    /// The entry of the `sequence`-th packet.
    #[inline(always)]
    #[must_use]
    pub const fn index(self, sequence: u64) -> u32 {
        let depth = 1u32 << self.depth_log2;
        (self.recorder << self.depth_log2) | (sequence as u32 & (depth - 1))
    }

    /// Bytes to keep of a packet of `length` bytes, of which `headers` are headers.
    #[inline(always)]
    #[must_use]
    pub const fn wanted(self, length: u32, headers: u32) -> u32 {
        let shown = if self.payload || headers > length { length } else { headers };
        if shown > self.snap_bytes as u32 { self.snap_bytes as u32 } else { shown }
    }
}

/// The generation in a stored word, also in one without recorder.
#[inline(always)]
#[must_use]
pub const fn generation_of(word: u64) -> u16 {
    (word >> GENERATION_SHIFT) as u16
}

/// The word of a slot that has no recorder and had this generation last.
#[must_use]
pub const fn no_recorder(generation: u16) -> u64 {
    (generation as u64) << GENERATION_SHIFT
}

/// Whether a packet is one in `one_in`. `count` is a number that no two packets on a CPU have in common, and `salt` one that
/// only the daemon knows: without it, an agent could count along and send what it wants to hide in between.
#[inline(always)]
#[must_use]
pub const fn is_sampled(one_in: u16, count: u64, salt: u64) -> bool {
    ((mix(count ^ salt) >> 32) * one_in as u64) >> 32 == 0
}

/// Every bit of the result depends on every bit of the number (the finalizer of splitmix64, one round).
#[inline(always)]
const fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// What became of a packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It passed.
    Passed = 0,
    /// It was dropped.
    Dropped = 1,
    /// It passed, and enforcement would have dropped it.
    WouldDrop = 2,
}

impl Fate {
    /// From a stored byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Passed),
            1 => Some(Self::Dropped),
            2 => Some(Self::WouldDrop),
            _ => None,
        }
    }
}

/// What an entry's bytes begin with.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// An Ethernet header.
    Ethernet = 0,
    /// An IP header.
    Ip = 1,
}

/// One recorded packet: what is said of it, a cache line long, and its first bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// [`written`] or [`writing`] of the packet's sequence number among all recorded of its slot, from one; zero where
    /// nothing was ever recorded.
    pub word: u64,
    /// Monotonic nanoseconds, less than a tick of the kernel's clock late: see [`Self::exact`].
    pub at_ns: u64,
    /// Wire bytes, of all packets that it becomes.
    pub wire_bytes: u64,
    /// The agent.
    pub slot: u32,
    /// Its epoch when the packet came.
    pub epoch: u32,
    /// Bytes of the packet as the hook saw it.
    pub length: u32,
    /// [`Orders::generation`].
    pub generation: u16,
    /// Bytes of it in [`Self::data`].
    pub captured: u16,
    /// Packets that it becomes on the wire; the most that fit when there are more.
    pub packets: u16,
    /// VLAN tag beside the packet, host byte order.
    pub vlan_tci: u16,
    /// Its protocol, host byte order; zero when there is none.
    pub vlan_protocol: u16,
    /// [`Orders::one_in`] when it was recorded.
    pub one_in: u16,
    /// A [`Direction`](crate::agent::Direction).
    pub direction: u8,
    /// A [`Fate`].
    pub fate: u8,
    /// The [`State`](crate::policy::State) in force when the packet came.
    pub state: u8,
    /// The [`Mode`](crate::policy::Mode) then.
    pub mode: u8,
    /// A [`Link`].
    pub link: u8,
    /// One, when this packet tripped the circuit.
    pub tripped: u8,
    /// One, when [`Self::at_ns`] is when it came. Zero, when it is that of the agent's first packet in the same tick: asking
    /// for the time takes longer than all the rest.
    pub exact: u8,
    /// Explicit padding to a cache line.
    pub reserved: [u8; 9],
    /// The packet's first bytes.
    pub data: [u8; DATA_BYTES],
}

const _: () = assert!(size_of::<Entry>() == 64 + DATA_BYTES && core::mem::offset_of!(Entry, data) == 64);

const BUSY: u64 = 1;

/// The word of an entry that is complete.
#[inline(always)]
#[must_use]
pub const fn written(sequence: u64) -> u64 {
    sequence << 1
}

/// The word of an entry that a CPU is filling in.
#[inline(always)]
#[must_use]
pub const fn writing(sequence: u64) -> u64 {
    sequence << 1 | BUSY
}

/// Whether a CPU is filling the entry in.
#[inline(always)]
#[must_use]
pub const fn is_busy(word: u64) -> bool {
    word & BUSY != 0
}

/// The sequence number in an entry's word.
#[inline(always)]
#[must_use]
pub const fn sequence_of(word: u64) -> u64 {
    word >> 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_orders() -> impl Strategy<Value = Orders> {
        (
            0..RECORDERS_MAX,
            any::<bool>(),
            any::<bool>(),
            0..=DATA_BYTES as u8,
            0u8..16,
            0..=ONE_IN_MAX,
            any::<u16>(),
        )
            .prop_map(|(recorder, on, payload, snap_bytes, depth_log2, one_in, generation)| Orders {
                recorder,
                on,
                payload,
                snap_bytes,
                depth_log2,
                one_in,
                generation,
            })
    }

    proptest! {
        #[test]
        fn orders_survive_their_word(orders in any_orders()) {
            let word = orders.to_word();
            prop_assert_eq!(Orders::from_word(word), Some(orders));
            prop_assert_eq!(word & ON != 0, orders.on);
            prop_assert_eq!(generation_of(word), orders.generation);
            prop_assert_eq!(Orders::from_word(no_recorder(orders.generation)), None);
            prop_assert_eq!(generation_of(no_recorder(orders.generation)), orders.generation);
        }

        #[test]
        fn recorders_do_not_overlap(recorder in 0u32..4096, depth_log2 in 4u8..=12, sequence: u64) {
            let orders = |recorder| Orders {
                recorder, on: true, payload: false, snap_bytes: 128, depth_log2, one_in: 1, generation: 0,
            };
            let depth = 1 << depth_log2;
            let index = orders(recorder).index(sequence);
            prop_assert_eq!(index / depth, recorder);
            prop_assert_eq!(orders(recorder).index(sequence.wrapping_add(depth.into())), index);
            prop_assert_ne!(orders(recorder).index(sequence.wrapping_add(1)), index);
            prop_assert_ne!(orders(recorder + 1).index(sequence), index);
        }

        #[test]
        fn no_more_is_kept_than_there_is_or_is_wanted(orders in any_orders(), length: u32, headers: u32) {
            let wanted = orders.wanted(length, headers);
            prop_assert!(wanted <= length && wanted <= orders.snap_bytes.into());
            prop_assert!(orders.payload || headers > length || wanted <= headers);
        }
    }

    #[test]
    fn one_in_one_is_every_packet_and_one_in_sixteen_a_sixteenth_of_any_stretch() {
        assert!((0..1000).all(|count| is_sampled(1, count, 7)));
        for (salt, step) in [(0u64, 1u64), (0x1234_5678_9abc_def0, 1), (99, 66), (u64::MAX, 1514)] {
            let sampled = (0..64_000).filter(|count| is_sampled(16, count * step, salt)).count();
            assert!((3700..4300).contains(&sampled), "{sampled} of 64,000 with {salt:x} and {step}");
        }
    }

    #[test]
    fn another_salt_chooses_other_packets() {
        let chosen = |salt| (0..10_000u64).filter(|&count| is_sampled(16, count, salt)).collect::<Vec<_>>();
        let (one, other) = (chosen(1), chosen(2));
        let common = one.iter().filter(|count| other.contains(count)).count();
        assert!(common < one.len() / 4, "{common} of {}", one.len());
    }

    #[test]
    fn the_word_of_an_entry_says_which_and_whether_it_is_whole() {
        assert!(is_busy(writing(7)) && !is_busy(written(7)));
        assert_eq!((sequence_of(writing(7)), sequence_of(written(7))), (7, 7));
        assert_ne!(written(1), 0, "which is nothing at all");
    }
}
