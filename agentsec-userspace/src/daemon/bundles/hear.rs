//! Records what became of bundles.

use serde_json::{Value, json};

use crate::bundle::DIRECTORY;
use crate::bundle::store::{About, Swept};
use crate::bundle::{Status, Told, Trip};
use crate::clock;
use crate::core::{Draft, EventKind};
use crate::record::writer::QUEUE_EVENTS;

use super::super::Daemon;
use super::Unlogged;

impl Daemon {
    /// Takes one thing that is told about bundles. A bundle whose event finds no room would never be in the log, so it is heard
    /// when there is some; a daemon that ends before leaves it to the next one.
    pub(in crate::daemon) fn hear_bundle(&mut self, told: Told) {
        self.bundles.unheard.push_back(told);
        self.hear_unheard();
        self.confirm_bundles();
    }

    /// Takes what was told, in its order, as far as the log has room.
    pub(super) fn hear_unheard(&mut self) {
        while let Some(told) = self.bundles.unheard.front()
            && self.log.has_room_for(events_of(told))
            && let Some(told) = self.bundles.unheard.pop_front()
        {
            self.hear_told_of_bundle(told);
        }
    }

    fn hear_told_of_bundle(&mut self, told: Told) {
        match told {
            Told::Swept(swept) => self.hear_swept(*swept),
            Told::Stored { about, waited } => {
                self.bundles.counts.waiting -= u64::from(waited);
                if self.bundles.counts.waiting == 0 {
                    self.alerts.retain(|alert| !alert.starts_with("bundles:"));
                }
                self.hear_stored(&about);
            }
            Told::Waits { trip, error } => {
                // Not lost yet: it is recorded once it is stored.
                self.bundles.counts.waiting += 1;
                self.complain("bundles", &anyhow::anyhow!("{error}; that of {} waits in memory", trip.agent));
            }
            Told::Failed { trip, error } => {
                self.bundles.counts.failed += 1;
                self.complain("bundles", &anyhow::anyhow!("none of {}: {error}", trip.agent));
                let data = json!({
                    "action_type": "EVIDENCE_FAILED",
                    "error": error,
                });
                self.record_evidence(&trip, data);
            }
            Told::Removing { about, why } => {
                self.bundles.counts.removed += 1;
                self.record_removed(&about, why);
            }
            Told::Problem(problem) => self.complain("bundles", &anyhow::anyhow!(problem)),
        }
    }

    fn hear_stored(&mut self, about: &About) {
        self.bundles.counts.collected += 1;
        let is_partial = status_of(about) != Status::Complete.name();
        self.bundles.counts.partial += u64::from(is_partial);
        self.record_evidence(&about.trip, collected(about));
        self.bundles.unlogged.push(Unlogged::Keep(about.bundle_id.clone()));
        // There may be one too many now.
        self.bundles.next_tend_ns = 0;
    }

    fn record_removed(&mut self, about: &About, why: &str) {
        let data = json!({
            "action_type": "EVIDENCE_REMOVED",
            "reason": why,
            "bundle": about.bundle_id,
            "sha256": about.sha256,
            "bytes": about.bytes,
        });
        self.record_evidence(&about.trip, data);
        self.bundles.unlogged.push(Unlogged::Remove(about.bundle_id.clone()));
    }

    /// What an earlier daemon has left: told, and collected late where the agent is still contained.
    fn hear_swept(&mut self, swept: Swept) {
        for problem in swept.problems {
            self.complain("bundles", &anyhow::anyhow!(problem));
        }
        for about in &swept.unlogged {
            self.hear_stored(about);
        }
        for about in &swept.removing {
            self.record_removed(about, "left by an earlier daemon");
        }
        for about in &swept.unfinished {
            self.bundles.counts.failed += 1;
            let data = json!({
                "action_type": "EVIDENCE_LOST",
                "error": "the daemon ended before the bundle was on the disk",
                "bundle": about.bundle_id,
            });
            self.record_evidence(&about.trip, data);
        }
        for trip in std::mem::take(&mut self.bundles.found_open) {
            let has_one = swept
                .trips
                .iter()
                .any(|known| known.is(&trip.agent, trip.incident.as_deref(), &trip.tripped_at));
            if !has_one {
                self.order_bundle(trip, Value::Null);
            }
        }
    }

    /// An event about a trip's evidence, with what all of them say.
    fn record_evidence(&mut self, trip: &Trip, mut data: Value) {
        if let Value::Object(fields) = &mut data {
            fields.insert("automated".into(), true.into());
            fields.insert("by".into(), "daemon".into());
            fields.insert("trigger_reason".into(), trip.reason.clone().into());
            fields.insert("tripped_at".into(), trip.tripped_at.clone().into());
            fields.insert("late".into(), trip.late.clone().into());
        }
        let now = clock::now();
        let draft = Draft {
            agent_id: Some(trip.agent.clone()),
            correlation_id: trip.incident.clone(),
            ..Draft::daemon(now, EventKind::Evidence, data)
        };
        self.record(now, draft);
    }
}

/// How many events become of what is told.
fn events_of(told: &Told) -> u64 {
    match told {
        Told::Swept(swept) => {
            let events = swept.unlogged.len() + swept.removing.len() + swept.unfinished.len();
            QUEUE_EVENTS.min(events as u64)
        }
        Told::Stored { .. } | Told::Failed { .. } | Told::Removing { .. } => 1,
        Told::Waits { .. } | Told::Problem(_) => 0,
    }
}

/// What the log says of a bundle.
fn collected(about: &About) -> Value {
    json!({
        "action_type": "EVIDENCE_COLLECTED",
        "bundle": about.bundle_id,
        "file": format!("{DIRECTORY}/{}/{}", about.bundle_id, about.file),
        "sha256": about.sha256,
        "bytes": about.bytes,
        "recipients": about.recipients,
        "status": status_of(about),
        "parts": about.parts,
        "took_ms": about.took_ms,
        "hashed_late": about.hashed_late,
    })
}

/// Of the whole: what cannot be known at all makes nothing partial.
fn status_of(about: &About) -> &'static str {
    let lacks = |status: &Status| matches!(status, Status::Partial | Status::Failed);
    if about.parts.is_empty() {
        "unknown"
    } else if about.parts.values().any(lacks) {
        Status::Partial.name()
    } else {
        Status::Complete.name()
    }
}
