//! Whom an agent talks to, as the API shows it.

use std::net::IpAddr;

use agentsec_common::endpoint::EndpointKind;
use serde::{Deserialize, Serialize};

use crate::api::time::Timestamp;

/// Who opened the conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointDirection {
    /// The agent: the port is the remote one.
    #[default]
    Open,
    /// The remote: the port is the agent's own.
    Accept,
}

impl EndpointDirection {
    /// As written in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Accept => "accept",
        }
    }
}

impl From<EndpointKind> for EndpointDirection {
    fn from(kind: EndpointKind) -> Self {
        match kind {
            EndpointKind::Opened => Self::Open,
            EndpointKind::Accepted => Self::Accept,
        }
    }
}

/// What passed between an agent and an endpoint, one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTraffic {
    /// Wire bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointView {
    /// The remote's address.
    pub remote: IpAddr,
    /// The remote's or the agent's own port, by [`Self::direction`]; 0 where the protocol has none.
    pub port: u16,
    /// Name of the protocol, or its number.
    pub protocol: String,
    /// Who opened it.
    pub direction: EndpointDirection,
    /// Whether the profile expects it; `null` before the kernel has asked.
    pub typical: Option<bool>,
    /// Sent by the agent.
    pub outbound: EndpointTraffic,
    /// Sent to the agent.
    pub inbound: EndpointTraffic,
    /// Its first packet.
    pub first_seen: Timestamp,
    /// Its latest packet.
    pub last_seen: Timestamp,
    /// Response times measured, since its first answer.
    #[serde(default)]
    pub responses: u64,
    /// Their median; `null` when there are none.
    #[serde(default)]
    pub p50_ms: Option<f64>,
    /// Their 99th percentile.
    #[serde(default)]
    pub p99_ms: Option<f64>,
    /// Their mean absolute deviation from the profile's normal response time.
    #[serde(default)]
    pub deviation_ms: Option<f64>,
}

/// `GET /v1/agents/{id}/endpoints`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointList {
    /// The agent.
    pub agent: String,
    /// Its endpoints, in no particular order.
    pub endpoints: Vec<EndpointView>,
    /// Endpoints seen and not entered, since the agent's list was full.
    pub overflow: u64,
}
