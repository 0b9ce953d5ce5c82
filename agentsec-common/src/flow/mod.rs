//! A connection of an agent, as the kernel follows it: what was asked, what was answered, and how long it took.
//!
//! The agent's side and the remote's side run on different CPUs, so each word of a [`Flow`] is written by the packets
//! of one direction only. What packets of the other direction need is in a word that they read whole.
//!
//! # When an answer is an answer
//!
//! The agent *asks* with the first new payload after an answer (or after the connection's begin), and what it sends on
//! until it is answered belongs to that. Payload *answers* when it is new and, on TCP, acknowledges all that was asked:
//! what was on its way already when the agent asked (server push), retransmissions and keep-alives answer nothing. A
//! remote can answer no more often than the agent has asked. Time runs from the end of the message that was asked: a
//! segment without PSH is continued by the next one.

use crate::agent::Slot;
use crate::endpoint::Address;
use crate::packet::{protocol, tcp};

mod answering;
mod asking;
mod record;
mod status;

pub use answering::{Answered, Hears, Reset, reset};
pub use asking::{Asked, Asking, Requests, Says, Sent, Start};
pub use record::{FlowRecord, OPENING_BYTES, OPENINGS_PER_SECOND, OpeningRecord};
pub use status::{Line, STATUS_LINE, Statuses};

/// Key of [`FLOWS`](crate::maps::FLOWS): six words, which the kernel hashes in two steps.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// See [`Self::new`].
    who: u32,
    /// The agent's port, host byte order.
    pub local_port: u16,
    /// The remote's port, host byte order.
    pub remote_port: u16,
    /// The remote's address.
    pub remote: Address,
}

const _: () = assert!(size_of::<FlowKey>() == 24);

const SLOT_BITS: u32 = 16;
const UDP: u32 = 1 << SLOT_BITS;

impl FlowKey {
    /// The key of a TCP or UDP connection of an agent, of which there are at most 65,536, with ports of the agent and the
    /// remote.
    ///
    /// ```text
    /// bit 0..16 slot | 16 UDP | 17..32 the agent's address, folded
    /// ```
    ///
    /// The agent's address is folded in, since one with many addresses may use one port with one remote twice.
    #[inline(always)]
    #[must_use]
    pub const fn new(slot: Slot, protocol: u8, local: &Address, ports: (u16, u16), remote: Address) -> Self {
        let folded = local[0] ^ local[1] ^ local[2] ^ local[3];
        let udp = if protocol == protocol::UDP { UDP } else { 0 };
        // The last bits of an address tell hosts of a network apart, wherever they lie in memory.
        let who = slot & (UDP - 1) | udp | (folded ^ folded << 16) & !(2 * UDP - 1);
        Self { who, local_port: ports.0, remote_port: ports.1, remote }
    }

    /// As six words, to be kept.
    #[must_use]
    pub const fn to_words(self) -> [u32; 6] {
        let [a, b, c, d] = self.remote;
        [self.who, (self.local_port as u32) << 16 | self.remote_port as u32, a, b, c, d]
    }

    /// From its words.
    #[must_use]
    pub const fn from_words([who, ports, a, b, c, d]: [u32; 6]) -> Self {
        Self { who, local_port: (ports >> 16) as u16, remote_port: ports as u16, remote: [a, b, c, d] }
    }

    /// The agent.
    #[inline(always)]
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.who & (UDP - 1)
    }

    /// IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        if self.who & UDP != 0 { protocol::UDP } else { protocol::TCP }
    }
}

/// Value of [`FLOWS`](crate::maps::FLOWS): three cache lines, of which most packets touch two.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// [`Settled`].
    pub settled: u64,
    /// An [`EndpointKind`](crate::endpoint::EndpointKind): who opened it.
    pub kind: u64,
    /// [`Sent`]; the agent's.
    pub sent: u64,
    /// [`Asked`]; the agent's.
    pub asked: u64,
    /// Monotonic nanoseconds of the end of what was asked; the agent's.
    pub asked_ns: u64,
    /// [`Requests`]; the agent's.
    pub requests: u64,
    /// [`Answered`]; the remote's.
    pub answered: u64,
    /// [`Statuses`]; the remote's.
    pub statuses: u64,
    /// Coarse monotonic nanoseconds of the latest packet.
    pub last_seen_ns: u64,
    /// Samples of answers that were sent; the remote's.
    pub samples: u64,
    /// Wire bytes that passed, the packet that made the entry included, by [`Direction`](crate::agent::Direction).
    pub bytes: [u64; 2],
    /// Packets, likewise.
    pub packets: [u64; 2],
    /// What of [`Self::bytes`] its endpoint has been told.
    pub told_bytes: [u64; 2],
    /// What of [`Self::packets`] its endpoint has been told.
    pub told_packets: [u64; 2],
    /// Coarse monotonic nanoseconds of the first packet.
    pub first_seen_ns: u64,
    /// The agent's address.
    pub local: Address,
    /// Sum of response times, nanoseconds; the remote's.
    pub response_ns: u64,
    /// Response times in that sum; the remote's.
    pub responses: u64,
    /// Explicit padding to whole cache lines.
    pub reserved: [u64; 1],
}

const _: () = assert!(size_of::<Flow>() == 192);

/// That a connection's endpoint is typical of a profile, and was told of the connection within this second (2^30 ns). As
/// long as that holds, its packets need not look at the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled;

impl Settled {
    /// As stored: of the profile with this [tag](crate::profile::Profile::tag), at this time. Never zero.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(tag: u32, now_ns: u64) -> u64 {
        (tag as u64) << 32 | (now_ns >> 30) as u32 as u64 | 1 << 31
    }
}

/// What is spoken on a connection, told by the agent's first words.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// Nothing was said yet.
    Unknown = 0,
    /// HTTP/1 in plain text.
    Http1 = 1,
    /// HTTP/2 in plain text, with prior knowledge.
    Http2 = 2,
    /// TLS.
    Tls = 3,
    /// DNS over UDP.
    Dns = 4,
    /// Anything else, or not to be read.
    Other = 5,
}

impl Language {
    /// From its stored byte.
    #[inline(always)]
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Unknown,
            1 => Self::Http1,
            2 => Self::Http2,
            3 => Self::Tls,
            4 => Self::Dns,
            _ => Self::Other,
        }
    }

    /// As in status and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Http1 => "http/1",
            Self::Http2 => "http/2",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Other => "other",
        }
    }
}

/// A TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgment: u32,
    /// Bytes of payload.
    pub payload: u32,
    /// Flags, as in [`tcp`].
    pub flags: u8,
}

impl Segment {
    #[inline(always)]
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The sequence number after it.
    #[inline(always)]
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.sequence
            .wrapping_add(self.payload)
            .wrapping_add(self.has(tcp::SYN) as u32)
            .wrapping_add(self.has(tcp::FIN) as u32)
    }
}

/// Whether sequence number `a` comes after `b`.
#[inline(always)]
const fn is_after(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance < 1 << 31
}

#[cfg(test)]
mod tests;
