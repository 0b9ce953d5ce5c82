//! What we know of an agent's snapshots, apart from the repository: who reads it can tell a snapshot that we made
//! from one that somebody put in its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::durable;
use super::error::Failure;
use super::moment::Moment;
use super::restic::Stored;

/// One snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Its id: the SHA-256 of its document in the repository.
    pub id: String,
    /// Id of its tree: a hash over everything in it. Its document names it, which is read after the snapshot was taken;
    /// the id, a hash over that document, stands for it until then.
    pub tree: Option<String>,
    /// Names what was taken together.
    pub point: String,
    /// When reading began.
    pub started: Moment,
    /// When the last byte had been read: what happened after it is not in it.
    pub finished: Moment,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were new to the repository.
    pub added: u64,
    /// Whether the agent was frozen meanwhile.
    pub frozen: bool,
    /// Files that vanished while they were to be read.
    pub vanished: u64,
    /// The snapshots that it fits, by agent.
    pub depends: BTreeMap<String, String>,
    /// When every byte of it was last read and found right, Unix nanoseconds.
    pub verified_ns: Option<u64>,
    /// What was wrong when it was last read.
    pub damaged: Option<String>,
    /// The incident that its agent, or one of its group, was brought back from to an earlier state: this one may be the
    /// attacker's.
    pub suspect: Option<String>,
    /// Whether it also lies in the second repository.
    pub copied: bool,
    /// Whether the repository no longer has it.
    pub missing: bool,
    /// Whether its content is in memory too. It is looked up, since a reboot changes it, and not written.
    #[serde(skip)]
    pub in_memory: bool,
    /// Who asked for it.
    pub by: String,
}

impl Record {
    /// Whether the repository's snapshot `found` is this one.
    #[must_use]
    pub fn is(&self, found: &Stored) -> bool {
        self.id == found.id && self.tree.as_ref().is_none_or(|tree| *tree == found.tree)
    }

    /// Whether its content lies anywhere else than in its repository.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        // What is elsewhere is known by its tree.
        self.tree.is_some() && (self.copied || self.in_memory)
    }

    /// Whether it is anywhere.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !self.missing || self.is_elsewhere()
    }

    /// Whether it was read as a whole, found right, and is still there: where it was read, or elsewhere.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verified_ns.is_some() && (self.is_elsewhere() || (self.damaged.is_none() && !self.missing))
    }

    /// Whether it is verified and nothing speaks against it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.is_verified() && self.suspect.is_none()
    }
}

/// All of an agent's snapshots, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    path: PathBuf,
    /// The snapshots.
    pub records: Vec<Record>,
}

impl Catalogue {
    /// Reads the catalogue in `directory`.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be understood.
    pub fn open(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join("catalogue.json");
        Ok(Self { records: durable::load(&path)?.unwrap_or_default(), path })
    }

    /// Makes it survive a crash.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn save(&self) -> Result<(), Failure> {
        durable::save(&self.path, &self.records)
    }

    /// The one snapshot whose id is, or begins with, `id`.
    ///
    /// # Errors
    ///
    /// When there is none or more than one.
    pub fn find(&self, id: &str) -> Result<&Record, Failure> {
        use super::error::Kind::NoSnapshot;
        let mut found = self.records.iter().filter(|record| !id.is_empty() && record.id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(record), None) => Ok(record),
            (None, _) => Err(Failure::new(NoSnapshot, format!("there is no snapshot `{id}`"))),
            (Some(_), Some(_)) => {
                Err(Failure::new(NoSnapshot, format!("more than one snapshot begins with `{id}`")))
            }
        }
    }

    /// Changes one snapshot's record.
    pub fn update(&mut self, id: &str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.iter_mut().find(|record| record.id == id) {
            change(record);
        }
    }

    /// Compares with what the repository has: what is gone is marked, a tree that was not known yet is
    /// noted, what was never made by us is returned.
    pub fn compare(&mut self, stored: &[Stored]) -> Vec<Stored> {
        for record in &mut self.records {
            // The id is a hash over the tree's, so a tree that differs cannot be.
            let found = stored.iter().find(|found| record.is(found));
            record.missing = found.is_none();
            if let Some(found) = found {
                record.tree = Some(found.tree.clone());
            }
        }
        let is_known = |found: &&Stored| self.records.iter().any(|record| record.id == found.id);
        stored.iter().filter(|found| !is_known(found)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record { id: id.into(), tree: Some(format!("tree-{id}")), verified_ns: Some(1), ..Record::default() }
    }

    fn stored(id: &str, tree: &str) -> Stored {
        Stored { id: id.into(), tree: tree.into(), time: String::new(), tags: Vec::new() }
    }

    #[test]
    fn a_swapped_snapshot_shows() {
        let mut catalogue =
            Catalogue { records: vec![record("a"), record("b"), record("c")], ..Catalogue::default() };
        let repository = [stored("a", "tree-a"), stored("b", "another"), stored("x", "tree-c")];
        let strangers = catalogue.compare(&repository);
        let verified: Vec<bool> = catalogue.records.iter().map(Record::is_verified).collect();
        assert_eq!(verified, [true, false, false], "one is another's tree, one is gone");
        assert_eq!(strangers, [stored("x", "tree-c")]);
    }

    #[test]
    fn a_tree_is_learned_once_and_from_the_snapshot_itself() {
        let unknown = Record { tree: None, ..record("a") };
        let mut catalogue = Catalogue { records: vec![unknown], ..Catalogue::default() };
        catalogue.compare(&[stored("x", "tree-x"), stored("a", "tree-a")]);
        assert_eq!(catalogue.records[0].tree.as_deref(), Some("tree-a"));
        catalogue.compare(&[stored("a", "another")]);
        assert_eq!(
            (catalogue.records[0].tree.as_deref(), catalogue.records[0].missing),
            (Some("tree-a"), true)
        );
    }

    #[test]
    fn a_snapshot_is_found_by_the_beginning_of_its_id_if_that_names_one() {
        let catalogue = Catalogue { records: vec![record("aa1"), record("ab2")], ..Catalogue::default() };
        assert_eq!(catalogue.find("ab").unwrap().id, "ab2");
        for id in ["a", "c", ""] {
            assert!(catalogue.find(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_catalogue_survives_and_one_that_is_spoilt_is_not_taken_for_empty() {
        let directory = tempfile::tempdir().unwrap();
        let mut catalogue = Catalogue::open(directory.path()).unwrap();
        catalogue.records.push(record("a"));
        catalogue.save().unwrap();
        assert_eq!(Catalogue::open(directory.path()).unwrap(), catalogue);
        std::fs::write(directory.path().join("catalogue.json"), "[{").unwrap();
        assert!(Catalogue::open(directory.path()).unwrap_err().message.contains("catalogue.json"));
    }
}
