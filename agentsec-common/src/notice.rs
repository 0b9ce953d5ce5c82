//! What the kernel tells the daemon at once, through the ring.

use crate::endpoint::Address;

/// What happened.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// The kernel tripped a circuit; the ledger's trip record says all.
    Trip = 1,
    /// An endpoint that is not typical was seen for the first time.
    NewEndpoint = 2,
    /// Packets are being dropped: at most one notice a second and agent, about one of them.
    Drop = 3,
    /// A packet to something that is not typical was dropped while the agent is on probation.
    Violation = 4,
    /// A process of the agent was denied a packet socket; the protocol is the socket's address family.
    SocketDenied = 5,
    /// An authentication failed: [`Notice::detail`] is its [`AuthKind`](crate::auth::AuthKind).
    AuthFailure = 6,
}

impl NoticeKind {
    /// From its stored byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Trip),
            2 => Some(Self::NewEndpoint),
            3 => Some(Self::Drop),
            4 => Some(Self::Violation),
            5 => Some(Self::SocketDenied),
            6 => Some(Self::AuthFailure),
            _ => None,
        }
    }
}

/// Notices per agent and second (2^30 ns); trips and drops have their own bounds.
pub const NOTICES_PER_SECOND: u32 = 64;

/// One record of [`NOTICES`](crate::maps::NOTICES), about one packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// Monotonic nanoseconds.
    pub at_ns: u64,
    /// The agent.
    pub slot: u32,
    /// Its epoch.
    pub epoch: u32,
    /// Remote address.
    pub remote: Address,
    /// Wire bytes.
    pub packet_bytes: u32,
    /// The agent's port, host byte order.
    pub local_port: u16,
    /// The remote's port, host byte order.
    pub remote_port: u16,
    /// A [`NoticeKind`].
    pub kind: u8,
    /// IP protocol.
    pub protocol: u8,
    /// A [`Direction`](crate::agent::Direction).
    pub direction: u8,
    /// An [`EndpointKind`](crate::endpoint::EndpointKind).
    pub endpoint_kind: u8,
    /// A [`Class`](crate::packet::Class).
    pub class: u8,
    /// More, by kind.
    pub detail: u8,
    /// Explicit padding.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Notice>() == 48);

/// Spends one notice of the budget `word` in the second of `now_ns`; `None` when it is spent.
#[inline(always)]
#[must_use]
pub const fn spend(word: u64, now_ns: u64) -> Option<u64> {
    spend_of(word, now_ns, NOTICES_PER_SECOND)
}

/// The same of a budget of so many a second.
#[inline(always)]
#[must_use]
pub const fn spend_of(word: u64, now_ns: u64, per_second: u32) -> Option<u64> {
    let second = (now_ns >> 30) << 32;
    if word & !0xffff_ffff != second {
        return Some(second | 1);
    }
    if word as u32 >= per_second { None } else { Some(word + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_comes_back_with_the_next_second() {
        let now = 77 << 30;
        let mut word = 0;
        for _ in 0..NOTICES_PER_SECOND {
            word = spend(word, now).unwrap();
        }
        assert_eq!(spend(word, now), None);
        assert!(spend(word, now + (1 << 30)).is_some());
    }
}
