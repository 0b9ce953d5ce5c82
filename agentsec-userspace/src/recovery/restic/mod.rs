//! The program restic, driven as a child process: the only place that knows its command line and its words.
//!
//! What it does is not taken on trust where its exit code cannot be: see [`Restic::verify`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;

use super::child::{self, Bounds, Cancel, ChildError, Ended, Heard};
use super::error::{Failure, Kind};
use super::local;

/// Tag of every snapshot that we make.
pub const TAG: &str = "agentsec";
/// restic collects its garbage when a fifth has been added: half the memory for a few per cent of time.
const GARBAGE_PERCENT: &str = "20";

/// What restic says when it ends with code 3.
const INCOMPLETE: &str = "at least one source file";
/// "No such file or directory", as restic's messages number it.
const ENOENT: i32 = 2;

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

/// A snapshot as the repository tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Stored {
    /// Its full id: the SHA-256 of its document.
    pub id: String,
    /// Id of its tree, over everything below.
    pub tree: String,
    /// RFC 3339.
    pub time: String,
    /// Words that it was made with.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files in the snapshot.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were new to the repository.
    pub added: u64,
    /// Files that were gone when their turn came.
    pub vanished: u64,
}

/// What was found in a snapshot that was read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Id of its tree.
    pub tree: String,
    /// Files, each under each of its names.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
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
        cancel: &Cancel,
        progress: Progress<'_>,
    ) -> Result<Found, Failure> {
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

    /// Copies snapshots into another repository, whose key is the same.
    ///
    /// # Errors
    ///
    /// When one cannot be read or the other not be written.
    pub fn copy_to(&self, other: &str, ids: &[String], cancel: &Cancel) -> Result<(), Failure> {
        let there = Self { repository: other.to_owned(), ..self.clone() };
        there.ensure(cancel)?;
        let key = self.key_file.display().to_string();
        let mut arguments =
            vec!["copy", "--quiet", "--from-repo", &self.repository, "--from-password-file", &key];
        arguments.extend(ids.iter().map(String::as_str));
        there.run(&arguments, cancel, |_| {}).map(drop)
    }

    fn run(
        &self,
        arguments: &[&str],
        cancel: &Cancel,
        on_line: impl FnMut(&[u8]) + Send,
    ) -> Result<Ended, Failure> {
        let mut command = self.command();
        command.args(arguments);
        self.end(command, self.bounds(cancel), on_line)
    }

    /// Runs restic; a lock that a dead process has left is removed once.
    fn end(
        &self,
        mut command: Command,
        bounds: Bounds<'_>,
        mut on_line: impl FnMut(&[u8]) + Send,
    ) -> Result<Ended, Failure> {
        let first = self.judge(child::lines(&mut command, bounds, &mut on_line));
        if !first.as_ref().is_err_and(|failure| failure.kind == Kind::Locked) {
            return first;
        }
        // `unlock` removes only locks whose process is gone, or that nobody has refreshed for half an hour.
        let mut unlock = self.command();
        unlock.arg("unlock");
        self.judge(child::lines(&mut unlock, bounds, |_| {}))?;
        self.judge(child::lines(&mut command, bounds, on_line))
    }

    fn judge(&self, ended: Result<Ended, ChildError>) -> Result<Ended, Failure> {
        let about = |what: &dyn std::fmt::Display| format!("restic on {}: {what}", self.shown());
        match ended {
            Ok(ended) if ended.status.success() => Ok(ended),
            Ok(ended) => {
                let said = if ended.said.is_empty() { ended.status.to_string() } else { ended.said };
                Err(Failure::new(kind_of(&said), about(&said)))
            }
            Err(ChildError::Spawn(error)) => {
                let message = format!("{} cannot be run ({error}): install restic", self.program.display());
                Err(Failure::new(Kind::NoProgram, message))
            }
            Err(error) => Err(Failure::new(
                match &error {
                    ChildError::TimedOut(_) => Kind::TimedOut,
                    ChildError::Cancelled => Kind::Cancelled,
                    ChildError::GaveUp(line) => kind_of(line),
                    _ => Kind::Other,
                },
                about(&error),
            )),
        }
    }

    /// The repository without what may be a password in its address.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.repository)
    }

    fn bounds<'a>(&self, cancel: &'a Cancel) -> Bounds<'a> {
        Bounds {
            deadline: self.deadline,
            cancel,
            hear: if self.is_local() { &hear_local } else { &hear_remote },
        }
    }

    fn command(&self) -> Command {
        // A child must not outlive a daemon that is killed: nobody would know what it still writes.
        let mut words: Vec<&OsStr> = child::ending_with_us().into_iter().map(OsStr::new).collect();
        // The daemon is the last to go when memory is short; this is not.
        if Path::new("/usr/bin/choom").exists() {
            words.extend(["/usr/bin/choom", "-n", "500", "--"].map(OsStr::new));
        }
        if self.nice {
            words.extend(["/usr/bin/nice", "-n", "10"].map(OsStr::new));
        }
        words.push(self.program.as_os_str());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).current_dir("/").env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("RESTIC_REPOSITORY", &self.repository)
            .env("RESTIC_PASSWORD_FILE", &self.key_file)
            .env("RESTIC_CACHE_DIR", &self.cache)
            .env("RESTIC_PROGRESS_FPS", "4")
            .env("GOGC", GARBAGE_PERCENT)
            .env("LC_ALL", "C")
            .envs(&self.environment);
        if self.is_local() {
            command.arg("--no-cache");
        }
        command
    }
}

/// A location without what may be a password in it.
#[must_use]
pub fn shown(location: &str) -> String {
    match location.split_once('@') {
        Some((before, after)) if !location.starts_with('/') => {
            let scheme = before.rsplit_once("//").map_or("", |(scheme, _)| scheme);
            format!("{scheme}//…@{after}")
        }
        _ => location.to_owned(),
    }
}

/// Reads a file of `NAME=VALUE` lines, which like the key must be nobody else's to read.
///
/// # Errors
///
/// When it cannot be read, others may read it, or a line is something else.
pub fn environment(path: &Path) -> Result<BTreeMap<OsString, OsString>, Failure> {
    super::key::check(path)?;
    let text = fs::read_to_string(path).map_err(Failure::io(path.display()))?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let (name, value) = line.split_once('=').ok_or_else(|| {
                Failure::new(Kind::Other, format!("{}:{}: not NAME=VALUE", path.display(), number + 1))
            })?;
            Ok((name.trim().into(), value.into()))
        })
        .collect()
}

/// A repeated attempt can only fail again on a local disk when data is not there or not right.
fn hear_local(line: &str) -> Heard {
    let signs = ["no such file", "verification failed", "hash", "not a directory", "no space left", "EOF"];
    hear_repeated(line, &signs)
}

/// And on a server that does not allow it.
fn hear_remote(line: &str) -> Heard {
    hear_repeated(line, &["403 Forbidden", "401 Unauthorized", "Access Denied", "AccessDenied"])
}

fn hear_repeated(line: &str, signs: &[&str]) -> Heard {
    let is_vain = line.contains("returned error, retrying") && signs.iter().any(|sign| line.contains(sign));
    if is_vain { Heard::Vain } else { Heard::Kept }
}

/// What a backup could not read.
#[derive(Default)]
struct Missed {
    parent: PathBuf,
    /// Unix seconds.
    began: i64,
    vanished: u64,
    unread: Vec<String>,
}

impl Missed {
    /// For a backup below `parent` that begins now.
    fn since(parent: &Path) -> Self {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let began = i64::try_from(began.as_secs()).unwrap_or(i64::MAX);
        Self { parent: parent.to_owned(), began, ..Self::default() }
    }

    fn hear(&mut self, line: &str) -> Heard {
        let Ok(message) = serde_json::from_str::<Value>(line) else { return hear_remote(line) };
        if message["message_type"] != "error" {
            return Heard::Kept;
        }
        if self.has_vanished(&message) {
            self.vanished += 1;
        } else if self.unread.len() < 5 {
            self.unread.push(describe(&message));
        }
        Heard::Counted
    }

    /// Whether what could not be read is gone, and so no part of the state any more. Some errors come without a
    /// reason; then what is there now tells: nothing, or something that was made or changed meanwhile.
    fn has_vanished(&self, message: &Value) -> bool {
        match message["error"]["Err"].as_i64() {
            Some(code) => code == i64::from(ENOENT),
            None => {
                match fs::symlink_metadata(self.parent.join(message["item"].as_str().unwrap_or_default())) {
                    Ok(about) => about.ctime() >= self.began,
                    Err(error) => error.kind() == std::io::ErrorKind::NotFound,
                }
            }
        }
    }
}

/// One line for a file that could not be read.
fn describe(message: &Value) -> String {
    let item = message["item"].as_str().unwrap_or("something");
    let error = &message["error"];
    match (error["Op"].as_str(), error["Err"].as_i64()) {
        (Some(op), Some(code)) => {
            format!("{op} {item}: {}", std::io::Error::from_raw_os_error(i32::try_from(code).unwrap_or(0)))
        }
        _ => format!("{item}: {error}"),
    }
}

/// What restic complains of.
fn kind_of(said: &str) -> Kind {
    let said = said.to_lowercase();
    let table: [(&str, Kind); 22] = [
        ("403 forbidden", Kind::Denied),
        ("401 unauthorized", Kind::Denied),
        ("access denied", Kind::Denied),
        ("accessdenied", Kind::Denied),
        ("wrong password", Kind::Key),
        ("no key found", Kind::Key),
        ("already locked", Kind::Locked),
        ("unable to create lock", Kind::Locked),
        ("no space left", Kind::NoSpace),
        ("disk quota exceeded", Kind::NoSpace),
        ("unable to open config file", Kind::NoRepository),
        ("config file does not exist", Kind::NoRepository),
        ("no matching id", Kind::NoSnapshot),
        ("no snapshot found", Kind::NoSnapshot),
        ("ciphertext verification failed", Kind::Damaged),
        ("hash mismatch", Kind::Damaged),
        ("does not match", Kind::Damaged),
        ("invalid data returned", Kind::Damaged),
        ("not found in index", Kind::Damaged),
        ("not found in repository", Kind::Damaged),
        ("no such file", Kind::Damaged),
        ("eof", Kind::Damaged),
    ];
    table.iter().find(|(sign, _)| said.contains(sign)).map_or(Kind::Other, |(_, kind)| *kind)
}

/// One line of `ls`.
#[derive(Deserialize)]
struct Node {
    struct_type: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    id: String,
    #[serde(default)]
    tree: String,
}

/// Counts what is written and tells how far that is.
struct Counted<'a> {
    progress: Progress<'a>,
    done: u64,
    all: u64,
}

impl std::io::Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.done += bytes.len() as u64;
        (self.progress)(self.done, self.all);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restics_complaints_are_told_apart() {
        for (said, kind) in [
            ("Fatal: wrong password or no key found", Kind::Key),
            ("Fatal: unable to open config file: stat nope/config: no such file", Kind::NoRepository),
            ("unable to create lock in backend: repository is already locked by PID 7", Kind::Locked),
            ("decrypting blob ac failed: ciphertext verification failed", Kind::Damaged),
            ("Save(<data/1>) returned error: write: no space left on device", Kind::NoSpace),
            ("open data/4f: no such file or directory", Kind::Damaged),
            ("something new", Kind::Other),
        ] {
            assert_eq!(kind_of(said), kind, "{said}");
        }
    }

    #[test]
    fn only_what_cannot_get_better_is_vain() {
        let heard =
            |why: &str| hear_local(&format!("Load(<data/4f>) returned error, retrying after 1s: {why}"));
        assert_eq!(heard("open x: no such file or directory"), Heard::Vain);
        assert_eq!(heard("connection refused"), Heard::Kept);
        assert_eq!(hear_local("no such file or directory"), Heard::Kept);
        let refused = "Remove(<snapshot/a8>) returned error, retrying after 1s: blob not removed, server response: 403 Forbidden (403)";
        assert_eq!((hear_remote(refused), kind_of(refused)), (Heard::Vain, Kind::Denied));
        assert_eq!(hear_remote("Load(<data/4f>) returned error, retrying after 1s: EOF"), Heard::Kept);
    }
}
