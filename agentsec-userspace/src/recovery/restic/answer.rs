//! What restic answers: snapshots, the listing of one, and what was written and found.

use serde::Deserialize;

use super::Progress;

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

/// One line of `ls`.
#[derive(Deserialize)]
pub(super) struct Node {
    pub struct_type: String,
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub tree: String,
}

/// Counts what is written and tells how far that is.
pub(super) struct Counted<'a> {
    pub progress: Progress<'a>,
    pub done: u64,
    pub all: u64,
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
