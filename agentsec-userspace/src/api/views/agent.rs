//! One agent as the API shows it.

use agentsec_common::{counters, policy, risk};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::signals::{LossCounts, Signals, TotalCounts};
use crate::api::time::Timestamp;

/// A circuit's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Passing.
    #[default]
    Closed,
    /// Probing under tight limits.
    HalfOpen,
    /// Dropping everything.
    Open,
}

impl State {
    /// As written in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::HalfOpen => "HALF_OPEN",
            Self::Open => "OPEN",
        }
    }
}

impl From<policy::State> for State {
    fn from(state: policy::State) -> Self {
        match state {
            policy::State::Closed => Self::Closed,
            policy::State::HalfOpen => Self::HalfOpen,
            policy::State::Open => Self::Open,
        }
    }
}

/// Whether the state is enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Judged and enforced.
    #[default]
    Enforce,
    /// Judged; what would be dropped is counted and passes.
    Shadow,
    /// Counted; never judged, never dropped.
    Exempt,
}

impl Mode {
    /// As written in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Exempt => "exempt",
        }
    }
}

impl From<policy::Mode> for Mode {
    fn from(mode: policy::Mode) -> Self {
        match mode {
            policy::Mode::Enforce => Self::Enforce,
            policy::Mode::Shadow => Self::Shadow,
            policy::Mode::Exempt => Self::Exempt,
        }
    }
}

/// A risk or a part of one, held per mille, written as a number from 0.000 to 1.000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Risk(pub u16);

impl std::fmt::Display for Risk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(&format!("{}.{:03}", self.0 / 1000, self.0 % 1000))
    }
}

impl Serialize for Risk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Risk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        // A cast from a float saturates, so whatever was sent ends inside the range.
        Ok(Self((number * 1000.0).round() as u16))
    }
}

/// What each term adds to the risk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contributions {
    /// Failed authentications.
    pub auth: Risk,
    /// Volume.
    pub volume: Risk,
    /// Unusual endpoints.
    pub endpoints: Risk,
    /// Response time deviation.
    pub deviation: Risk,
    /// Requests.
    #[serde(default)]
    pub requests: Risk,
    /// Anomalous requests.
    #[serde(default)]
    pub anomalous: Risk,
    /// Slow signals that the daemon adds.
    pub extra: Risk,
}

impl Contributions {
    /// Every term with its name, in the order of the contract.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, Risk); 7] {
        [
            ("auth", self.auth),
            ("volume", self.volume),
            ("endpoints", self.endpoints),
            ("deviation", self.deviation),
            ("requests", self.requests),
            ("anomalous", self.anomalous),
            ("extra", self.extra),
        ]
    }

    /// The greatest term, the first of equals; `None` when nothing contributes.
    #[must_use]
    pub fn top(&self) -> Option<(&'static str, Risk)> {
        let greatest = self.named().into_iter().rev().max_by_key(|(_, risk)| *risk);
        greatest.filter(|(_, risk)| risk.0 > 0)
    }
}

impl From<risk::Terms> for Contributions {
    fn from(terms: risk::Terms) -> Self {
        Self {
            auth: Risk(terms.auth),
            volume: Risk(terms.volume),
            endpoints: Risk(terms.endpoints),
            deviation: Risk(terms.deviation),
            requests: Risk(terms.requests),
            anomalous: Risk(terms.anomalous),
            extra: Risk(terms.extra),
        }
    }
}

/// Exact counts of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Wire bytes that passed.
    pub bytes: u64,
    /// Packets that passed.
    pub packets: u64,
    /// Wire bytes that were dropped.
    pub dropped_bytes: u64,
    /// Packets that were dropped.
    pub dropped_packets: u64,
}

impl From<counters::Traffic> for Direction {
    fn from(traffic: counters::Traffic) -> Self {
        Self {
            bytes: traffic.bytes,
            packets: traffic.packets,
            dropped_bytes: traffic.dropped_bytes,
            dropped_packets: traffic.dropped_packets,
        }
    }
}

/// How an agent meets the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentKind {
    /// The host side of its veth or tap.
    #[default]
    Interface,
    /// A control group.
    Cgroup,
    /// An address or prefix on a shared link.
    Address,
}

/// How far an attachment has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentStatus {
    /// Not yet attached; it is being worked on.
    #[default]
    Pending,
    /// In force.
    Attached,
    /// The interface, cgroup or link does not exist (yet).
    Missing,
    /// The kernel refused: see the error.
    Failed,
}

impl AttachmentStatus {
    /// As written in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Attached => "attached",
            Self::Missing => "missing",
            Self::Failed => "failed",
        }
    }
}

/// Where an agent meets the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// How.
    pub kind: AttachmentKind,
    /// Name of the interface; `null` for a cgroup.
    pub interface: Option<String>,
    /// Index of the interface; `null` while there is none.
    pub ifindex: Option<u32>,
    /// How far it has come.
    pub status: AttachmentStatus,
    /// Why it is not attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What an operator should know of it all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// The hooks in use: `tcx`, `clsact`, `cgroup_skb`, `xdp+tcx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<String>,
    /// Path of the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The address or prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Attachment {
    /// What it is attached to: an interface's name, a cgroup's path, or an address and its link.
    #[must_use]
    pub fn target(&self) -> String {
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "?".into());
        match self.kind {
            AttachmentKind::Interface => named(&self.interface),
            AttachmentKind::Cgroup => named(&self.cgroup),
            AttachmentKind::Address => format!("{} on {}", named(&self.address), named(&self.interface)),
        }
    }
}

/// The latest trip that has not been followed by a return to CLOSED.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// Who tripped it: `kernel`, `daemon` or an operator.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// The score at that moment; the windows have started again since.
    pub risk: Risk,
    /// Its terms.
    pub contributions: Contributions,
}

/// Hard limits, each of which trips by itself; `null` when off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Wire bytes in the window.
    pub max_volume: Option<u64>,
    /// Unusual endpoints in the window.
    pub max_unusual_endpoints: Option<u32>,
    /// Failed authentications in the window.
    pub max_auth_failures: Option<u32>,
    /// Response time deviation.
    #[serde(default)]
    pub max_variance_ms: Option<f64>,
    /// Risk above which the circuit trips.
    pub quarantine_threshold: Risk,
}

/// What shadow mode let pass and enforcement would have dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldDrop {
    /// Wire bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// Frames judged, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// IPv4.
    pub ipv4: u64,
    /// IPv6.
    pub ipv6: u64,
    /// ARP.
    pub arp: u64,
    /// Any other ethertype.
    pub other: u64,
    /// Too short for, or at odds with, what it says it is.
    pub malformed: u64,
    /// A fragment after the first.
    pub fragment: u64,
}

impl Classes {
    /// Every class with its name.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("ipv4", self.ipv4),
            ("ipv6", self.ipv6),
            ("arp", self.arp),
            ("other", self.other),
            ("malformed", self.malformed),
            ("fragment", self.fragment),
        ]
    }
}

impl From<[u64; 6]> for Classes {
    /// In the order of [`agentsec_common::packet::Class`].
    fn from([ipv4, ipv6, arp, other, malformed, fragment]: [u64; 6]) -> Self {
        Self { ipv4, ipv6, arp, other, malformed, fragment }
    }
}

/// How many endpoints are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounts {
    /// That the agent opens.
    pub opened: u64,
    /// That the agent accepts.
    pub accepted: u64,
    /// Seen and not entered, since the agent's list was full.
    pub overflow: u64,
}

/// One agent of [`Status`](super::Status).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its name.
    pub id: String,
    /// Its circuit's state in force.
    pub state: State,
    /// Whether that is enforced.
    pub mode: Mode,
    /// The composite score.
    pub risk: Risk,
    /// What each term adds to it.
    pub contributions: Contributions,
    /// Counts transitions.
    pub epoch: u32,
    /// Sent by the agent.
    pub outbound: Direction,
    /// Sent to the agent.
    pub inbound: Direction,
    /// Where it meets the kernel.
    pub attachments: Vec<Attachment>,
    /// The trip that it is contained for, if any.
    pub tripped: Option<Trip>,
    /// Name of its profile.
    pub profile: String,
    /// Free words by which operators name several agents at once.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Its index in the kernel's maps.
    pub slot: u32,
    /// Trips so far, as the kernel counts them.
    pub trips: u32,
    /// Whether an operator holds it: no automatic probe.
    pub hold: bool,
    /// What happens next by itself, such as "probes in 12 s".
    pub next: Option<String>,
    /// The numbers that feed the score.
    pub signals: Signals,
    /// What trips by itself.
    pub limits: Limits,
    /// What shadow mode let pass.
    pub would_drop: WouldDrop,
    /// Frames judged.
    pub classes: Classes,
    /// Endpoints known.
    pub endpoints: EndpointCounts,
    /// Ways out of its network namespaces that no program of ours sees, in words.
    #[serde(default)]
    pub uncovered: Vec<String>,
    /// What the kernel has counted of requests and answers.
    #[serde(default)]
    pub totals: TotalCounts,
    /// What it could not count or tell.
    #[serde(default)]
    pub lost: LossCounts,
}

/// One agent of [`AgentList`](super::AgentList).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentSummary {
    /// Its name.
    pub id: String,
    /// Its circuit's state in force.
    pub state: State,
    /// Whether that is enforced.
    pub mode: Mode,
    /// The composite score.
    pub risk: Risk,
    /// Name of its profile.
    pub profile: String,
    /// Free words by which operators name several agents at once.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Where it meets the kernel.
    pub attachments: Vec<Attachment>,
}

impl From<&AgentStatus> for AgentSummary {
    fn from(agent: &AgentStatus) -> Self {
        Self {
            id: agent.id.clone(),
            state: agent.state,
            mode: agent.mode,
            risk: agent.risk,
            profile: agent.profile.clone(),
            tags: agent.tags.clone(),
            attachments: agent.attachments.clone(),
        }
    }
}
