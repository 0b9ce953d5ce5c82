//! What restic complains of while it works and when it ends.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::super::child::Heard;
use super::super::error::Kind;

/// "No such file or directory", as restic's messages number it.
const ENOENT: i32 = 2;

/// A repeated attempt can only fail again on a local disk when data is not there or not right.
pub(super) fn hear_local(line: &str) -> Heard {
    let signs = ["no such file", "verification failed", "hash", "not a directory", "no space left", "EOF"];
    hear_repeated(line, &signs)
}

/// And on a server that does not allow it.
pub(super) fn hear_remote(line: &str) -> Heard {
    hear_repeated(line, &["403 Forbidden", "401 Unauthorized", "Access Denied", "AccessDenied"])
}

fn hear_repeated(line: &str, signs: &[&str]) -> Heard {
    let is_vain = line.contains("returned error, retrying") && signs.iter().any(|sign| line.contains(sign));
    if is_vain { Heard::Vain } else { Heard::Kept }
}

/// What a backup could not read.
#[derive(Default)]
pub(super) struct Missed {
    parent: PathBuf,
    /// Unix seconds.
    began: i64,
    pub vanished: u64,
    pub unread: Vec<String>,
}

impl Missed {
    /// For a backup below `parent` that begins now.
    pub fn since(parent: &Path) -> Self {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let began = i64::try_from(began.as_secs()).unwrap_or(i64::MAX);
        Self { parent: parent.to_owned(), began, ..Self::default() }
    }

    pub fn hear(&mut self, line: &str) -> Heard {
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

/// What restic complains of. What is certain comes first: it may have tried a few times before it gave up, and what it
/// said of an earlier attempt is in it too.
pub(super) fn kind_of(said: &str) -> Kind {
    let said = said.to_lowercase();
    let table: [(&str, Kind); 27] = [
        ("403 forbidden", Kind::Denied),
        ("401 unauthorized", Kind::Denied),
        ("access denied", Kind::Denied),
        ("accessdenied", Kind::Denied),
        ("wrong password", Kind::Key),
        ("no key found", Kind::Key),
        ("no space left", Kind::NoSpace),
        ("disk quota exceeded", Kind::NoSpace),
        ("already locked", Kind::Locked),
        ("unable to create lock", Kind::Locked),
        ("no matching id", Kind::NoSnapshot),
        ("no snapshot found", Kind::NoSnapshot),
        ("ciphertext verification failed", Kind::Damaged),
        ("hash mismatch", Kind::Damaged),
        ("does not match", Kind::Damaged),
        ("invalid data returned", Kind::Damaged),
        ("not found in index", Kind::Damaged),
        ("not found in repository", Kind::Damaged),
        // A connection that breaks says EOF as well, which says nothing of what is stored.
        ("dial tcp", Kind::Unreachable),
        ("connection re", Kind::Unreachable),
        ("no such host", Kind::Unreachable),
        ("i/o timeout", Kind::Unreachable),
        ("http response (5", Kind::Unreachable),
        ("unable to open config file", Kind::NoRepository),
        ("config file does not exist", Kind::NoRepository),
        ("no such file", Kind::Damaged),
        ("eof", Kind::Damaged),
    ];
    table.iter().find(|(sign, _)| said.contains(sign)).map_or(Kind::Other, |(_, kind)| *kind)
}

/// What restic says without the places in its program that it names when it gives up: nobody can use them.
pub(super) fn plain(said: &str) -> String {
    let is_place = |line: &str| {
        let function = ["github.com/", "main.", "runtime."].iter().any(|root| line.starts_with(root));
        function || (line.starts_with('\t') && line.contains(".go:"))
    };
    said.lines().filter(|line| !is_place(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restics_complaints_are_told_apart() {
        for (said, kind) in [
            ("Fatal: wrong password or no key found", Kind::Key),
            ("Fatal: unable to open config file: stat nope/config: no such file", Kind::NoRepository),
            ("unable to open config file: Head: dial tcp 127.0.0.1:8: connection refused", Kind::Unreachable),
            ("Load(<data/1>) returned error: EOF\ndial tcp: connect: no route to host", Kind::Unreachable),
            ("connection reset by peer\nblob ac: ciphertext verification failed", Kind::Damaged),
            ("Load(<data/1>) returned error: unexpected EOF", Kind::Damaged),
            ("write locks/a-tmp: no space left on device\nunable to create lock in backend", Kind::NoSpace),
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

    #[test]
    fn where_in_its_program_restic_was_is_left_out() {
        let said = "write locks/a: no space left on device\ngithub.com/restic/restic/x.(*Local).Save\n\t\
                    github.com/restic/restic/x/local.go:170\nmain.main\n\t/build/main.go:98\nunable to create lock";
        assert_eq!(plain(said), "write locks/a: no space left on device\nunable to create lock");
    }
}
