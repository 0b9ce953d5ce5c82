//! What the kernel tells of connections: what one was when it ended, and what it began with.

use super::{Flow, FlowKey};
use crate::endpoint::Address;

/// Bytes of a connection's first request in a record, at most. A power of two: the verifier follows a mask.
pub const OPENING_BYTES: usize = 1024;
/// First requests per agent and second (2^30 ns).
pub const OPENINGS_PER_SECOND: u32 = 256;

/// What a connection was: one record of [`FLOW_RECORDS`](crate::maps::FLOW_RECORDS), told when it has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// Its key.
    pub key: FlowKey,
    /// [`Flow::local`].
    pub local: Address,
    /// [`Flow::kind`].
    pub kind: u64,
    /// [`Flow::first_seen_ns`].
    pub first_seen_ns: u64,
    /// [`Flow::last_seen_ns`].
    pub last_seen_ns: u64,
    /// [`Flow::bytes`].
    pub bytes: [u64; 2],
    /// [`Flow::packets`].
    pub packets: [u64; 2],
    /// [`Flow::sent`].
    pub sent: u64,
    /// [`Flow::asked`].
    pub asked: u64,
    /// [`Flow::statuses`].
    pub statuses: u64,
    /// [`Flow::response_ns`].
    pub response_ns: u64,
    /// [`Flow::responses`].
    pub responses: u64,
}

const _: () = assert!(size_of::<FlowRecord>() == 136);

impl FlowRecord {
    /// Of a connection as it is.
    #[must_use]
    pub const fn of(key: FlowKey, flow: &Flow) -> Self {
        Self {
            key,
            local: flow.local,
            kind: flow.kind,
            first_seen_ns: flow.first_seen_ns,
            last_seen_ns: flow.last_seen_ns,
            bytes: flow.bytes,
            packets: flow.packets,
            sent: flow.sent,
            asked: flow.asked,
            statuses: flow.statuses,
            response_ns: flow.response_ns,
            responses: flow.responses,
        }
    }
}

/// What a connection began with: its first request, in plain text. The other record of
/// [`FLOW_RECORDS`](crate::maps::FLOW_RECORDS), told apart by its size; it comes before the one of the connection's end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpeningRecord {
    /// The connection.
    pub key: FlowKey,
    /// [`Flow::first_seen_ns`], which tells connections with the same ports apart.
    pub first_seen_ns: u64,
    /// Payload bytes of the request's first segment.
    pub total: u32,
    /// How many of them are in [`Self::bytes`].
    pub length: u32,
    /// The bytes.
    pub bytes: [u8; OPENING_BYTES],
}

const _: () = assert!(size_of::<OpeningRecord>() == 1064);
