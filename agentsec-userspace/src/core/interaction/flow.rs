//! A flow, summed up.

use super::OpenedBy;
use crate::core::community_id::{DEFAULT_SEED, FlowTuple};
use std::net::SocketAddr;

/// ICMP and ICMPv6, whose Community ID needs what a summary has not: type and code.
const WITHOUT_ID: [u8; 2] = [1, 58];

/// Packets and their wire bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Wire bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// What is known of the messages in a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it was, such as `http GET`; `None` for a flow of which nothing more is known.
    pub kind: Option<String>,
    /// SHA-256 in hex of the payload's first bytes, where they were seen.
    pub payload_hash: Option<String>,
    /// How many bytes that covers.
    pub payload_bytes: Option<u64>,
    /// Messages of the agent that asked for an answer: requests, where they can be told apart.
    pub requests: u64,
    /// The last answer's status.
    pub response_code: Option<u16>,
    /// Mean time to an answer, microseconds.
    pub latency_us: Option<u64>,
    /// How the caller said who it is: a scheme such as `bearer` or `mtls`, never the credential.
    pub auth_method: Option<String>,
    /// W3C trace id in hex, where plaintext HTTP carried one ([`super::trace::trace_id`]).
    pub trace_id: Option<String>,
    /// Id that the application reported.
    pub reported_id: Option<String>,
}

/// A flow of an agent since it was last told, as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSummary {
    /// The agent's id.
    pub agent: String,
    /// Who opened it.
    pub opened_by: OpenedBy,
    /// IP protocol number.
    pub protocol: u8,
    /// The agent's address and port.
    pub local: SocketAddr,
    /// The other side's.
    pub remote: SocketAddr,
    /// Sent by the agent.
    pub outbound: Traffic,
    /// Sent to the agent.
    pub inbound: Traffic,
    /// Monotonic nanoseconds of the first packet.
    pub first_seen_ns: u64,
    /// Monotonic nanoseconds of the latest packet.
    pub last_seen_ns: u64,
    /// Whether it is over: else more of it will be told.
    pub is_over: bool,
    /// What is known of its messages.
    pub message: Message,
}

impl FlowSummary {
    /// The Community ID; `None` for ICMP, where addresses do not make a flow.
    #[must_use]
    pub fn community_id(&self) -> Option<String> {
        let flow = FlowTuple {
            protocol: self.protocol,
            source: self.local.ip(),
            source_port: self.local.port(),
            destination: self.remote.ip(),
            destination_port: self.remote.port(),
        };
        (!WITHOUT_ID.contains(&self.protocol)).then(|| flow.community_id(DEFAULT_SEED))
    }
}
