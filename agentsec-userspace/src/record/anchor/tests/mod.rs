//! Anchors against real servers on this host's loopback, and files on other file systems.

mod files;
mod server;
mod service;
mod verifier;
mod web;
mod witnesses;

use super::consistent::{Newest, newest};
use crate::record::evidence::tiles::TileStore;
use crate::record::evidence::{EvidenceLog, Opened};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A state directory with a log in it.
struct Log {
    state: TempDir,
}

impl Log {
    /// With `size` entries.
    fn of(size: u64) -> Self {
        let log = Self { state: tempfile::tempdir().unwrap() };
        log.grow(size, "entry");
        log
    }

    fn state_dir(&self) -> &Path {
        self.state.path()
    }

    fn directory(&self) -> PathBuf {
        self.state.path().join("log")
    }

    fn store(&self) -> TileStore {
        TileStore::new(&self.directory())
    }

    /// Adds entries up to `size`, and a checkpoint over them.
    fn grow(&self, size: u64, what: &str) {
        let Opened { mut log, amiss } = EvidenceLog::open(&self.directory(), "host").unwrap();
        assert!(amiss.is_empty(), "{amiss:?}");
        let entries: Vec<String> = (log.size()..size).map(|number| format!("{what} {number}")).collect();
        log.append(&entries, true).unwrap();
        log.close().unwrap();
    }

    fn newest(&self) -> Newest {
        newest(&self.store()).unwrap().unwrap()
    }

    /// The log of `size` entries that somebody with its key would make instead.
    fn rewritten(&self, size: u64) -> Self {
        let other = Self { state: tempfile::tempdir().unwrap() };
        std::fs::create_dir(other.directory()).unwrap();
        for name in ["key", "key.pub"] {
            std::fs::copy(self.directory().join(name), other.directory().join(name)).unwrap();
        }
        other.grow(size, "another entry");
        other
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits until something holds; what it depends on happens by itself, however slow the machine is.
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = found() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not come");
}
