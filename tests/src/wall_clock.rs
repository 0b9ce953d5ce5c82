//! A wall clock of a daemon's own, which steps when a test says so. The monotonic clock stays everybody's.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::daemon::Launch;

/// One of them: a library that the daemon is loaded with reads it from a file.
#[derive(Debug)]
pub struct WallClock {
    directory: tempfile::TempDir,
}

impl WallClock {
    /// One that is right.
    pub fn new() -> Result<Self> {
        let clock = Self { directory: tempfile::tempdir()? };
        clock.step("+0")?;
        Ok(clock)
    }

    /// Gives it to a daemon and its commands.
    pub fn of(&self, launch: Launch) -> Result<Launch> {
        Ok(launch
            .environment("LD_PRELOAD", library()?)
            .environment("FAKETIME_TIMESTAMP_FILE", self.file())
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1"))
    }

    /// Sets it so far before or after the machine's: `-10d`, `+3h`.
    pub fn step(&self, offset: &str) -> Result<()> {
        let beside = self.file().with_extension("new");
        fs::write(&beside, format!("{offset}\n"))?;
        Ok(fs::rename(beside, self.file())?)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }
}

fn library() -> Result<PathBuf> {
    let libraries = fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
    let mut found =
        libraries.map(|path| path.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().context("no libfaketime below /usr/lib")
}
