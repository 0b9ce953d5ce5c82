//! Whom an agent talks to.

use crate::agent::Slot;

/// Who opened the conversation.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointKind {
    /// The agent did: the port is the remote one.
    Opened = 0,
    /// The remote did: the port is the agent's own, so that a server's clients are not a sweep.
    Accepted = 1,
}

impl EndpointKind {
    /// From its stored byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Opened),
            1 => Some(Self::Accepted),
            _ => None,
        }
    }
}

/// An IPv6 address as stored in maps: network byte order; IPv4 addresses are IPv4-mapped.
pub type Address = [u32; 4];

/// The third word of an IPv4-mapped address, `::ffff:0:0`, as it lies in memory.
pub const MAPPED: u32 = 0xffffu32.to_be();

/// Key of [`ENDPOINTS`](crate::maps::ENDPOINTS).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// The agent.
    pub slot: Slot,
    /// The remote or the agent's own port by [`Self::kind`], in host byte order; 0 where the protocol has none.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// An [`EndpointKind`].
    pub kind: u8,
    /// The remote address.
    pub remote: Address,
}

const _: () = assert!(size_of::<EndpointKey>() == 24);

/// Value of [`ENDPOINTS`](crate::maps::ENDPOINTS): one cache line. Bytes and packets are of what passed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it is typical, and by which profile: see [`Typical`].
    pub typical: u64,
    /// [`Stamp`](crate::window::Stamp) of when it was last counted as unusual; zero for never.
    pub counted: u64,
    /// Monotonic nanoseconds of the first packet.
    pub first_seen_ns: u64,
    /// Monotonic nanoseconds of the latest packet.
    pub last_seen_ns: u64,
    /// Passed, by [`Direction`](crate::agent::Direction).
    pub bytes: [u64; 2],
    /// Passed, by [`Direction`](crate::agent::Direction).
    pub packets: [u64; 2],
}

const _: () = assert!(size_of::<Endpoint>() == 64);

/// The answer of the typical trie, cached with the [tag](crate::profile::Profile::tag) of the profile that gave
/// it, so that a new profile is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Typical;

impl Typical {
    /// As stored.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(tag: u32, typical: bool) -> u64 {
        (tag as u64) << 2 | 2 | typical as u64
    }

    /// The cached answer for `tag`, if there is one.
    #[inline(always)]
    #[must_use]
    pub const fn cached(word: u64, tag: u32) -> Option<bool> {
        if word >> 1 == (tag as u64) << 1 | 1 { Some(word & 1 == 1) } else { None }
    }

    /// The latest answer, whatever profile gave it.
    #[must_use]
    pub const fn latest(word: u64) -> bool {
        word & 3 == 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_answer_is_for_its_profile_only() {
        for (tag, typical) in [(0, true), (0, false), (7, true), (u32::MAX, false)] {
            let word = Typical::to_word(tag, typical);
            assert_eq!(Typical::cached(word, tag), Some(typical));
            assert_eq!(Typical::cached(word, tag ^ 1), None);
            assert_eq!(Typical::latest(word), typical);
        }
        assert_eq!(Typical::cached(0, 0), None, "a fresh entry has no answer");
    }
}
