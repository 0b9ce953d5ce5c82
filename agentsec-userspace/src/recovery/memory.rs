//! What is recent once more in memory: a repository of restic's on a tmpfs, below the daemon's run directory and bounded
//! by configuration. It is there when the disk is damaged or a store cannot be reached; a reboot takes it away.

use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use super::catalogue::Record;
use super::child::Cancel;
use super::durable;
use super::error::Failure;
use super::restic::Restic;
use super::staging;
use super::tiers::directory_bytes;

/// Name of the directory below the run directory.
const HOME: &str = "snapshots";
/// What a file takes besides its content, in the tree that names it.
const NODE_BYTES: u64 = 512;

/// One agent's repository in memory.
#[derive(Clone, Debug)]
pub struct Memory {
    directory: PathBuf,
    most_bytes: u64,
}

/// A tree that is in memory. Whoever has the same tree has the same content, under whatever id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    tree: String,
}

/// What is below `run_dir` if that is memory: a directory on a disk would be a second copy of nothing new.
#[must_use]
pub fn home(run_dir: &Path) -> Option<PathBuf> {
    let is_memory = statfs(run_dir).is_ok_and(|about| about.filesystem_type() == TMPFS_MAGIC);
    is_memory.then(|| run_dir.join(HOME))
}

/// Gives up what is below `home` of agents that are none of `agents` any more.
pub fn sweep<'a>(home: &Path, agents: impl Iterator<Item = &'a str> + Clone) {
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !agents.clone().any(|agent| *agent == *name) {
            // What stays takes room until the next reboot, and does no other harm.
            let _ = staging::clear(&entry.path());
        }
    }
}

impl Memory {
    /// The memory of `agent` below `home`, of at most `most_bytes`.
    #[must_use]
    pub fn new(home: &Path, agent: &str, most_bytes: u64) -> Self {
        Self { directory: home.join(agent), most_bytes }
    }

    /// Keeps a snapshot in memory, beside or instead of older ones. Whether it fits; what is older goes either way if it
    /// does not, so that nothing in memory is taken for recent that is not.
    ///
    /// # Errors
    ///
    /// When it cannot be copied; then nothing is in memory.
    pub fn keep(&self, from: &Restic, record: &Record, cancel: &Cancel) -> Result<bool, Failure> {
        let Some(tree) = &record.tree else { return Ok(false) };
        let mut held = self.held();
        if held.iter().any(|held| held.tree == *tree) {
            return Ok(true);
        }
        let needed = record.bytes.saturating_add(record.files.saturating_mul(NODE_BYTES));
        if directory_bytes(&self.directory).saturating_add(needed) > self.most_bytes {
            self.clear()?;
            held.clear();
        }
        if needed > self.most_bytes {
            return Ok(false);
        }
        durable::private_directory(&self.directory)?;
        let copied = from
            .copy_to(&self.repository().to_string_lossy(), std::slice::from_ref(&record.id), cancel)
            .and_then(|()| {
                held.push(Held { tree: tree.clone() });
                durable::save(&self.file(), &held)
            });
        // More than was reckoned with is more than is allowed.
        let fits = copied.is_ok() && directory_bytes(&self.directory) <= self.most_bytes;
        if !fits {
            self.clear()?;
        }
        copied.map(|()| fits)
    }

    /// Notes of each record whether its content is in memory.
    pub fn mark(&self, records: &mut [Record]) {
        let held = self.held();
        for record in records {
            record.in_memory = held.iter().any(|held| record.tree.as_ref() == Some(&held.tree));
        }
    }

    /// Bytes that are in use.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        directory_bytes(&self.directory)
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.directory.join("repository")
    }

    /// Forgets everything.
    ///
    /// # Errors
    ///
    /// When something stays.
    pub fn clear(&self) -> Result<(), Failure> {
        // The list first: what is not on it is not there.
        durable::remove(&self.file())?;
        staging::clear(&self.directory)
    }

    fn file(&self) -> PathBuf {
        self.directory.join("held.json")
    }

    /// A list that is spoilt is of nothing: everything in it is elsewhere too.
    fn held(&self) -> Vec<Held> {
        durable::load(&self.file()).ok().flatten().unwrap_or_default()
    }
}
