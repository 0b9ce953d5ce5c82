//! Snapshots and plans as the API shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recovery::plan::Plan;
use crate::recovery::tiers::Tier;
use crate::recovery::{Moment, Record};

/// One snapshot: one of an agent's options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its id.
    pub snapshot_id: String,
    /// Id of its tree.
    pub tree: Option<String>,
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

/// Where every agent's snapshots lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Each agent's tiers.
    pub agents: BTreeMap<String, Vec<Tier>>,
}

impl Places {
    /// One line over everybody; nothing when nobody has snapshots.
    #[must_use]
    pub fn summary(&self, bytes: impl Fn(u64) -> String) -> Option<String> {
        let tiers = || self.agents.values().flatten();
        let snapshots: u64 = tiers()
            .filter(|tier| matches!(tier.tier.as_str(), "disk" | "remote"))
            .map(|tier| tier.snapshots)
            .sum();
        let stored = |name: &'static str| {
            let found = tiers().filter(move |tier| tier.tier == name);
            let total: u64 = found.clone().filter_map(|tier| tier.stored_bytes).sum();
            (found.count() > 0).then(|| format!("{} in tier {name}", bytes(total)))
        };
        let remote = tiers()
            .filter(|tier| tier.tier == "remote" || (tier.tier == "copy" && tier.stored_bytes.is_none()))
            .map(|tier| tier.snapshots)
            .sum::<u64>();
        let mut parts = vec![format!("{snapshots} of {} agents", self.agents.len())];
        parts.extend(["memory", "disk", "copy"].into_iter().filter_map(stored));
        if remote > 0 {
            parts.push(format!("{remote} in remote stores"));
        }
        (!self.agents.is_empty()).then(|| format!("snapshots: {}", parts.join(", ")))
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
