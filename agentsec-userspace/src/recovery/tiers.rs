//! Where snapshots lie and how much they take.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::core::time::rfc3339;

use super::catalogue::Record;
use super::lay_out::{COPY, MEMORY};
use super::store::Store;

/// The most entries that are counted in a repository: more are told as at least so much.
const COUNTED: usize = 1_000_000;

/// One place where an agent's snapshots lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// `memory`, `disk`, `remote` or `copy`.
    pub tier: String,
    /// The location, without passwords.
    pub location: String,
    /// Snapshots in it.
    pub snapshots: u64,
    /// Bytes of state in them, as if nothing were shared.
    pub state_bytes: u64,
    /// Bytes that they take, where that is known.
    pub stored_bytes: Option<u64>,
    /// When the newest in it that is verified was finished, RFC 3339.
    pub verified: Option<String>,
}

/// How new an agent's snapshots are: what tells that they are no longer taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// How many there are.
    pub snapshots: u64,
    /// When the newest was finished, Unix nanoseconds.
    pub newest_ns: Option<u64>,
    /// The same of the newest that is verified and from no incident: the first that a recovery thinks of.
    pub verified_ns: Option<u64>,
}

impl Freshness {
    /// Of these; what is no longer anywhere does not count.
    pub fn of<'a>(records: impl Iterator<Item = &'a Record> + Clone) -> Self {
        let there = records.filter(|record| record.is_there());
        let finished = |record: &Record| record.finished.wall_ns;
        Self {
            snapshots: there.clone().count() as u64,
            newest_ns: there.clone().map(finished).max(),
            verified_ns: there.filter(|record| record.is_good()).map(finished).max(),
        }
    }
}

/// An agent's tiers, the nearest first.
#[must_use]
pub fn of(store: &Store) -> Vec<Tier> {
    let records = store.catalogue().map(|catalogue| catalogue.records).unwrap_or_default();
    let tier = |name: &str, location: String, stored_bytes: Option<u64>| {
        let there: Vec<&Record> =
            records.iter().filter(|record| store.tiers_of(record).contains(&name)).collect();
        Tier {
            tier: name.into(),
            location,
            snapshots: there.len() as u64,
            state_bytes: there.iter().map(|record| record.bytes).sum(),
            stored_bytes,
            verified: Freshness::of(there.iter().copied()).verified_ns.map(rfc3339),
        }
    };
    let of_directory =
        |location: &str| location.starts_with('/').then(|| directory_bytes(Path::new(location)));
    let mut tiers = Vec::new();
    if let Some(memory) = &store.memory {
        let location = memory.repository().display().to_string();
        tiers.push(tier(MEMORY, location, Some(memory.used_bytes())));
    }
    tiers.push(tier(store.tier(), store.restic.shown(), of_directory(&store.restic.repository)));
    if let Some(copy) = &store.copy_to {
        tiers.push(tier(COPY, super::restic::shown(copy), of_directory(copy)));
    }
    tiers
}

/// Bytes of the files in a directory and below.
#[must_use]
pub fn directory_bytes(path: &Path) -> u64 {
    let (mut bytes, mut entries, mut next) = (0, 0, vec![path.to_owned()]);
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => next.push(entry.path()),
                Ok(about) => bytes += about.len(),
                Err(_) => {}
            }
            entries += 1;
            if entries == COUNTED {
                return bytes;
            }
        }
    }
    bytes
}
