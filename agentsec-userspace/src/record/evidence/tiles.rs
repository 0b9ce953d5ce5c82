//! The log's files, in the layout of C2SP's `tlog-tiles`: `checkpoint`, `tile/<L>/<N>[.p/<W>]` and the entries
//! themselves in `tile/entries/<N>[.p/<W>]`.

use super::merkle::{Hash, Nodes, root_of};
use crate::whole_file::{self, sync_directory};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Hashes in a full tile, and entries in a full bundle.
pub const TILE_WIDTH: u64 = 256;
/// The longest entry that a bundle can hold.
pub const ENTRY_BYTES: usize = u16::MAX as usize;
/// More than a checkpoint can have.
const CHECKPOINT_BYTES: u64 = 1 << 20;

/// Which kind of tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Hashes, at this level.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// One tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its number in its level.
    pub index: u64,
    /// How many it holds, 1 to 256.
    pub width: u64,
}

impl Tile {
    /// Its path in the log.
    #[must_use]
    pub fn path(self) -> String {
        let level = match self.kind {
            Kind::Hashes(level) => level.to_string(),
            Kind::Entries => "entries".to_owned(),
        };
        let mut number = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            number = format!("x{:03}/{number}", rest % 1000);
            rest /= 1000;
        }
        match self.width {
            TILE_WIDTH => format!("tile/{level}/{number}"),
            width => format!("tile/{level}/{number}.p/{width}"),
        }
    }

    /// More bytes than it can have.
    pub(super) const fn most_bytes(self) -> u64 {
        match self.kind {
            Kind::Hashes(_) => TILE_WIDTH * 32 + 1,
            Kind::Entries => TILE_WIDTH * (ENTRY_BYTES as u64 + 2) + 1,
        }
    }

    /// The same tile once it is full.
    #[must_use]
    pub const fn full(self) -> Self {
        Self { width: TILE_WIDTH, ..self }
    }
}

/// The tile of `kind` that holds number `place` of its level, of a tree of `size` leaves.
#[must_use]
pub const fn tile_at(kind: Kind, place: u64, size: u64) -> Tile {
    let level = match kind {
        Kind::Hashes(level) => level as u32,
        Kind::Entries => 0,
    };
    let (index, there) = (place / TILE_WIDTH, size >> (8 * level));
    let width = if there - index * TILE_WIDTH < TILE_WIDTH { there % TILE_WIDTH } else { TILE_WIDTH };
    Tile { kind, index, width }
}

/// Adds `entry` to a bundle; it is at most [`ENTRY_BYTES`] long.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    debug_assert!(entry.len() <= ENTRY_BYTES, "entries are cut before");
    bundle.extend_from_slice(&(entry.len() as u16).to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// The entries of a bundle; `None` when it is not one.
#[must_use]
pub fn entries_in(mut bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        entries.push(entry);
        bundle = rest;
    }
    bundle.is_empty().then_some(entries)
}

/// What can be read of a bundle of so many entries that may be damaged: those before the damage, and the bytes from there on as
/// one, as far as an entry can hold them.
#[must_use]
pub fn readable_entries(mut bundle: &[u8], width: usize) -> Vec<&[u8]> {
    let mut entries = Vec::new();
    while entries.len() < width && !bundle.is_empty() {
        let whole = bundle
            .split_first_chunk::<2>()
            .and_then(|(length, rest)| rest.split_at_checked(u16::from_be_bytes(*length).into()));
        let (entry, rest) = whole.unwrap_or((&bundle[..bundle.len().min(ENTRY_BYTES)], &[]));
        entries.push(entry);
        bundle = rest;
    }
    entries
}

/// The hashes of a tile; `None` when it is not one.
#[must_use]
pub fn hashes_in(tile: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = tile.as_chunks::<32>();
    rest.is_empty().then(|| hashes.to_vec())
}

/// The directory of a log.
#[derive(Clone, Debug)]
pub struct TileStore {
    root: PathBuf,
}

impl TileStore {
    /// The log in the directory `root`, which need not exist.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The tile's bytes: the first of its width when only a wider one is there; `None` when neither is.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read.
    pub fn read(&self, tile: Tile) -> io::Result<Option<Vec<u8>>> {
        if let Some(own) = self.read_at(tile)? {
            return Ok(Some(own));
        }
        Ok(self.read_at(tile.full())?.map(|wider| cut(tile, wider)))
    }

    /// The bytes of the file of exactly this width, as they are there.
    fn read_at(&self, tile: Tile) -> io::Result<Option<Vec<u8>>> {
        let path = tile.path();
        match read_file(&self.root.join(&path), tile.most_bytes()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&path, &error)),
        }
    }

    /// Writes tiles; they are on the disk afterwards. One that becomes full takes the place of its narrower ones.
    ///
    /// # Errors
    ///
    /// When it cannot; each is then not there, or as it was, or written.
    pub fn write(&self, tiles: &[(Tile, &[u8])]) -> io::Result<()> {
        let new = |number: usize| self.root.join(format!("new.{number}"));
        let mut files = Vec::with_capacity(tiles.len());
        // All are written before the first is synced: then the file system has to do most of that once.
        for (number, (tile, bytes)) in tiles.iter().enumerate() {
            let written = create(&new(number)).and_then(|mut file| file.write_all(bytes).map(|()| file));
            files.push(written.map_err(|error| named(&tile.path(), &error))?);
        }
        files.iter().try_for_each(File::sync_all)?;
        let mut directories = BTreeSet::new();
        for (number, (tile, _)) in tiles.iter().enumerate() {
            let target = self.root.join(tile.path());
            let directory = target.parent().unwrap_or(&self.root);
            make_directories(directory)?;
            fs::rename(new(number), &target).map_err(|error| named(&tile.path(), &error))?;
            directories.insert(directory.to_owned());
        }
        directories.iter().try_for_each(|directory| sync_directory(directory))?;
        let full = tiles.iter().map(|(tile, _)| tile).filter(|tile| tile.width == TILE_WIDTH);
        full.map(|tile| self.root.join(tile.path() + ".p")).try_for_each(|narrower| match fs::remove_dir_all(
            narrower,
        ) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Puts `bytes` at `path` in one step: afterwards they are on the disk, or what was there before still is.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn replace(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace_by(path, "new", bytes)
    }

    /// The same for a file that somebody else than the log's writer writes, at the same time perhaps.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn replace_beside(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace_by(path, &format!("{path}.new"), bytes)
    }

    fn replace_by(&self, path: &str, new: &str, bytes: &[u8]) -> io::Result<()> {
        let target = self.root.join(path);
        let directory = target.parent().unwrap_or(&self.root);
        make_directories(directory)?;
        whole_file::replace_by(&target, &self.root.join(new), bytes).map_err(|error| named(path, &error))
    }

    /// The signed checkpoint, if there is one.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn checkpoint(&self) -> io::Result<Option<String>> {
        match read_file(&self.root.join("checkpoint"), CHECKPOINT_BYTES) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A wider tile cut down to the width that is asked for.
fn cut(tile: Tile, mut bytes: Vec<u8>) -> Vec<u8> {
    let length = match tile.kind {
        Kind::Hashes(_) => tile.width as usize * 32,
        Kind::Entries => match entries_in(&bytes) {
            Some(entries) => entries.iter().take(tile.width as usize).map(|entry| entry.len() + 2).sum(),
            None => bytes.len(),
        },
    };
    bytes.truncate(length);
    bytes
}

/// What a file holds, at most so many bytes of it. A pipe in its place is not waited for.
///
/// # Errors
///
/// When it cannot be read, or is no file.
pub(super) fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len().min(most)).unwrap_or_default());
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file that only its owner reads.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

/// Makes what is missing of `directory`, each name on the disk with its parent.
fn make_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        make_directories(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    directory.parent().map_or(Ok(()), sync_directory)
}

/// The nodes of a tree of `size` leaves, from its tiles.
#[derive(Clone, Copy, Debug)]
pub struct TileNodes<'a> {
    /// Where the tiles are.
    pub store: &'a TileStore,
    /// Leaves of the tree.
    pub size: u64,
}

impl Nodes for TileNodes<'_> {
    type Error = io::Error;

    fn node(&self, height: u32, index: u64) -> io::Result<Hash> {
        let (level, above) = ((height / 8) as u8, height % 8);
        let place = index << above;
        let tile = tile_at(Kind::Hashes(level), place, self.size);
        let bytes = self.store.read(tile)?.ok_or_else(|| named(&tile.path(), &missing()))?;
        let first = (place % TILE_WIDTH) as usize;
        let hashes = hashes_in(&bytes).unwrap_or_default();
        let hashes = hashes.get(first..first + (1 << above));
        hashes.map(root_of).ok_or_else(|| named(&tile.path(), &io::ErrorKind::InvalidData.into()))
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let tile = |kind, index, width| Tile { kind, index, width }.path();
        assert_eq!(tile(Kind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(tile(Kind::Hashes(2), 0, 1), "tile/2/000.p/1");
        assert_eq!(tile(Kind::Entries, 999, 17), "tile/entries/999.p/17");
        assert_eq!(tile(Kind::Entries, 1000, 256), "tile/entries/x001/000");
    }

    #[test]
    fn widths_are_those_of_the_specification() {
        // Its example: a tree of 70,000 leaves.
        for (kind, place, index, width) in [
            (Kind::Hashes(0), 69_999, 273, 112),
            (Kind::Hashes(0), 69_887, 272, 256),
            (Kind::Hashes(1), 255, 0, 256),
            (Kind::Hashes(1), 272, 1, 17),
            (Kind::Hashes(2), 0, 0, 1),
            (Kind::Entries, 69_999, 273, 112),
        ] {
            assert_eq!(tile_at(kind, place, 70_000), Tile { kind, index, width });
        }
        assert_eq!(tile_at(Kind::Hashes(0), 255, 256).width, 256);
    }

    #[test]
    fn a_bundle_is_taken_apart_as_it_was_put_together() {
        let mut bundle = Vec::new();
        let entries: [&[u8]; 3] = [b"one", b"", &[7; ENTRY_BYTES]];
        entries.iter().for_each(|entry| push_entry(&mut bundle, entry));
        assert_eq!(entries_in(&bundle).unwrap(), entries);
        assert_eq!(entries_in(&bundle[..bundle.len() - 1]), None);
        assert_eq!(entries_in(&[0]), None);
    }

    #[test]
    fn a_full_tile_takes_the_place_of_its_partial_ones() {
        let directory = tempfile::tempdir().unwrap();
        let store = TileStore::new(directory.path());
        let partial = Tile { kind: Kind::Hashes(0), index: 0, width: 3 };
        store.write(&[(partial, &[1; 96])]).unwrap();
        assert_eq!(store.read(partial).unwrap().unwrap(), [1; 96]);
        store.write(&[(partial.full(), &[2; 8192])]).unwrap();
        assert!(!directory.path().join("tile/0/000.p").exists());
        assert_eq!(store.read(partial).unwrap().unwrap(), [2; 96], "its beginning");
        assert_eq!(store.read(Tile { index: 1, ..partial }).unwrap(), None);
    }
}
