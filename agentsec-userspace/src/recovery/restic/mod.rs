//! The program restic, driven as a child process: the only place that knows its command line and its words.
//!
//! What it does is not taken on trust where its exit code cannot be: see [`Restic::verify`].

mod answer;
mod complaint;
mod location;
mod run;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use super::child::{self, Bounds, Cancel, Heard};
use super::error::{Failure, Kind};
use super::local;
use answer::{Counted, Node};
use complaint::Missed;

pub use answer::{Found, Stored, Written};
pub use location::{environment, shown};

/// Tag of every snapshot that we make.
pub const TAG: &str = "agentsec";

/// What restic says when it ends with code 3.
const INCOMPLETE: &str = "at least one source file";

/// One repository and how to reach it.
#[derive(Clone, Debug)]
pub struct Restic {
    /// The program.
    pub program: PathBuf,
    /// A directory or a location as restic takes it.
    pub repository: String,
    /// The key file.
    pub key_file: PathBuf,
    /// Where restic may keep what it can have again.
    pub cache: PathBuf,
    /// More environment: an object store's credentials.
    pub environment: BTreeMap<OsString, OsString>,
    /// The most that one run may take.
    pub deadline: Duration,
    /// Whether to leave the processors to others.
    pub nice: bool,
}

/// How far something is: done of all, in bytes.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

impl Restic {
    /// Whether the repository is a directory of this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.repository.starts_with('/')
    }

    /// Makes the repository, unless it is there.
    ///
    /// # Errors
    ///
    /// When it cannot be made or opened.
    pub fn ensure(&self, cancel: &Cancel) -> Result<(), Failure> {
        if self.is_local() && Path::new(&self.repository).join("config").is_file() {
            return Ok(());
        }
        match self.run(&["init", "--quiet"], cancel, |_| {}) {
            Ok(_) => Ok(()),
            // Somebody else was quicker, or a remote one has been there all along.
            Err(failure) if failure.message.contains("already") => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Opens the repository and closes it again.
    ///
    /// # Errors
    ///
    /// When it is not there, cannot be reached, or the key is not its.
    pub fn open(&self, cancel: &Cancel) -> Result<(), Failure> {
        self.run(&["cat", "config", "--no-lock"], cancel, |_| {}).map(drop)
    }

    /// Stores `name` of the directory `parent`; the beginning of the snapshot's id, or all of it.
    ///
    /// # Errors
    ///
    /// When anything of it could not be read: what was stored then is no snapshot of ours.
    pub fn backup(
        &self,
        parent: &Path,
        name: &OsStr,
        tags: &[String],
        cancel: &Cancel,
        progress: Progress<'_>,
    ) -> Result<(String, Written), Failure> {
        let mut command = self.command();
        // Relative, so that the tree begins with the directory itself and not with all that is above it.
        let mut target = OsString::from("./");
        target.push(name);
        command.current_dir(parent).args(["backup", "--json", "--host", TAG, "--tag", TAG]);
        for tag in tags {
            command.arg("--tag").arg(tag);
        }
        command.arg("--").arg(target);
        let mut summary = None;
        let missed = Mutex::new(Missed::since(parent));
        let hear = |line: &str| missed.lock().map_or(Heard::Kept, |mut missed| missed.hear(line));
        let bounds = Bounds { hear: &hear, ..self.bounds(cancel) };
        let result = self.end(command, bounds, |line| {
            let Ok(message) = serde_json::from_slice::<Value>(line) else { return };
            match message["message_type"].as_str() {
                Some("status") => {
                    let number = |key: &str| message[key].as_u64().unwrap_or_default();
                    progress(number("bytes_done"), number("total_bytes"));
                }
                Some("summary") => summary = Some(message),
                _ => {}
            }
        });
        let Missed { vanished, unread, .. } = missed.into_inner().unwrap_or_default();
        let said = match result {
            Ok(ended) => ended.said,
            Err(failure) if failure.message.contains(INCOMPLETE) && vanished > 0 && unread.is_empty() => {
                failure.message
            }
            Err(failure) if failure.message.contains(INCOMPLETE) => {
                // What restic has stored of it all the same is no snapshot. A server that forgets nothing keeps it.
                if let Some(id) = summary.as_ref().and_then(|summary| summary["snapshot_id"].as_str()) {
                    let _ = self.forget(&[id.to_owned()], false, cancel);
                }
                let what = format!("the state could not be read completely: {}", unread.join("; "));
                return Err(Failure::new(Kind::Source, what));
            }
            Err(failure) => return Err(failure),
        };
        let summary =
            summary.ok_or_else(|| Failure::new(Kind::Other, format!("restic told no result: {said}")))?;
        let number = |key: &str| summary[key].as_u64().unwrap_or_default();
        let id = summary["snapshot_id"].as_str().unwrap_or_default();
        let written = Written {
            files: number("total_files_processed"),
            bytes: number("total_bytes_processed"),
            added: number("data_added"),
            vanished,
        };
        Ok((id.to_owned(), written))
    }

    /// The full id of the snapshot whose id begins with `short`, and its tree where it had to be asked for: that is
    /// another run, in which a local repository is spared.
    ///
    /// # Errors
    ///
    /// When the repository cannot be read, or does not have it.
    pub fn identify(&self, short: &str, cancel: &Cancel) -> Result<(String, Option<String>), Failure> {
        if self.is_local()
            && let Some(id) = local::full_id(Path::new(&self.repository), short)
        {
            return Ok((id, None));
        }
        let mut found = self.snapshots(Some(short), cancel)?;
        match (found.pop(), found.is_empty()) {
            (Some(stored), true) => Ok((stored.id, Some(stored.tree))),
            _ => Err(Failure::new(Kind::Other, format!("the repository does not have snapshot {short}"))),
        }
    }

    /// Every snapshot that is there, or those whose id begins with `id`.
    ///
    /// # Errors
    ///
    /// When the repository cannot be read.
    pub fn snapshots(&self, id: Option<&str>, cancel: &Cancel) -> Result<Vec<Stored>, Failure> {
        let mut arguments = vec!["snapshots", "--json", "--no-lock"];
        arguments.extend(id);
        let mut text = Vec::new();
        self.run(&arguments, cancel, |line| text.extend_from_slice(line))?;
        let all: Option<Vec<Stored>> = serde_json::from_slice(&text).map_err(|error| {
            Failure::new(Kind::Other, format!("restic's list of snapshots cannot be understood: {error}"))
        })?;
        Ok(all.unwrap_or_default())
    }

    /// Reads every byte of a snapshot again: the trees first, which tells what must be there, then the content.
    /// restic checks each piece's authenticity and hash; `dump` ends well even if a tree could not be read, so the
    /// size of what it gives is compared with the size of what must be there. The snapshot must have the `tree` that it
    /// was made with, if that is known: its id is a hash over it either way.
    ///
    /// # Errors
    ///
    /// When anything is missing or changed.
    pub fn verify(
        &self,
        id: &str,
        tree: Option<&str>,
        bytes: u64,
        cancel: &Cancel,
        progress: Progress<'_>,
    ) -> Result<Found, Failure> {
        if self.holds_little_else(bytes)
            && let Some(found) = self.verify_all(id, tree, cancel)
        {
            return found;
        }
        let (found, least) = self.walk(id, tree, cancel)?;
        let mut command = self.command();
        command.args(["dump", "--no-lock", "--archive", "tar", id, "/"]);
        let ended = child::copy(
            &mut command,
            self.bounds(cancel),
            u64::MAX - 1,
            Counted { progress, done: 0, all: least },
        );
        let ended = self.judge(ended)?;
        if ended.written < least {
            let message =
                format!("{} bytes came out of snapshot {id} where at least {least} must", ended.written);
            return Err(Failure::new(Kind::Damaged, message));
        }
        Ok(found)
    }

    /// Whether the repository lies here and has hardly more than `bytes` in it: then all of it is read as quickly as a part.
    fn holds_little_else(&self, bytes: u64) -> bool {
        const MORE: u64 = 16 << 20;
        let packs = Path::new(&self.repository).join("data");
        self.is_local() && size_of_files(&packs).is_some_and(|size| size <= bytes + bytes / 4 + MORE)
    }

    /// Reads the whole repository, which restic does with several hands. `None` when something in it is wrong: whether it is
    /// in this snapshot is another question.
    fn verify_all(&self, id: &str, tree: Option<&str>, cancel: &Cancel) -> Option<Result<Found, Failure>> {
        std::thread::scope(|scope| {
            let arguments = ["check", "--read-data", "--no-lock"];
            let checked = scope.spawn(move || self.run(&arguments, cancel, |_| {}));
            let walked = self.walk(id, tree, cancel);
            let is_whole = checked.join().is_ok_and(|checked| checked.is_ok());
            is_whole.then(|| walked.map(|(found, _)| found))
        })
    }

    /// What a snapshot's trees say is in it, and the least size of an archive of that.
    fn walk(&self, id: &str, tree: Option<&str>, cancel: &Cancel) -> Result<(Found, u64), Failure> {
        let (mut found, mut least, mut is_ours) = (Found::default(), 1024, false);
        self.run(&["ls", "--json", "--no-lock", id], cancel, |line| {
            let Ok(node) = serde_json::from_slice::<Node>(line) else { return };
            if node.struct_type == "snapshot" {
                is_ours = node.id == id && tree.is_none_or(|tree| node.tree == tree);
                found.tree = node.tree;
                return;
            }
            if node.struct_type != "node" || node.kind == "socket" {
                return;
            }
            least += 512;
            if node.kind == "file" {
                found.files += 1;
                found.bytes += node.size;
                least += node.size.next_multiple_of(512);
            }
        })?;
        if is_ours {
            return Ok((found, least));
        }
        Err(Failure::new(
            Kind::Damaged,
            format!("the repository's snapshot {id} is not the one that was made"),
        ))
    }

    /// Writes a snapshot into the empty directory `into`.
    ///
    /// # Errors
    ///
    /// When anything of it could not be read or written.
    pub fn restore(&self, id: &str, into: &Path, cancel: &Cancel) -> Result<(), Failure> {
        let mut command = self.command();
        command.args(["restore", "--no-lock", "--target"]).arg(into).arg(id);
        self.end(command, self.bounds(cancel), |_| {}).map(drop)
    }

    /// Forgets snapshots, and with `prune` frees what no other needs.
    ///
    /// # Errors
    ///
    /// When the repository cannot be changed, as an append-only server's cannot.
    pub fn forget(&self, ids: &[String], prune: bool, cancel: &Cancel) -> Result<(), Failure> {
        let mut arguments = vec!["forget", "--quiet"];
        if prune {
            arguments.push("--prune");
        }
        arguments.extend(ids.iter().map(String::as_str));
        self.run(&arguments, cancel, |_| {}).map(drop)
    }

    /// Frees what no snapshot needs, as what an interrupted one has left.
    ///
    /// # Errors
    ///
    /// When the repository cannot be changed.
    pub fn prune(&self, cancel: &Cancel) -> Result<(), Failure> {
        self.run(&["prune", "--quiet"], cancel, |_| {}).map(drop)
    }

    /// Copies snapshots into another repository, whose key is the same.
    ///
    /// # Errors
    ///
    /// When one cannot be read or the other not be written.
    pub fn copy_to(&self, other: &str, ids: &[String], cancel: &Cancel) -> Result<(), Failure> {
        let there = Self { repository: other.to_owned(), ..self.clone() };
        there.ensure(cancel)?;
        let mut command = there.command();
        // Not as arguments: a location may have a password in it, and every process sees every other's arguments.
        command
            .env("RESTIC_FROM_REPOSITORY", &self.repository)
            .env("RESTIC_FROM_PASSWORD_FILE", &self.key_file);
        command.args(["copy", "--quiet"]).args(ids);
        there.end(command, there.bounds(cancel), |_| {}).map(drop)
    }

    /// The repository without what may be a password in its address.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.repository)
    }
}

/// Bytes of all files below a directory; `None` when it cannot be read.
fn size_of_files(directory: &Path) -> Option<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        let found = entry.metadata().ok()?;
        size += if found.is_dir() { size_of_files(&entry.path())? } else { found.len() };
    }
    Some(size)
}
