//! Reading the log's entries while somebody else writes it. A place is an entry's number.
//!
//! What a checkpoint covers is in bundles, the rest in the write-ahead file. A reader believes neither signature nor
//! hashes; that is what [`super::check`] is for.

use super::log::WAL_NAME;
use super::note::Checkpoint;
use super::tiles::{Kind, TILE_WIDTH, TileStore, read_file, readable_entries, tile_at};
use super::wal::{self, Batch};
use crate::record::entries::{Entry, EventSource};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The log in a directory.
#[derive(Clone, Debug)]
pub struct EvidenceSource {
    store: TileStore,
}

/// Changes when the log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    files: [Option<(u64, SystemTime)>; 2],
    /// When it was taken, if something was written just before: what is written now may have the same time.
    fresh: Option<SystemTime>,
}

/// Files of the same time may have been written so far from each other.
const GRAIN: Duration = Duration::from_millis(50);

impl EvidenceSource {
    /// The log in `directory`, which need not exist yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { store: TileStore::new(directory) }
    }

    /// The log of a daemon with this state directory.
    #[must_use]
    pub fn in_state(state_dir: &Path) -> Self {
        Self::new(&state_dir.join(super::LOG_NAME))
    }

    /// Tells cheaply whether there may be something new.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let of = |name| {
            let found = fs::metadata(self.store.root().join(name)).ok()?;
            Some((found.len(), found.modified().ok()?))
        };
        let files = [of(WAL_NAME), of("checkpoint")];
        let now = SystemTime::now();
        let is_fresh = |time: SystemTime| now.duration_since(time).map_or(true, |age| age < GRAIN);
        let fresh = files.iter().flatten().any(|(_, time)| is_fresh(*time)).then_some(now);
        Stamp { files, fresh }
    }

    /// Which log it is, once it has a checkpoint.
    ///
    /// # Errors
    ///
    /// When the checkpoint cannot be read.
    pub fn origin(&self) -> io::Result<Option<String>> {
        let signed = self.store.checkpoint()?;
        Ok(signed.and_then(|signed| signed.lines().next().map(str::to_owned)))
    }

    /// Entries so far.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn size(&self) -> io::Result<u64> {
        let published = self.published()?;
        let ends = self.waiting()?.into_iter().map(|batch| batch.first + batch.entries.len() as u64);
        Ok(ends.fold(published, u64::max))
    }

    /// Entries that the latest checkpoint covers.
    fn published(&self) -> io::Result<u64> {
        let Some(signed) = self.store.checkpoint()? else { return Ok(0) };
        let text = signed.rfind("\n\n").map_or("", |end| &signed[..=end]);
        Checkpoint::parse(text).map(|checkpoint| checkpoint.size).map_err(io::Error::other)
    }

    /// The entries of a bundle. Of a damaged one what can be read, so that it hides nothing of the others.
    fn bundle(&self, place: u64, size: u64) -> io::Result<Option<Vec<Vec<u8>>>> {
        let tile = tile_at(Kind::Entries, place, size);
        let Some(bytes) = self.store.read(tile)? else { return Ok(None) };
        let entries = readable_entries(&bytes, tile.width as usize);
        Ok(Some(entries.into_iter().map(<[u8]>::to_vec).collect()))
    }

    fn waiting(&self) -> io::Result<Vec<Batch>> {
        read_wal(self.store.root(), 0).map(|contents| contents.batches)
    }
}

/// The write-ahead file of the log in `directory`, of which `covered` entries are in tiles; an empty one if there is
/// none.
pub(super) fn read_wal(directory: &Path, covered: u64) -> io::Result<wal::Contents> {
    match read_file(&directory.join(WAL_NAME), u64::MAX) {
        Ok(bytes) => Ok(wal::read(&bytes, covered)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(wal::Contents::default()),
        Err(error) => Err(error),
    }
}

impl EventSource for EvidenceSource {
    fn entries_from(&self, place: u64) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>> + Send>> {
        let size = self.published()?;
        Ok(Box::new(Entries { source: self.clone(), next: place, size, read: VecDeque::new(), done: false }))
    }

    fn entries_at(&self, places: &[u64]) -> io::Result<Vec<Option<Vec<u8>>>> {
        let size = self.published()?;
        let mut latest: Option<(u64, Option<Vec<Vec<u8>>>)> = None;
        let mut waiting = None;
        let mut found = Vec::with_capacity(places.len());
        for &place in places {
            if place < size {
                let index = place / TILE_WIDTH;
                if latest.as_ref().is_none_or(|(read, _)| *read != index) {
                    latest = Some((index, self.bundle(place, size)?));
                }
                let bundle = latest.as_ref().and_then(|(_, bundle)| bundle.as_ref());
                found.push(bundle.and_then(|all| all.get((place % TILE_WIDTH) as usize).cloned()));
            } else {
                let batches = match &waiting {
                    Some(batches) => batches,
                    None => waiting.insert(self.waiting()?),
                };
                let entry = batches.iter().find_map(|batch| {
                    batch.entries.get(usize::try_from(place.checked_sub(batch.first)?).ok()?)
                });
                found.push(entry.cloned());
            }
        }
        Ok(found)
    }
}

/// The entries from a number on.
struct Entries {
    source: EvidenceSource,
    next: u64,
    /// Entries in bundles.
    size: u64,
    read: VecDeque<Entry>,
    /// The write-ahead file was read.
    done: bool,
}

impl Entries {
    /// Reads the next bundle, or what is not in one yet.
    fn fill(&mut self) -> io::Result<()> {
        if self.next < self.size {
            let first = self.next - self.next % TILE_WIDTH;
            // A bundle that retention has removed has no entries here.
            let bundle = self.source.bundle(first, self.size)?.unwrap_or_default();
            let after = (first + TILE_WIDTH).min(self.size);
            let next = self.next;
            let numbered = (first..).zip(bundle).filter(|(number, _)| *number >= next);
            self.read.extend(numbered);
            self.next = after;
            return Ok(());
        }
        let batches = self.source.waiting()?;
        let size = self.source.published()?;
        if size > self.size {
            // Published meanwhile, and perhaps gone from the write-ahead file.
            self.size = size;
            return Ok(());
        }
        self.done = true;
        for batch in batches {
            for (number, entry) in (batch.first..).zip(batch.entries) {
                if number == self.next {
                    self.read.push_back((number, entry));
                    self.next += 1;
                }
            }
        }
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.read.is_empty() && !self.done {
            if let Err(error) = self.fill() {
                self.done = true;
                return Some(Err(error));
            }
        }
        self.read.pop_front().map(Ok)
    }
}

/// Where the log of a state directory lies.
#[must_use]
pub fn log_directory(state_dir: &Path) -> PathBuf {
    state_dir.join(super::LOG_NAME)
}
