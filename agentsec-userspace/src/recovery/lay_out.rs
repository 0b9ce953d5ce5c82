//! Where a snapshot can be read, and laying it out from the nearest place that has it whole.

use std::path::PathBuf;

use super::catalogue::Record;
use super::child::Cancel;
use super::error::{Failure, Kind};
use super::restic::{Restic, Stored};
use super::staging::{self, Target};
use super::store::Store;

/// Snapshots in memory.
pub const MEMORY: &str = "memory";
/// Snapshots in a directory of this machine.
pub const DISK: &str = "disk";
/// Snapshots in a store elsewhere.
pub const REMOTE: &str = "remote";
/// Snapshots that were copied to the second location.
pub const COPY: &str = "copy";

/// A snapshot that was laid out.
#[derive(Debug)]
pub struct LaidOut {
    /// The state.
    pub directory: PathBuf,
    /// The private directory that it is in.
    pub place: PathBuf,
    /// Where it was read.
    pub tier: &'static str,
    /// Where it could not be read, though it should have been there.
    pub passed_over: Vec<(&'static str, Failure)>,
}

impl LaidOut {
    /// Where it was read, in words.
    #[must_use]
    pub fn read_from(&self) -> String {
        let failed = self.passed_over.iter().map(|(tier, failure)| format!("; not from {tier}: {failure}"));
        std::iter::once(self.tier.to_owned()).chain(failed).collect()
    }
}

impl Store {
    /// Lays a snapshot out in a private directory on the file system of `target`, from the nearest place that has it
    /// whole. restic checks each piece while it reads it, so when this succeeds the whole snapshot was right.
    ///
    /// # Errors
    ///
    /// When nobody has it whole, or there is no room; what was laid out is removed.
    pub fn lay_out(
        &self,
        id: &str,
        target: &Target,
        name: &str,
        cancel: &Cancel,
    ) -> Result<LaidOut, Failure> {
        let record = self.catalogue()?.find(id)?.clone();
        let mut passed_over = Vec::new();
        for (tier, restic) in self.sources(&record) {
            let place = staging::prepare(&self.staging, target, name)?;
            let laid_out = staging::check_room(&place, record.bytes)
                .and_then(|()| identified(&restic, &record, tier == self.tier(), cancel))
                .and_then(|id| restic.restore(&id, &place, cancel))
                .and_then(|()| staging::only_directory(&place));
            match laid_out {
                Ok(directory) => return Ok(LaidOut { directory, place, tier, passed_over }),
                Err(failure) => {
                    staging::clear(&place)?;
                    // Another place would not help.
                    if matches!(failure.kind, Kind::NoSpace | Kind::Target | Kind::Cancelled) {
                        return Err(failure);
                    }
                    passed_over.push((tier, failure));
                }
            }
        }
        Err(nowhere(passed_over, self.tier()))
    }

    /// Where [`Self::lay_out`] lays out: known before anything is there, so that whoever is killed meanwhile has said so.
    ///
    /// # Errors
    ///
    /// When there is no safe place.
    pub fn place(&self, target: &Target, name: &str) -> Result<PathBuf, Failure> {
        staging::place(&self.staging, target, name)
    }

    /// What its own repository is: [`DISK`] or [`REMOTE`].
    #[must_use]
    pub fn tier(&self) -> &'static str {
        if self.restic.is_local() { DISK } else { REMOTE }
    }

    /// Where a snapshot lies, as far as we know: the nearest first.
    #[must_use]
    pub fn tiers_of(&self, record: &Record) -> Vec<&'static str> {
        let tiers = [(MEMORY, record.in_memory), (self.tier(), !record.missing), (COPY, record.copied)];
        tiers.into_iter().filter(|(_, is_there)| *is_there).map(|(tier, _)| tier).collect()
    }

    /// The repositories that a snapshot may be read from, the nearest first. Its own is asked in any case.
    fn sources(&self, record: &Record) -> Vec<(&'static str, Restic)> {
        let at = |repository: String| Restic { repository, ..self.restic.clone() };
        let memory = self.memory.as_ref().filter(|_| record.in_memory);
        let copy = self.copy_to.as_ref().filter(|_| record.copied && record.tree.is_some());
        let mut sources = Vec::new();
        sources.extend(memory.map(|memory| (MEMORY, at(memory.repository().to_string_lossy().into()))));
        sources.push((self.tier(), self.restic.clone()));
        sources.extend(copy.map(|copy| (COPY, at(copy.clone()))));
        sources
    }
}

/// The id under which a repository has a snapshot: its own there, and in a copy that of the same tree.
fn identified(restic: &Restic, record: &Record, is_own: bool, cancel: &Cancel) -> Result<String, Failure> {
    let found = restic.snapshots(is_own.then_some(record.id.as_str()), cancel)?;
    let fits = |stored: &&Stored| {
        if is_own { record.is(stored) } else { record.tree.as_ref() == Some(&stored.tree) }
    };
    if is_own && found.is_empty() {
        let message = format!("the repository no longer has snapshot {}", record.id);
        return Err(Failure::new(Kind::NoSnapshot, message));
    }
    found.iter().find(fits).map(|stored| stored.id.clone()).ok_or_else(|| {
        let message = format!("the repository's snapshot {} is not the one that was made", record.id);
        Failure::new(Kind::Damaged, message)
    })
}

/// Why no place gave it: of the kind that its own repository had, which is among them.
fn nowhere(mut passed_over: Vec<(&'static str, Failure)>, own: &str) -> Failure {
    if passed_over.len() == 1 {
        return passed_over.remove(0).1;
    }
    let kind = passed_over.iter().find(|(tier, _)| *tier == own).map_or(Kind::Other, |(_, own)| own.kind);
    let all: Vec<String> = passed_over.iter().map(|(tier, failure)| format!("{tier}: {failure}")).collect();
    Failure::new(kind, all.join("; "))
}
