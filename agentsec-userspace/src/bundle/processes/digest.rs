//! Third pass: the SHA-256 of what is run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::super::guarded::within;
use super::super::hex;
use super::super::part::Paper;
use super::{Found, Identity, identity, open};

/// A larger program is not hashed.
const MOST_BYTES: u64 = 1 << 30;
/// The most that one program may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Adds the hash to every process whose program can be read: also a program that was deleted. Each file is read once.
pub(super) fn write(paper: &Paper, found: &mut Vec<Found>) {
    let mut known: BTreeMap<Identity, Result<String, String>> = BTreeMap::new();
    for process in found.drain(..) {
        if process.exe.is_none() {
            // A thread of the kernel, or a process that has ended.
            continue;
        }
        // Through the link and not by its path: what is run, whatever lies there now.
        let Some(file) = opened(paper, &process) else { continue };
        let Some(identity) = identity(&file) else { continue };
        let hash = known.entry(identity).or_insert_with(|| hash(file, identity.2, LIMIT.min(paper.left())));
        let mut fields = Map::new();
        match hash {
            Ok(hash) => fields.insert("exe_sha256".into(), Value::from(hash.as_str())),
            Err(why) => {
                paper.lacks(format!("the program of process {} {why}", process.pid));
                fields.insert("exe_not_hashed".into(), Value::from(why.as_str()))
            }
        };
        fields.insert("exe_bytes".into(), identity.2.into());
        paper.amend(process.place, fields);
    }
}

/// Opening asks the file system on which the program lies, which can hang.
fn opened(paper: &Paper, process: &Found) -> Option<File> {
    let directory = process.directory.try_clone().ok()?;
    match within("exe", LIMIT.min(paper.left()), move || open(&directory, "exe")) {
        Ok(file) => file,
        Err(lost) => {
            paper.lacks(format!("the program of process {} {}", process.pid, lost.why()));
            None
        }
    }
}

fn hash(mut file: File, bytes: u64, limit: Duration) -> Result<String, String> {
    if bytes > MOST_BYTES {
        return Err(format!("has {bytes} bytes, and {MOST_BYTES} are hashed at most"));
    }
    let read = within("sha256", limit, move || {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hex(&hasher.finalize())),
                Ok(length) => hasher.update(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot be read: {error}")),
            }
        }
    });
    read.unwrap_or_else(|lost| Err(lost.why().to_owned()))
}
