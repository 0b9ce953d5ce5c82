//! The daemon as the API shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::time::Timestamp;
use crate::record::anchor::AnchorState;

/// How many agents are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentsByState {
    /// Passing.
    #[serde(rename = "CLOSED")]
    pub closed: u32,
    /// Probing.
    #[serde(rename = "HALF_OPEN")]
    pub half_open: u32,
    /// Dropping.
    #[serde(rename = "OPEN")]
    pub open: u32,
}

impl AgentsByState {
    /// Counts one more agent.
    pub const fn add(&mut self, state: super::State) {
        match state {
            super::State::Closed => self.closed += 1,
            super::State::HalfOpen => self.half_open += 1,
            super::State::Open => self.open += 1,
        }
    }
}

/// Packets at our hooks that no known agent owns; they were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayPackets {
    /// The interface has no identity.
    pub unidentified_packets: u64,
    /// The slot has no policy.
    pub unpoliced_packets: u64,
}

impl From<agentsec_common::counters::Strays> for StrayPackets {
    fn from(strays: agentsec_common::counters::Strays) -> Self {
        Self {
            unidentified_packets: strays.unidentified_packets,
            unpoliced_packets: strays.unpoliced_packets,
        }
    }
}

/// What became of forensic events since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// Written to the log.
    pub written: u64,
    /// Waiting to be written.
    pub queued: u64,
    /// Lost, with a gap record in the log.
    pub lost: u64,
}

/// What became of evidence bundles since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleCounts {
    /// On the disk, their hash in the log or on its way there.
    pub collected: u64,
    /// Of those, such as lack something that could be known.
    pub partial: u64,
    /// Trips of which there is none.
    pub failed: u64,
    /// Made, and waiting for room on the disk.
    pub waiting: u64,
    /// Removed by retention.
    pub removed: u64,
}

/// What [`DaemonStatus::packet_sockets`] says when all is well.
pub const PACKET_SOCKETS_DENIED: &str = "denied to agents known by their cgroup";

/// The daemon of [`Status`](super::Status).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Seconds since it started, by the monotonic clock.
    pub uptime_s: u64,
    /// Path of its configuration.
    pub config: String,
    /// Time between two looks at the kernel's counts.
    pub interval_ms: u64,
    /// Version of the maps' layout.
    pub layout: u32,
    /// Where programs and maps are pinned.
    pub pin_path: String,
    /// Release of the kernel.
    pub kernel: String,
    /// How many agents are in each state.
    pub agents_by_state: AgentsByState,
    /// Packets that no known agent owns.
    pub strays: StrayPackets,
    /// What became of events.
    pub events: EventCounts,
    /// What became of evidence bundles.
    #[serde(default)]
    pub bundles: BundleCounts,
    /// How it stands with each anchor of the log.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub anchors: BTreeMap<String, AnchorState>,
    /// Samples of answers that were read.
    #[serde(default)]
    pub samples_read: u64,
    /// Those of which something could not be read.
    #[serde(default)]
    pub samples_cut: u64,
    /// Attachments that are still being worked on.
    pub attachments_pending: u32,
    /// What an operator should look at, in words.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// Whether agents known by their cgroup are denied packet sockets: [`PACKET_SOCKETS_DENIED`], or why not and what
    /// to do; nothing when there are no such agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet_sockets: Option<String>,
}
