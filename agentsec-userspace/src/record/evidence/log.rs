//! The log, being written: a write-ahead file in front, tiles and checkpoints behind it.
//!
//! An entry counts once its batch is in the write-ahead file. Tiles follow with [`EvidenceLog::publish`], which ends
//! with a signed checkpoint over everything so far; only then may the write-ahead file be emptied. So the tiles and
//! that file together hold every entry at any moment, and after a crash the tree is what they say.

use super::merkle::{Hash, leaf_hash};
use super::note::{Checkpoint, Signer};
use super::tiles::{ENTRY_BYTES, Kind, TILE_WIDTH, Tile, TileStore, push_entry};
use super::tree::Frontier;
use super::wal::{self, AREA_BYTES, Wal};
use super::{key, recover};
use crate::file_lock::try_alone;
use crate::record::event::Event;
use crate::record::sink::{EventSink, SinkError, Storage};
use crate::whole_file::sync_directory;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// The write-ahead file, in the log's directory.
pub const WAL_NAME: &str = "wal";
/// The file that a writer holds locked.
pub const LOCK_NAME: &str = "lock";
/// From this size on the write-ahead file is emptied when a checkpoint is signed.
const WAL_EMPTY_BYTES: u64 = 1 << 20;
/// No more is written ahead of tiles that cannot be written.
const WAL_FULL_BYTES: u64 = 64 << 20;
/// Tiles that are written together: each is a file of its own until all are on the disk.
const AT_ONCE: usize = 64;

/// The log, open for writing.
#[derive(Debug)]
pub struct EvidenceLog<S = File> {
    store: TileStore,
    wal: Wal<S>,
    signer: Signer,
    tree: Frontier,
    /// The entries of the last bundle, which is not full.
    bundle: Vec<u8>,
    /// Tiles that became full and are not written yet.
    full: Vec<(Tile, Vec<u8>)>,
    /// Entries that the latest checkpoint covers.
    published: u64,
    /// Held as long as this writes.
    _lock: File,
}

/// A log and what was found amiss when it was opened: each becomes an event.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub log: EvidenceLog,
    /// What was found, as data of events of loss.
    pub amiss: Vec<Value>,
}

impl EvidenceLog {
    /// Opens or makes the log in `directory`. A log that cannot be continued is set aside, and a new one is begun.
    ///
    /// # Errors
    ///
    /// When another process writes it, or the directory cannot be used.
    pub fn open(directory: &Path, host: &str) -> Result<Opened> {
        let store = TileStore::new(directory);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("making {}", directory.display()))?;
        let lock = lock(directory)?;
        recover::open(store, host, lock)
    }
}

/// Locks the log against other writers.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK_NAME);
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    let is_ours = try_alone(&file).with_context(|| format!("locking {}", path.display()))?;
    ensure!(is_ours, "{}: another process writes this log", path.display());
    Ok(file)
}

impl<S: Storage> EvidenceLog<S> {
    pub(super) fn assemble(
        store: TileStore,
        signer: Signer,
        tree: Frontier,
        bundle: Vec<u8>,
        wal: Wal<S>,
        lock: File,
    ) -> Self {
        let published = tree.size();
        Self { store, wal, signer, tree, bundle, full: Vec::new(), published, _lock: lock }
    }

    /// Entries.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Entries that the latest checkpoint covers.
    #[must_use]
    pub const fn published(&self) -> u64 {
        self.published
    }

    /// The log's key.
    #[must_use]
    pub const fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Its directory.
    #[must_use]
    pub const fn store(&self) -> &TileStore {
        &self.store
    }

    /// The tree's head.
    #[must_use]
    pub fn head(&self) -> Checkpoint {
        let origin = self.signer.public().name().to_owned();
        Checkpoint { origin, size: self.size(), root: self.tree.root() }
    }

    /// Appends all of `entries` or none; with `durable` they are on the disk afterwards.
    ///
    /// # Errors
    ///
    /// When none of them is in the log. Appending may be tried again.
    pub fn append<T: AsRef<[u8]>>(&mut self, entries: &[T], durable: bool) -> Result<(), SinkError> {
        if entries.is_empty() {
            return Ok(());
        }
        if let Some(entry) = entries.iter().find(|entry| entry.as_ref().len() > ENTRY_BYTES) {
            let message = format!("an entry has {} bytes, at most {ENTRY_BYTES} fit", entry.as_ref().len());
            return Err(SinkError { kind: io::ErrorKind::InvalidInput, message });
        }
        if self.wal.bytes() >= WAL_FULL_BYTES {
            self.publish()?;
        }
        if self.wal.is_unsure() {
            // Every entry is in memory still. Nothing may be acknowledged behind one that the disk does not have.
            self.close()?;
        }
        let appended = self.wal.append(&wal::frame(self.size(), entries), durable);
        if appended.is_err() {
            // Cut at once if that works, so that a reader sees no torn batch; else before the next.
            let _ = self.wal.cut();
        }
        appended?;
        for entry in entries {
            self.take(entry.as_ref());
        }
        Ok(())
    }

    /// Adds an entry, which is in the write-ahead file, to the tree.
    pub(super) fn take(&mut self, entry: &[u8]) {
        push_entry(&mut self.bundle, entry);
        let full = &mut self.full;
        self.tree
            .push(leaf_hash(entry), &mut |tile, hashes| full.push((tile, hashes.as_flattened().to_vec())));
        if self.tree.size().is_multiple_of(TILE_WIDTH) {
            let index = self.tree.size() / TILE_WIDTH - 1;
            let tile = Tile { kind: Kind::Entries, index, width: TILE_WIDTH };
            self.full.push((tile, std::mem::take(&mut self.bundle)));
        }
    }

    /// Writes tiles and signs a checkpoint over every entry so far.
    ///
    /// # Errors
    ///
    /// When it cannot. Nothing is lost then: it may be tried again.
    pub fn publish(&mut self) -> io::Result<()> {
        if self.published == self.size() && self.full.is_empty() {
            return Ok(());
        }
        let mut first = 0;
        while first < self.full.len() {
            let next = (first + AT_ONCE).min(self.full.len());
            let tiles: Vec<_> =
                self.full[first..next].iter().map(|(tile, bytes)| (*tile, &bytes[..])).collect();
            self.store.write(&tiles)?;
            first = next;
        }
        self.full.clear();
        let width = self.size() % TILE_WIDTH;
        let bundle = Tile { kind: Kind::Entries, index: self.size() / TILE_WIDTH, width };
        let entries = (width > 0).then_some((bundle, &self.bundle[..]));
        let hashes = self.tree.partial_tiles().map(|(tile, hashes)| (tile, hashes.as_flattened()));
        self.store.write(&entries.into_iter().chain(hashes).collect::<Vec<_>>())?;
        let root: Hash = self.tree.root();
        self.store.replace("checkpoint", self.signer.checkpoint(self.size(), &root).as_bytes())?;
        self.published = self.size();
        if self.wal.bytes() >= WAL_EMPTY_BYTES {
            self.wal.clear()?;
        }
        Ok(())
    }

    /// Publishes, and leaves nothing in the write-ahead file.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn close(&mut self) -> io::Result<()> {
        self.publish()?;
        self.wal.clear()
    }

    pub(super) fn wal_mut(&mut self) -> &mut Wal<S> {
        &mut self.wal
    }
}

/// Events go into it as the lines that they are. Those about containment wait for the disk.
impl<S: Storage> EventSink for EvidenceLog<S> {
    fn append(&mut self, events: &[Event]) -> Result<(), SinkError> {
        let entries: Vec<String> = events.iter().map(Event::to_line).collect();
        let durable = events.iter().any(|event| event.event_type.is_containment());
        Self::append(self, &entries, durable)
    }
}

/// Opens the write-ahead file of the log in `directory`.
pub(super) fn open_wal(directory: &Path) -> Result<File> {
    let path = directory.join(WAL_NAME);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    let length = file.metadata()?.len();
    if length < AREA_BYTES {
        // Written, so that it has blocks. Where there is no room for that, it gets them as it grows.
        let zeros = vec![0; (AREA_BYTES - length) as usize];
        if file.write_all_at(&zeros, length).is_err() {
            file.set_len(length)?;
        }
    }
    file.sync_all()
        .and_then(|()| sync_directory(directory))
        .with_context(|| format!("syncing {}", path.display()))?;
    Ok(file)
}

/// The origin of a new log on `host`: unlike that of any other.
pub(super) fn new_origin(host: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    let host: String = host.chars().map(|character| if plain(character) { character } else { '_' }).collect();
    let host = if host.is_empty() { "localhost" } else { &host };
    format!("agentsec/{host}/{}", uuid::Uuid::now_v7())
}

/// The key in `store`, made if there is none and no checkpoint that needs one.
pub(super) fn signer(store: &TileStore, host: &str) -> Result<Signer> {
    match key::read(store.root())? {
        Some(signer) => Ok(signer),
        None => key::make(store, &new_origin(host)),
    }
}
