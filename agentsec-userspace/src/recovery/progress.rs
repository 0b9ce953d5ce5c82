//! How far a recovery has come, on the disk before each step: whoever starts next knows what to do.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::durable;
use super::error::Failure;
use super::moment::Moment;
use super::plan::Plan;
use super::staging::Target;

/// One agent's part of a recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The restored state, before it changes places; and afterwards what was there before.
    pub laid_out: Option<PathBuf>,
    /// The staging directory that it is in.
    pub place: Option<PathBuf>,
    /// Where it was read, in words: a tier, and those that should have had it and did not.
    #[serde(default)]
    pub read_from: String,
    /// Where it goes, unless a command takes it.
    pub target: Option<Target>,
    /// Device and number of the restored directory: tells whether it has changed places.
    pub identity: Option<(u64, u64)>,
    /// Whether the agent was stopped, or may have been.
    pub stopped: bool,
    /// Whether the state was, or may have been, put in place.
    pub placed: bool,
}

impl Part {
    /// Whether the restored directory is in the target's place.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        match (&self.target, self.identity) {
            (Some(target), Some(identity)) => identity_of(&target.path()) == Some(identity),
            _ => self.placed,
        }
    }

    /// Whether a command has, or may have, begun to take the state: that cannot be undone.
    #[must_use]
    pub fn is_fed(&self) -> bool {
        self.placed && self.target.is_none()
    }
}

/// Device and number of a directory.
#[must_use]
pub fn identity_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

/// A recovery that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The agent that is brought back, with those that it depends on.
    pub agent: String,
    /// What is done.
    pub plan: Plan,
    /// Each agent's part.
    pub parts: BTreeMap<String, Part>,
    /// Who asked for it.
    pub by: String,
    /// Whether nobody did.
    pub automated: bool,
    /// The incident that it answers.
    pub incident: Option<String>,
    /// When the first of the group became suspicious.
    #[serde(default)]
    pub since: Option<Moment>,
    /// How it ended, when that is all that is left to be told.
    #[serde(default)]
    pub ended: Option<End>,
}

/// How a recovery ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Everybody is restored and started.
    Well,
    /// It failed; why, and what was left.
    Badly(String),
}

/// What becomes of a recovery that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It goes on: something is in place already, and half a group would not fit together.
    Forward,
    /// It is undone: nothing has changed but what was laid out and who was stopped.
    Back,
}

impl Progress {
    /// Which way an interrupted recovery goes. `is_in_place` tells it of each part.
    #[must_use]
    pub fn way(&self, is_in_place: impl Fn(&Part) -> bool) -> Way {
        if self.parts.values().any(|part| part.placed && is_in_place(part)) {
            Way::Forward
        } else {
            Way::Back
        }
    }

    /// Where it is kept.
    #[must_use]
    pub fn file(home: &Path, agent: &str) -> PathBuf {
        home.join("recovering").join(format!("{agent}.json"))
    }

    /// Makes it survive a crash.
    ///
    /// # Errors
    ///
    /// When it cannot be written: then nothing further may be done.
    pub fn save(&self, home: &Path) -> Result<(), Failure> {
        durable::private_directory(&home.join("recovering"))?;
        durable::save(&Self::file(home, &self.agent), self)
    }

    /// Every recovery that was interrupted. Files that cannot be understood are errors of their own.
    #[must_use]
    pub fn left(home: &Path) -> Vec<Result<Self, Failure>> {
        let Ok(entries) = std::fs::read_dir(home.join("recovering")) else { return Vec::new() };
        let files = entries.flatten().map(|entry| entry.path());
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| durable::load(&path).transpose())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_in_place_goes_on_and_anything_before_goes_back() {
        let part = |stopped, placed| Part { stopped, placed, ..Part::default() };
        let of = |parts: &[(&str, Part)]| Progress {
            parts: parts.iter().map(|(name, part)| ((*name).to_owned(), part.clone())).collect(),
            ..Progress::default()
        };
        for (parts, expected) in [
            (vec![("a", part(false, false)), ("b", part(false, false))], Way::Back),
            (vec![("a", part(true, false)), ("b", part(true, false))], Way::Back),
            (vec![("a", part(true, true)), ("b", part(true, false))], Way::Forward),
        ] {
            assert_eq!(of(&parts).way(Part::is_in_place), expected, "{parts:?}");
        }
        let said_only = of(&[("a", part(true, true))]);
        assert_eq!(
            said_only.way(|_| false),
            Way::Back,
            "it was about to be put in place when the daemon died"
        );
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let home = tempfile::tempdir().unwrap();
        assert!(Progress::left(home.path()).is_empty());
        let progress = Progress { agent: "a".into(), automated: true, ..Progress::default() };
        progress.save(home.path()).unwrap();
        assert_eq!(Progress::left(home.path()), [Ok(progress)]);
        std::fs::write(Progress::file(home.path(), "b"), "{").unwrap();
        assert_eq!(Progress::left(home.path()).iter().filter(|left| left.is_err()).count(), 1);
    }
}
