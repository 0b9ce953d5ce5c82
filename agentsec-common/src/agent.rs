//! How the kernel knows an agent.

use crate::endpoint::Address;

/// Dense index of an agent in every per-agent map.
pub type Slot = u32;

/// Longest agent name, in bytes of UTF-8.
pub const NAME_BYTES: usize = 64;

/// What an attachment's key maps to: a slot, or nothing. Stored as one word so that it is never seen torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(Option<Slot>);

impl Identity {
    /// No agent.
    pub const NONE: Self = Self(None);

    /// The agent at `slot`.
    #[must_use]
    pub const fn of(slot: Slot) -> Self {
        Self(Some(slot))
    }

    /// The slot, if there is one.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> Option<Slot> {
        self.0
    }

    /// As stored: zero for nobody, else the slot plus one.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        match self.0 {
            Some(slot) => slot as u64 + 1,
            None => 0,
        }
    }

    /// From a stored word, whatever its upper half says.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        match word as u32 {
            0 => Self(None),
            word => Self(Some(word - 1)),
        }
    }

    /// As stored for a cgroup: with its level in the upper half.
    #[must_use]
    pub const fn to_word_at(self, level: u32) -> u64 {
        self.to_word() | (level as u64) << 32
    }
}

/// Level of a cgroup, from the stored word.
#[must_use]
pub const fn level_of(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Key of [`IDENTITY_IPV4`](crate::maps::IDENTITY_IPV4): one word, so that it is hashed at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkIpv4 {
    /// Index of the shared link.
    pub ifindex: u32,
    /// The address, in network byte order.
    pub address: u32,
}

const _: () = assert!(size_of::<LinkIpv4>() == 8);

/// Key of [`IDENTITY_IPV6`](crate::maps::IDENTITY_IPV6), and data of a key of
/// [`IDENTITY_PREFIX`](crate::maps::IDENTITY_PREFIX), where IPv4 addresses are IPv4-mapped and a prefix is
/// [`LINK_BITS`] longer than the address's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkAddress {
    /// Index of the shared link.
    pub ifindex: u32,
    /// The address.
    pub address: Address,
}

const _: () = assert!(size_of::<LinkAddress>() == 20);

/// Bits of a key of [`IDENTITY_PREFIX`](crate::maps::IDENTITY_PREFIX) before the address.
pub const LINK_BITS: u32 = 32;

/// Levels of the cgroup tree at which agents are looked for: level 1 is a child of the root.
pub const CGROUP_LEVELS: u32 = 16;

/// Value of [`SCOPE`](crate::maps::SCOPE): words that spare look-ups which cannot find anything.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Bit `n` is set when the cgroup of an agent is at level `n` of the tree.
    pub cgroup_levels: u64,
    /// Not zero when an agent is known by an address prefix, rather than by addresses alone.
    pub prefixes: u64,
    /// Not zero when [`COVERED`](crate::maps::COVERED) has entries.
    pub covered: u64,
    /// Counts the changes of cgroups' identities, so that an answer remembered from before one is not taken.
    pub generation: u64,
}

const _: () = assert!(size_of::<Scope>() == 32);

/// Value of [`RECENT`](crate::maps::RECENT): whose the latest packet's cgroup is, on one CPU.
///
/// A program may interrupt another one that is writing it, so the three words can be of two answers. Then the check
/// holds only if both are about the same cgroup, or come to the same agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// Id of the cgroup in which the packet's socket was made.
    pub cgroup: u64,
    /// The [`Identity`] word of the agent around it; zero for nobody.
    pub word: u64,
    /// See [`Self::of`].
    pub check: u64,
}

const _: () = assert!(size_of::<Recent>() == 24);

impl Recent {
    /// The answer for a cgroup, as of a generation. Its check is never that of words that are all zero.
    #[inline(always)]
    #[must_use]
    pub const fn of(cgroup: u64, word: u64, generation: u64) -> Self {
        Self { cgroup, word, check: !(cgroup ^ word.rotate_left(32) ^ generation.rotate_left(48)) }
    }

    /// The remembered word, if it is of this cgroup and generation.
    #[inline(always)]
    #[must_use]
    pub const fn answer(self, cgroup: u64, generation: u64) -> Option<u64> {
        let whole = Self::of(cgroup, self.word, generation);
        if self.cgroup == cgroup && self.check == whole.check { Some(self.word) } else { None }
    }
}

/// An agent's name beside its slot, so that the pins alone tell who is contained.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentName {
    /// UTF-8, zero-padded; all zero when the slot is free.
    pub bytes: [u8; NAME_BYTES],
}

const _: () = assert!(size_of::<AgentName>() == NAME_BYTES);

impl AgentName {
    /// A free slot.
    pub const FREE: Self = Self { bytes: [0; NAME_BYTES] };

    /// `None` when the name is empty, longer than [`NAME_BYTES`] or contains a zero byte.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if name.is_empty() || name.len() > NAME_BYTES || name.bytes().any(|byte| byte == 0) {
            return None;
        }
        let mut bytes = [0; NAME_BYTES];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Self { bytes })
    }

    /// The name; `None` for a free slot or bytes that are no UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        let length = self.bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
        match core::str::from_utf8(&self.bytes[..length]) {
            Ok(name) if !name.is_empty() => Some(name),
            _ => None,
        }
    }
}

/// Which way a packet goes, as the agent sees it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sent by the agent.
    Outbound = 0,
    /// Sent to the agent.
    Inbound = 1,
}

impl Direction {
    /// From its stored byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Outbound),
            1 => Some(Self::Inbound),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_its_word() {
        for identity in [Identity::NONE, Identity::of(0), Identity::of(65_535)] {
            assert_eq!(Identity::from_word(identity.to_word()), identity);
        }
        assert_eq!(Identity::from_word(0), Identity::NONE, "an untouched array element is nobody");
        let word = Identity::of(7).to_word_at(CGROUP_LEVELS);
        assert_eq!((Identity::from_word(word), level_of(word)), (Identity::of(7), CGROUP_LEVELS));
    }

    #[test]
    fn a_recent_answer_is_for_its_cgroup_and_generation_and_never_half_of_another() {
        let (mine, yours) = (Recent::of(5, 1, 3), Recent::of(4, 0, 3));
        assert_eq!((mine.answer(5, 3), yours.answer(4, 3)), (Some(1), Some(0)));
        assert_eq!((mine.answer(4, 3), mine.answer(5, 4)), (None, None));
        assert_eq!(Recent::default().answer(0, 0), None, "nothing is remembered at first");
        for (cgroup, word, check) in [
            (mine.cgroup, yours.word, mine.check),
            (mine.cgroup, yours.word, yours.check),
            (yours.cgroup, mine.word, mine.check),
            (yours.cgroup, mine.word, yours.check),
        ] {
            assert_eq!(Recent { cgroup, word, check }.answer(cgroup, 3), None);
        }
    }

    #[test]
    fn a_name_survives_its_bytes_and_a_bad_one_is_refused() {
        let longest = "x".repeat(NAME_BYTES);
        for name in ["a", "crawler-7", "ü", longest.as_str()] {
            assert_eq!(AgentName::new(name).unwrap().as_str(), Some(name));
        }
        assert!(AgentName::new("").is_none());
        assert!(AgentName::new("a\0b").is_none());
        assert!(AgentName::new(&"x".repeat(NAME_BYTES + 1)).is_none());
        assert_eq!(AgentName::FREE.as_str(), None);
    }
}
