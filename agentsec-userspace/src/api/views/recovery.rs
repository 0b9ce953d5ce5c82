//! Snapshots and plans as the API shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recovery::Moment;
use crate::recovery::lay_out::{COPY, DISK, MEMORY, REMOTE};
use crate::recovery::plan::Plan;
use crate::recovery::service::Offer;
use crate::recovery::testimony::Attested;
use crate::recovery::tiers::Tier;

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
    /// Whether the forensic log says that it is ours; nothing when it cannot say.
    pub attested: Option<bool>,
    /// Why not, or why it cannot.
    pub doubt: Option<String>,
    /// Whether it is from before the first suspicious event of the agent's incident; nothing when there is none.
    pub before_incident: Option<bool>,
    /// The earlier incident that it is from, which was answered with a snapshot from before it.
    #[serde(default)]
    pub suspect: Option<String>,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were new to the repository.
    pub added_bytes: u64,
    /// Whether the agent was frozen meanwhile.
    pub frozen: bool,
    /// Where it lies, the nearest first: `memory`, `disk` or `remote`, `copy`.
    pub tiers: Vec<String>,
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
    /// The list of `offers`, oldest first, as of `now_ns` (Unix nanoseconds).
    #[must_use]
    pub fn new(agent: String, offers: &[Offer], since: Option<&Moment>, now_ns: u64) -> Self {
        let snapshots = offers.iter().rev().map(|offer| view(offer, since, now_ns)).collect();
        Self { agent, suspicious_since: since.map(Moment::shown), snapshots }
    }
}

fn view(Offer { record, tiers, attested }: &Offer, since: Option<&Moment>, now_ns: u64) -> SnapshotView {
    let shown = crate::core::time::rfc3339;
    let (attested, doubt) = match attested {
        Attested::Yes => (Some(true), None),
        Attested::No(why) => (Some(false), Some(why.clone())),
        Attested::Unknown(why) => (None, Some(why.clone())),
    };
    SnapshotView {
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
        attested,
        doubt,
        before_incident: since.map(|since| record.finished.is_before(since)),
        suspect: record.suspect.clone(),
        files: record.files,
        bytes: record.bytes,
        added_bytes: record.added,
        frozen: record.frozen,
        tiers: tiers.iter().map(|tier| (*tier).to_owned()).collect(),
        by: record.by.clone(),
    }
}

/// Where every agent's snapshots lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Each agent's tiers.
    pub agents: BTreeMap<String, Vec<Tier>>,
}

/// One tier over all agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierTotal {
    /// `memory`, `disk`, `remote` or `copy`.
    pub tier: String,
    /// Agents with snapshots in it.
    pub agents: u64,
    /// Their snapshots in it.
    pub snapshots: u64,
    /// Bytes of state in them, as if nothing were shared.
    pub state_bytes: u64,
    /// Bytes that they take; `None` when that is not known of every one.
    pub stored_bytes: Option<u64>,
    /// The first location; the others are beside it.
    pub location: String,
}

impl Places {
    /// Each tier over everybody, the nearest first.
    #[must_use]
    pub fn totals(&self) -> Vec<TierTotal> {
        let total = |name: &str| {
            let tiers: Vec<&Tier> = self.agents.values().flatten().filter(|tier| tier.tier == name).collect();
            let first = tiers.first()?;
            Some(TierTotal {
                tier: name.to_owned(),
                agents: tiers.iter().filter(|tier| tier.snapshots > 0).count() as u64,
                snapshots: tiers.iter().map(|tier| tier.snapshots).sum(),
                state_bytes: tiers.iter().map(|tier| tier.state_bytes).sum(),
                stored_bytes: tiers.iter().map(|tier| tier.stored_bytes).sum(),
                location: match tiers.len() {
                    1 => first.location.clone(),
                    several => format!("{} and {} more", first.location, several - 1),
                },
            })
        };
        [MEMORY, DISK, REMOTE, COPY].into_iter().filter_map(total).collect()
    }
}

/// What came of a restore that the daemon had no part in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// The directory that it went to.
    pub to: String,
    /// Where it was read; nothing when it was not.
    pub read_from: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_added_up_and_what_is_not_known_of_one_is_not_known_of_all() {
        let tier = |tier: &str, snapshots, stored_bytes| Tier {
            tier: tier.into(),
            location: format!("/{tier}"),
            snapshots,
            state_bytes: 10 * snapshots,
            stored_bytes,
            verified: None,
        };
        let agents = [
            ("a".to_owned(), vec![tier(MEMORY, 1, Some(5)), tier(DISK, 3, Some(9)), tier(COPY, 2, Some(4))]),
            ("b".to_owned(), vec![tier(MEMORY, 0, Some(0)), tier(REMOTE, 4, None), tier(COPY, 4, None)]),
        ];
        let totals = Places { agents: agents.into() }.totals();
        let told: Vec<_> = totals
            .iter()
            .map(|total| (total.tier.as_str(), total.agents, total.snapshots, total.stored_bytes))
            .collect();
        let expected =
            [(MEMORY, 1, 1, Some(5)), (DISK, 1, 3, Some(9)), (REMOTE, 1, 4, None), (COPY, 2, 6, None)];
        assert_eq!(told, expected);
        assert_eq!((totals[0].location.as_str(), totals[1].state_bytes), ("/memory and 1 more", 30));
        assert_eq!(Places::default().totals(), []);
    }
}
