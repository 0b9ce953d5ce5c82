//! Where snapshots lie and how much they take.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::store::Store;

/// The most entries that are counted in a repository: more are told as at least so much.
const COUNTED: usize = 1_000_000;

/// One place where an agent's snapshots lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// `disk`, `remote` or `copy`.
    pub tier: String,
    /// The location, without passwords.
    pub location: String,
    /// Snapshots in it.
    pub snapshots: u64,
    /// Bytes of state in them, as if nothing were shared.
    pub state_bytes: u64,
    /// Bytes that they take, where that is known.
    pub stored_bytes: Option<u64>,
}

/// An agent's tiers.
#[must_use]
pub fn of(store: &Store) -> Vec<Tier> {
    let records = store.catalogue().map(|catalogue| catalogue.records).unwrap_or_default();
    let is_local = store.restic.is_local();
    let there: Vec<_> = records.iter().filter(|record| !record.missing).collect();
    let mut tiers = vec![Tier {
        tier: if is_local { "disk" } else { "remote" }.into(),
        location: store.restic.shown(),
        snapshots: there.len() as u64,
        state_bytes: there.iter().map(|record| record.bytes).sum(),
        stored_bytes: is_local.then(|| directory_bytes(Path::new(&store.restic.repository))),
    }];
    if let Some(other) = &store.copy_to {
        let copied: Vec<_> = records.iter().filter(|record| record.copied).collect();
        tiers.push(Tier {
            tier: "copy".into(),
            location: super::restic::shown(other),
            snapshots: copied.len() as u64,
            state_bytes: copied.iter().map(|record| record.bytes).sum(),
            stored_bytes: other.starts_with('/').then(|| directory_bytes(Path::new(other))),
        });
    }
    tiers
}

/// Bytes of the files in a directory and below.
#[must_use]
pub fn directory_bytes(path: &Path) -> u64 {
    let (mut total, mut next, mut seen) = (0, vec![path.to_owned()], 0);
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            seen += 1;
            match entry.metadata() {
                Ok(about) if about.is_dir() => next.push(entry.path()),
                Ok(about) => total += about.len(),
                Err(_) => {}
            }
            if seen == COUNTED {
                return total;
            }
        }
    }
    total
}
