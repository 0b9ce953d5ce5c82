//! The files of a log besides those that its tree is read from: tiles of earlier sizes, the key, and what does not
//! belong there.

use super::key;
use super::tiles::{Kind, TILE_WIDTH, Tile, TileStore, read_file};
use anyhow::{Context, Result};
use std::fs;
use std::io;
use std::path::Path;

/// Says up to which entry retention has removed bundles.
pub const REMOVED_NAME: &str = "removed";

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its path in the log.
    pub file: String,
    /// What is wrong with it.
    pub detail: String,
}

/// Entries before this one may have been removed.
///
/// # Errors
///
/// When the file that says so cannot be read.
pub fn removed_before(store: &TileStore) -> Result<u64> {
    match fs::read_to_string(store.root().join(REMOVED_NAME)) {
        Ok(text) => text.trim_end().parse().context("it is not the number of an entry"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).context("reading what was removed"),
    }
}

/// The full bundles of entries that are here: the number of each, and its bytes. In no order.
///
/// # Errors
///
/// When the directory cannot be read.
pub fn bundles_on_disk(store: &TileStore) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut directories = vec![Path::new("tile/entries").to_path_buf()];
    while let Some(directory) = directories.pop() {
        let listed = match fs::read_dir(store.root().join(&directory)) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in listed {
            let entry = entry?;
            let below = directory.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                directories.push(below);
            } else if let Some(tile) = below.to_str().and_then(parse)
                && tile.width == TILE_WIDTH
            {
                found.push((tile.index, entry.metadata()?.len()));
            }
        }
    }
    Ok(found)
}

/// Files that are not what they should be, in the order of their names. The tiles of a tree of `size` were compared before; without
/// one nothing says what they should be.
pub(super) fn strays(store: &TileStore, size: Option<u64>) -> Result<Vec<Stray>> {
    let mut strays = Vec::new();
    if let Some(size) = size {
        walk(store, Path::new("tile"), size, &mut strays)?;
    }
    let public = key::read_public(store.root());
    match (&public, key::read(store.root())) {
        (Err(error), _) => strays.push(stray(key::PUBLIC_NAME, format!("{error:#}"))),
        (Ok(public), Ok(Some(secret))) if secret.public() != *public => {
            strays.push(stray(key::KEY_NAME, "it is not the secret half of the public key beside it"));
        }
        // Who may not read the secret half checks the log without it.
        (_, Err(error)) if !is_denied(&error) => strays.push(stray(key::KEY_NAME, format!("{error:#}"))),
        _ => {}
    }
    Ok(strays)
}

fn is_denied(error: &anyhow::Error) -> bool {
    let system = error.downcast_ref::<io::Error>();
    system.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn stray(file: &str, detail: impl Into<String>) -> Stray {
    Stray { file: file.to_owned(), detail: detail.into() }
}

fn walk(store: &TileStore, directory: &Path, size: u64, strays: &mut Vec<Stray>) -> Result<()> {
    let path = store.root().join(directory);
    let listed = match fs::read_dir(&path) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let mut listed = listed.collect::<io::Result<Vec<_>>>()?;
    listed.sort_by_key(fs::DirEntry::file_name);
    for entry in listed {
        let below = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            walk(store, &below, size, strays)?;
        } else if let Some(wrong) = judge(store, &below, size).unwrap_or_else(|error| Some(error.to_string()))
        {
            strays.push(Stray { file: below.display().to_string(), detail: wrong });
        }
    }
    Ok(())
}

/// What is wrong with a file below `tile`.
fn judge(store: &TileStore, path: &Path, size: u64) -> io::Result<Option<String>> {
    let Some(tile) = path.to_str().and_then(parse) else { return Ok(Some("it is not a tile".into())) };
    let level = match tile.kind {
        Kind::Hashes(level) => u32::from(level),
        Kind::Entries => 0,
    };
    let there = size.checked_shr(8 * level).unwrap_or(0);
    if tile.index * TILE_WIDTH + tile.width > there {
        // Written just before a checkpoint that was then not signed. It is written again before the next.
        return Ok((!super::check::is_being_written(store) && tile.width == TILE_WIDTH)
            .then(|| format!("it is of a tree of more than {size} entries")));
    }
    if tile.width == TILE_WIDTH {
        return Ok(None);
    }
    // An earlier end of a tile is the beginning of what it is now.
    let now = there - tile.index * TILE_WIDTH;
    let whole = store.read(Tile { width: now.min(TILE_WIDTH), ..tile })?;
    let old = read_file(&store.root().join(path), tile.most_bytes())?;
    let count = match tile.kind {
        Kind::Hashes(_) => Some(old.len() as u64 / 32).filter(|_| old.len() % 32 == 0),
        Kind::Entries => super::tiles::entries_in(&old).map(|entries| entries.len() as u64),
    };
    let fits = count == Some(tile.width) && whole.is_none_or(|whole| whole.starts_with(&old));
    Ok((!fits).then(|| "it is not the beginning of what followed".to_owned()))
}

/// The tile at a path.
fn parse(path: &str) -> Option<Tile> {
    let rest = path.strip_prefix("tile/")?;
    let (level, number) = rest.split_once('/')?;
    let kind = if level == "entries" { Kind::Entries } else { Kind::Hashes(level.parse().ok()?) };
    let (number, width) = match number.split_once(".p/") {
        Some((number, width)) => (number, width.parse().ok()?),
        None => (number, TILE_WIDTH),
    };
    let mut index = 0u64;
    for part in number.split('/') {
        let digits = part.strip_prefix('x').unwrap_or(part);
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    let tile = Tile { kind, index, width };
    (tile.path() == path).then_some(tile)
}
