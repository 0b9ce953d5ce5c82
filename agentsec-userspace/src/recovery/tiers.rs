//! Where snapshots lie and how much they take.
//!
//! What is recent is in memory without any doing of ours: the kernel keeps what was just written and read, gives it
//! up when memory is needed, and so bounds it better than a second copy could be. Here it is only counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::child::{self, Bounds, Cancel};
use super::store::Store;

/// What counts pages in memory.
const FINCORE: &str = "/usr/bin/fincore";
/// Files that it is given at once.
const AT_ONCE: usize = 500;

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
    if is_local && let Some(resident) = resident_bytes(Path::new(&store.restic.repository)) {
        let memory = Tier {
            tier: "memory".into(),
            location: "the page cache".into(),
            stored_bytes: Some(resident),
            ..Tier::default()
        };
        tiers.insert(0, memory);
    }
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
    files(path).iter().map(|(_, bytes)| bytes).sum()
}

/// Bytes of a directory's files that are in memory; `None` when nobody can tell.
fn resident_bytes(path: &Path) -> Option<u64> {
    let mut resident = 0;
    for files in files(path).chunks(AT_ONCE) {
        let mut command = Command::new(FINCORE);
        command.args(["--bytes", "--noheadings", "--output", "RES", "--"]);
        command.args(files.iter().map(|(path, _)| path));
        let bounds =
            Bounds { deadline: Duration::from_secs(5), cancel: &Cancel::default(), hear: &child::keep };
        child::lines(&mut command, bounds, |line| {
            let number = std::str::from_utf8(line).ok().and_then(|line| line.trim().parse::<u64>().ok());
            resident += number.unwrap_or_default();
        })
        .ok()?;
    }
    Some(resident)
}

/// Every file in a directory and below, with its size.
fn files(path: &Path) -> Vec<(PathBuf, u64)> {
    let (mut files, mut next) = (Vec::new(), vec![path.to_owned()]);
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => next.push(entry.path()),
                Ok(about) => files.push((entry.path(), about.len())),
                Err(_) => {}
            }
            if files.len() == COUNTED {
                return files;
            }
        }
    }
    files
}
