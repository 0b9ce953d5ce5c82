//! What the API shows: the contract of `--json`.
//!
//! Fields are added, never renamed or removed. Numbers are exact; units are in the names of fields that are
//! not bytes or packets.

mod agent;
mod daemon;
mod endpoint;
mod explanation;
mod recorder;
pub mod recovery;
mod signals;

pub use crate::core::protocol::protocol_name;
pub use agent::{
    AgentStatus, AgentSummary, Attachment, AttachmentKind, AttachmentStatus, Classes, Contributions,
    Direction, EndpointCounts, Limits, Mode, Risk, State, Trip, WouldDrop,
};
pub use daemon::{
    AgentsByState, BundleCounts, DaemonStatus, EventCounts, PACKET_SOCKETS_DENIED, StrayPackets,
};
pub use endpoint::{EndpointDirection, EndpointList, EndpointTraffic, EndpointView};
pub use explanation::{Explanation, PacketView};
pub use recorder::{RecordedPacket, RecorderView};
pub use signals::{AuthCounts, LossCounts, ResponseTimes, Signals, TotalCounts, mean_ms, ns_as_ms};

use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Every configured agent, by name.
    pub agents: Vec<AgentStatus>,
    /// The daemon itself.
    pub daemon: DaemonStatus,
}

/// `GET /v1/agents`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentList {
    /// Every configured agent, by name.
    pub agents: Vec<AgentSummary>,
}

impl From<&Status> for AgentList {
    fn from(status: &Status) -> Self {
        Self { agents: status.agents.iter().map(AgentSummary::from).collect() }
    }
}

#[cfg(test)]
pub(crate) mod tests;
