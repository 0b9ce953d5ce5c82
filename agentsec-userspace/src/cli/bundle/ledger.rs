//! What the log says of bundles, and of trips that should have one. Only intact events count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::super::error::CliError;
use super::super::exit::Exit;
use crate::bundle::Trip;
use crate::bundle::store::Store;
use crate::core::EventKind;
use crate::record::ask::ask;
use crate::record::evidence::{EvidenceSource, LOG_NAME};
use crate::record::index::Files;
use crate::record::query::EventQuery;
use crate::record::{Event, intact};

/// What the log says.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Bundles that were collected, by id.
    pub(super) collected: BTreeMap<String, Said>,
    /// Ids of those that were removed.
    pub(super) removed: BTreeSet<String>,
    /// Trips, in the order of the log.
    pub(super) trips: Vec<Trip>,
    /// Why trips have no bundle.
    pub(super) failures: Vec<(Trip, String)>,
    /// Events that are not intact.
    pub(super) flawed: u64,
}

/// What it says of one bundle.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) trip: Trip,
    /// Every hash that it names: more than one means that somebody has added another.
    pub(super) hashes: BTreeSet<String>,
    pub(super) at: String,
    pub(super) bytes: u64,
    pub(super) recipients: u64,
    pub(super) status: String,
    pub(super) parts: Value,
}

impl Ledger {
    /// Reads the log of a state directory. Where only bundles are left it says nothing of them, and that is told.
    pub(super) fn read(state_dir: &Path) -> Result<Self, CliError> {
        let path = state_dir.join(LOG_NAME);
        if !path.exists() && Store::of(state_dir).list().is_ok_and(|(notes, _)| !notes.is_empty()) {
            eprintln!("agentsec: there is no log {}: bundles cannot be compared with it", path.display());
            return Ok(Self::default());
        }
        std::fs::read_dir(&path).map_err(|error| {
            let remedy = "run this as root, and name the daemon's directory with --state-dir";
            CliError::new(Exit::Refused, format!("the log {}: {error}", path.display()), Some(remedy))
        })?;
        let (source, index) = (EvidenceSource::in_state(state_dir), Files::in_state(state_dir));
        let types = [EventKind::ContainmentAction, EventKind::Evidence].map(|kind| kind.name().to_owned());
        let query = EventQuery { types: types.to_vec(), ..EventQuery::default() };
        let mut ledger = Self::default();
        ask(&source, &index, &query, |line| ledger.take(line))
            .map_err(|error| CliError::failure(format!("reading the log: {error}")))?;
        Ok(ledger)
    }

    fn take(&mut self, line: &[u8]) {
        match intact(line) {
            Some(event) => self.tell(&event),
            None => self.flawed += 1,
        }
    }

    fn tell(&mut self, event: &Event) {
        let data = &event.event_data;
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let trip = |at: &Value| Trip {
            agent: event.agent_id.clone().unwrap_or_default(),
            incident: event.correlation_id.clone(),
            tripped_at: at.as_str().unwrap_or_default().to_owned(),
            by: data["tripped"]["by"].as_str().unwrap_or_default().to_owned(),
            reason: text("trigger_reason"),
            late: data["late"].as_str().map(str::to_owned),
        };
        match (event.event_type, data["action_type"].as_str().unwrap_or_default()) {
            (EventKind::ContainmentAction, "QUARANTINE") => self.trips.push(trip(&data["tripped"]["at"])),
            (EventKind::Evidence, "EVIDENCE_COLLECTED") => {
                let said = self.collected.entry(text("bundle")).or_insert_with(|| Said {
                    trip: trip(&data["tripped_at"]),
                    at: event.timestamp.clone(),
                    bytes: data["bytes"].as_u64().unwrap_or(0),
                    recipients: data["recipients"].as_u64().unwrap_or(0),
                    status: text("status"),
                    parts: data["parts"].clone(),
                    hashes: BTreeSet::new(),
                });
                said.hashes.insert(text("sha256"));
            }
            (EventKind::Evidence, "EVIDENCE_REMOVED") => drop(self.removed.insert(text("bundle"))),
            (EventKind::Evidence, "EVIDENCE_FAILED" | "EVIDENCE_LOST") => {
                self.failures.push((trip(&data["tripped_at"]), text("error")));
            }
            _ => {}
        }
    }

    /// Trips without a bundle, each with why, as far as the log says so.
    pub(super) fn without(&self) -> Vec<(&Trip, Option<&str>)> {
        let same = |a: &Trip, b: &Trip| a.is(&b.agent, b.incident.as_deref(), &b.tripped_at);
        let lacks = |trip: &&Trip| !self.collected.values().any(|said| same(&said.trip, trip));
        let why = |trip: &Trip| {
            let failed = self.failures.iter().rev().find(|(failed, _)| same(failed, trip));
            failed.map(|(_, why)| why.as_str())
        };
        self.trips.iter().filter(lacks).map(|trip| (trip, why(trip))).collect()
    }
}
