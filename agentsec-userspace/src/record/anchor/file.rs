//! A file on another mount, to which each checkpoint is appended.
//!
//! The file is its own memory: what it holds last is compared with the log before anything is added. It may be
//! append-only (`chattr +a`), or lie on a server; nothing in it is ever changed.

use super::consistent::{self, Contradiction, Newest};
use super::{Fault, history};
use crate::record::evidence::note::Checkpoint;
use crate::record::evidence::tiles::TileStore;
use anyhow::{Context, Result, anyhow};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How much of the file's end is looked at: some hundred checkpoints.
const TAIL_BYTES: u64 = 64 * 1024;

/// The file.
#[derive(Clone, Debug)]
pub struct FileAnchor {
    /// Where it is.
    pub path: PathBuf,
    /// It may lie on the file system of the daemon's state.
    pub same_device: bool,
}

impl FileAnchor {
    /// Appends the newest checkpoint of the log in `store`, unless the file ends with it; it is on the disk
    /// afterwards. `was` is what the file should hold by now.
    ///
    /// # Errors
    ///
    /// When the file is no anchor, cannot be written, or the log contradicts it.
    pub fn place(&self, store: &TileStore, was: Option<&Checkpoint>, newest: &Newest) -> Result<(), Fault> {
        self.check_device(store.root())?;
        let mut file = self.open()?;
        let tail = tail_of(&mut file).with_context(|| format!("reading {}", self.path.display()))?;
        let held = history::notes(&tail).into_iter().rev().find_map(|note| newest.key.checkpoint(note).ok());
        let was = was.filter(|was| was.origin == newest.checkpoint.origin);
        if was.is_some_and(|was| held.as_ref().is_none_or(|held| held.size < was.size)) {
            let lost = anyhow!("{}: it no longer holds what was placed there", self.path.display());
            return Err(Fault::Failed(lost));
        }
        if let Some(held) = &held {
            check(store, held, newest)?;
            if *held == newest.checkpoint {
                return Ok(());
            }
        }
        let piece = history::piece(&tail, &newest.signed);
        let written = file.write_all(piece.as_bytes()).and_then(|()| file.sync_all());
        written.with_context(|| format!("writing {}", self.path.display()))?;
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        Ok(synced.with_context(|| format!("syncing {}", directory.display()))?)
    }

    /// What is on the same file system goes with it: with a mount that is missing, or a disk that is wiped.
    fn check_device(&self, log: &Path) -> Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
        let there = device(directory).with_context(|| format!("looking at {}", directory.display()))?;
        let here = device(log).with_context(|| format!("looking at {}", log.display()))?;
        if there == here && !self.same_device {
            return Err(anyhow!(
                "{} is on the same file system as the log; is its mount missing? (same_device = true allows it)",
                self.path.display()
            ));
        }
        Ok(())
    }

    fn open(&self) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        // A link would lead the checkpoints elsewhere, and a pipe would stop us.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
        let found = file.metadata().with_context(|| format!("looking at {}", self.path.display()))?;
        if found.is_file() { Ok(file) } else { Err(anyhow!("{}: it is no file", self.path.display())) }
    }
}

fn check(store: &TileStore, held: &Checkpoint, newest: &Newest) -> Result<(), Fault> {
    consistent::compare(store, Some(held), &newest.checkpoint)?.map_err(|found: Contradiction| found.into())
}

/// The end of the file; the beginning of a note that is cut there does no harm.
fn tail_of(file: &mut File) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
