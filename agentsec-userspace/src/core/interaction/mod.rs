//! Interactions: what one agent and somebody else had to do with each other, as an event.
//!
//! Flows come in as plain values ([`FlowSummary`]) and go out as drafts, with every id by which the other side's
//! event, or another tool's, can be found: the Community ID of the flow, the trace that plaintext HTTP carries, and what
//! the application reported. Calm agents' interactions are sampled ([`Sampler`]). What is needed between a flow's records and
//! its event is in the [`Book`].

mod book;
mod flow;
mod memory;
pub mod opening;
mod peers;
mod record;
mod report;
mod sample;
#[cfg(test)]
mod tests;
pub mod trace;

pub use book::{Book, BookSettings, Teller};
pub use flow::{FlowSummary, Message, Traffic};
pub use memory::Remembered;
pub use peers::{KnownBy, Peer};
pub use report::Report;
pub use sample::{Sampler, SamplingSettings, Standing};

use super::draft::{Draft, EventKind};
use super::protocol::protocol_name;
use super::time::{Time, rfc3339};
use serde_json::json;

/// Who opened a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpenedBy {
    /// The agent.
    Agent,
    /// The other side.
    Remote,
}

impl OpenedBy {
    /// As in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Remote => "remote",
        }
    }
}

impl FlowSummary {
    /// The event of this flow. The source is who opened it; `peer` is the agent on the other side, if that is known.
    #[must_use]
    pub fn draft(&self, now: Time, peer: Option<&Peer>) -> Draft {
        let (agent, known_by) = (Some(self.agent.as_str()), peer.map(|peer| peer.by.name()));
        let peer = peer.map(|peer| peer.agent.as_str());
        let (source, target) = match self.opened_by {
            OpenedBy::Agent => (agent, peer),
            OpenedBy::Remote => (peer, agent),
        };
        let community_id = self.community_id();
        let message = &self.message;
        let data = json!({
            "source_agent": source,
            "target_agent": target,
            "peer_known_by": known_by,
            "message_type": message.kind.as_deref().unwrap_or("flow"),
            "payload_hash": message.payload_hash,
            "payload_hash_bytes": message.payload_bytes,
            "response_code": message.response_code,
            "latency_ms": message.latency_us.map(milliseconds),
            "auth_method": message.auth_method,
            "requests": message.requests,
            "community_id": community_id,
            "trace_id": message.trace_id,
            "reported_id": message.reported_id,
            "protocol": protocol_name(self.protocol),
            "opened_by": self.opened_by.name(),
            "local_address": self.local.ip().to_canonical().to_string(),
            "local_port": self.local.port(),
            "remote_address": self.remote.ip().to_canonical().to_string(),
            "remote_port": self.remote.port(),
            "ended": self.is_over,
            "outbound": traffic(self.outbound),
            "inbound": traffic(self.inbound),
            "first_seen": rfc3339(now.wall_at(self.first_seen_ns)),
            "last_seen": rfc3339(now.wall_at(self.last_seen_ns)),
        });
        // A flow always has a Community ID; a message without one is known by its trace, else by what was reported.
        let id = community_id.or_else(|| message.trace_id.clone()).or_else(|| message.reported_id.clone());
        Draft {
            agent_id: Some(self.agent.clone()),
            correlation_id: id,
            ..Draft::daemon(now, EventKind::AgentInteraction, data)
        }
    }
}

fn traffic(traffic: Traffic) -> serde_json::Value {
    json!({ "bytes": traffic.bytes, "packets": traffic.packets })
}

fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}
