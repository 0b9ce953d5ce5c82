//! Snapshots and plans as the API shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recovery::plan::Plan;
use crate::recovery::{Moment, Record};

/// One snapshot: one of an agent's options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its id.
    pub snapshot_id: String,
    /// Id of its tree.
    pub tree: String,
    /// When reading its state had ended, RFC 3339.
    pub timestamp: String,
    /// How long ago that is.
    pub age_s: u64,
    /// The snapshots that it fits, by agent.
    pub dependencies: BTreeMap<String, String>,
    /// Whether every byte was read again and found right.
    pub integrity_verified: bool,
    /// When, RFC 3339.
    pub verified_at: Option<String>,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// Whether it is from before the first suspicious event of the agent's incident; nothing when there is none.
    pub before_incident: Option<bool>,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were new to the repository.
    pub added_bytes: u64,
    /// Whether the agent was frozen meanwhile.
    pub frozen: bool,
    /// Whether it also lies in the second location.
    pub copied: bool,
    /// Who asked for it.
    pub by: String,
}

/// All of an agent's snapshots, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotList {
    /// The agent.
    pub agent: String,
    /// The first suspicious event of its incident, RFC 3339.
    pub suspicious_since: Option<String>,
    /// The snapshots.
    pub snapshots: Vec<SnapshotView>,
}

impl SnapshotList {
    /// The list of `records`, as of `now_ns` (Unix nanoseconds).
    #[must_use]
    pub fn new(agent: String, records: &[Record], since: Option<&Moment>, now_ns: u64) -> Self {
        let shown = crate::core::time::rfc3339;
        let view = |record: &Record| SnapshotView {
            snapshot_id: record.id.clone(),
            tree: record.tree.clone(),
            timestamp: record.finished.shown(),
            age_s: now_ns.saturating_sub(record.finished.wall_ns) / 1_000_000_000,
            dependencies: record.depends.clone(),
            integrity_verified: record.is_verified(),
            verified_at: record.verified_ns.map(shown),
            problem: match &record.damaged {
                _ if record.missing => Some("is no longer in its repository".into()),
                damaged => damaged.clone(),
            },
            before_incident: since.map(|since| record.finished.is_before(since)),
            files: record.files,
            bytes: record.bytes,
            added_bytes: record.added,
            frozen: record.frozen,
            copied: record.copied,
            by: record.by.clone(),
        };
        let snapshots = records.iter().rev().map(view).collect();
        Self { agent, suspicious_since: since.map(Moment::shown), snapshots }
    }
}

/// What a recovery would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// The agent.
    pub agent: String,
    /// The plan.
    pub plan: Plan,
    /// The first suspicious event of its incident, RFC 3339.
    pub suspicious_since: Option<String>,
}
