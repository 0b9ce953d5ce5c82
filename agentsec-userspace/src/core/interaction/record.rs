//! A flow's record as a summary of what passed since it was last told.

use super::opening::Opening;
use super::{FlowSummary, Message, OpenedBy, Traffic};
use crate::core::address::from_address;
use agentsec_common::agent::Direction;
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::flow::{Asked, FlowRecord, Language, Sent, Statuses};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What was told of a flow already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    bytes: [u64; 2],
    packets: [u64; 2],
    asked: u32,
    response_ns: u64,
    responses: u64,
}

impl Told {
    /// All of a flow so far.
    pub(super) const fn all(record: &FlowRecord) -> Self {
        Self {
            bytes: record.bytes,
            packets: record.packets,
            asked: Asked(record.asked).count(),
            response_ns: record.response_ns,
            responses: record.responses,
        }
    }

    /// Whether anything has passed that was not told.
    pub(super) fn is_behind(&self, record: &FlowRecord) -> bool {
        self.packets != record.packets
    }
}

/// What passed on a flow since it was `told`.
pub(super) fn summary(
    agent: &str,
    record: &FlowRecord,
    told: &Told,
    opening: Option<Opening>,
    is_over: bool,
) -> FlowSummary {
    let key = &record.key;
    let opened_by =
        if record.kind == EndpointKind::Opened as u64 { OpenedBy::Agent } else { OpenedBy::Remote };
    let since = |direction: Direction| Traffic {
        bytes: record.bytes[direction as usize].saturating_sub(told.bytes[direction as usize]),
        packets: record.packets[direction as usize].saturating_sub(told.packets[direction as usize]),
    };
    FlowSummary {
        agent: agent.to_owned(),
        opened_by,
        protocol: key.protocol(),
        local: SocketAddr::new(from_address(record.local), key.local_port),
        remote: SocketAddr::new(from_address(key.remote), key.remote_port),
        outbound: since(Direction::Outbound),
        inbound: since(Direction::Inbound),
        first_seen_ns: record.first_seen_ns,
        last_seen_ns: record.last_seen_ns,
        is_over,
        message: message(record, told, opening, opened_by),
    }
}

fn message(record: &FlowRecord, told: &Told, opening: Option<Opening>, opened_by: OpenedBy) -> Message {
    let statuses = Statuses(record.statuses);
    let language = match opened_by {
        OpenedBy::Agent => Sent(record.sent).spoken(),
        OpenedBy::Remote => statuses.spoken(),
    };
    let responses = record.responses.saturating_sub(told.responses);
    let waited_ns = record.response_ns.saturating_sub(told.response_ns);
    let (kind, auth) = match language {
        Language::Http1 => (Some("http"), None),
        Language::Http2 => (Some("http/2"), None),
        Language::Tls => (Some("tls"), Some("tls")),
        Language::Dns => (Some("dns"), None),
        Language::Unknown | Language::Other => (None, None),
    };
    let mut message = Message {
        kind: kind.map(str::to_owned),
        auth_method: auth.map(str::to_owned),
        requests: Asked(record.asked).count().wrapping_sub(told.asked).into(),
        response_code: Some(statuses.latest()).filter(|status| *status != 0),
        latency_us: (responses > 0).then(|| waited_ns / responses / 1000),
        ..Message::default()
    };
    if let Some(opening) = opening {
        message.kind = Some(opening.kind);
        message.auth_method = opening.auth_method;
        message.trace_id = opening.trace_id;
        message.payload_hash = Some(opening.payload_hash);
        message.payload_bytes = Some(opening.payload_bytes);
    }
    message
}
