//! Opening a log: what the last writer left, and what became of it since.
//!
//! Files may end anywhere after a crash; that is repaired and told. Files that contradict what the log has signed are
//! evidence: they are set aside as they are, and a new log with a key of its own is begun.

use super::files::removed_before;
use super::key;
use super::log::{EvidenceLog, LOCK_NAME, Opened, WAL_NAME, new_origin, open_wal, signer};
use super::merkle::{Hash, leaf_hash};
use super::note::{Checkpoint, Signer};
use super::tiles::{Kind, TILE_WIDTH, Tile, TileStore, entries_in, hashes_in, tile_at};
use super::tree::Frontier;
use super::wal::{self, Wal};
use crate::whole_file::sync_directory;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Opens the log in `store`, which this process has locked.
pub(super) fn open(store: TileStore, host: &str, lock: File) -> Result<Opened> {
    let mut amiss = Vec::new();
    let continued = begin(&store, host).and_then(|begun| continue_with(&store, begun, &lock));
    match continued {
        Ok((log, told)) => {
            amiss.extend(told);
            Ok(Opened { log, amiss })
        }
        Err(error) if error.is::<Contradiction>() => {
            let kept = set_aside(store.root())?;
            let checkpoint = fs::read_to_string(kept.join("checkpoint")).ok();
            amiss.push(json!({
                "what": "log", "why": format!("{error:#}"), "kept_as": kept, "checkpoint": checkpoint,
            }));
            let signer = key::make(&store, &new_origin(host))?;
            let begun = Begun { signer, tree: Frontier::default(), bundle: Vec::new(), rebuilt: false };
            let (log, told) = continue_with(&store, begun, &lock)?;
            amiss.extend(told);
            Ok(Opened { log, amiss })
        }
        Err(error) => Err(error),
    }
}

/// The log's files contradict what it has signed.
#[derive(Debug)]
struct Contradiction(String);

impl std::fmt::Display for Contradiction {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "the log cannot be continued: {}", self.0)
    }
}

impl std::error::Error for Contradiction {}

fn contradiction(what: impl Into<String>) -> anyhow::Error {
    Contradiction(what.into()).into()
}

/// What the tiles hold.
struct Begun {
    signer: Signer,
    tree: Frontier,
    bundle: Vec<u8>,
    /// Hashes had to be made again from the entries.
    rebuilt: bool,
}

fn begin(store: &TileStore, host: &str) -> Result<Begun> {
    let Some(signed) = store.checkpoint()? else {
        let wal = fs::metadata(store.root().join(WAL_NAME)).map(|found| found.len()).unwrap_or(0);
        if own_key(store)?.is_none() && wal > 0 {
            return Err(contradiction("its key is missing"));
        }
        let signer = signer(store, host)?;
        return Ok(Begun { signer, tree: Frontier::default(), bundle: Vec::new(), rebuilt: false });
    };
    let signer = own_key(store)?.ok_or_else(|| contradiction("its key is missing"))?;
    let checkpoint = signer.public().checkpoint(&signed);
    let checkpoint = checkpoint.map_err(|flaw| contradiction(format!("its checkpoint: {flaw}")))?;
    let bundle = last_bundle(store, checkpoint.size)?;
    if let Some(tree) = edge(store, &checkpoint, &bundle)? {
        return Ok(Begun { signer, tree, bundle, rebuilt: false });
    }
    let tree = rebuild(store, &checkpoint)?;
    Ok(Begun { signer, tree, bundle, rebuilt: true })
}

/// The log's key. One that is no key, that others can read or that nobody can read does not continue the log.
fn own_key(store: &TileStore) -> Result<Option<Signer>> {
    key::read(store.root()).map_err(|error| contradiction(format!("{error:#}")))
}

/// Writes the public half again if it is not that of the key: a crash at the first start may have left none, and without it nobody
/// can check anything.
fn publish_key(store: &TileStore, signer: &Signer) -> Option<Value> {
    let public = signer.public();
    let why = match key::read_public(store.root()) {
        Ok(found) if found == public => return None,
        Ok(found) => format!("it was {found}"),
        Err(error) => format!("{error:#}"),
    };
    let written = key::write_public(store, &public).map_err(|error| format!("{error:#}"));
    Some(json!({ "what": "public_key", "why": why, "key": public.to_string(), "error": written.err() }))
}

/// The entries of the last bundle of a tree of `size`.
fn last_bundle(store: &TileStore, size: u64) -> Result<Vec<u8>> {
    if size.is_multiple_of(TILE_WIDTH) {
        return Ok(Vec::new());
    }
    let tile = tile_at(Kind::Entries, size - 1, size);
    let bundle = store.read(tile)?.ok_or_else(|| contradiction(format!("{} is missing", tile.path())))?;
    let count = entries_in(&bundle).map(|entries| entries.len() as u64);
    if count == Some(tile.width) {
        Ok(bundle)
    } else {
        Err(contradiction(format!("{} is damaged", tile.path())))
    }
}

/// The right edge from the tiles of hashes, if they and the last entries give the signed root.
fn edge(store: &TileStore, checkpoint: &Checkpoint, bundle: &[u8]) -> Result<Option<Frontier>> {
    let size = checkpoint.size;
    let mut levels = Vec::new();
    for level in 0..8u8 {
        let there = size >> (8 * level);
        if there == 0 {
            break;
        }
        let width = there % TILE_WIDTH;
        if width == 0 {
            levels.push(Vec::new());
            continue;
        }
        let tile = tile_at(Kind::Hashes(level), there - 1, size);
        let Some(hashes) = store.read(tile)?.and_then(|bytes| hashes_in(&bytes)) else { return Ok(None) };
        levels.push(hashes);
    }
    let Some(tree) = Frontier::from_levels(size, levels.clone()) else { return Ok(None) };
    let leaves: Option<Vec<_>> = entries_in(bundle).map(|all| all.into_iter().map(leaf_hash).collect());
    let last = levels.first().cloned().unwrap_or_default();
    Ok((tree.root() == checkpoint.root && leaves == Some(last)).then_some(tree))
}

/// The tree from the entries alone, and from the hashes of those that retention has removed; its tiles of hashes are
/// written anew.
fn rebuild(store: &TileStore, checkpoint: &Checkpoint) -> Result<Frontier> {
    let mut tree = Frontier::default();
    let mut tiles = Vec::new();
    let mut first = 0;
    while first < checkpoint.size {
        let tile = tile_at(Kind::Entries, first, checkpoint.size);
        for leaf in leaves(store, tile)? {
            tree.push(leaf, &mut |tile, hashes| tiles.push((tile, hashes.to_vec())));
        }
        first += tile.width;
    }
    if tree.root() != checkpoint.root {
        return Err(contradiction("its entries are not those that its checkpoint covers"));
    }
    for (tile, hashes) in tiles {
        store.write(&[(tile, hashes.as_flattened())])?;
    }
    for (tile, hashes) in tree.partial_tiles() {
        store.write(&[(tile, hashes.as_flattened())])?;
    }
    Ok(tree)
}

/// The hashes of a bundle's entries.
fn leaves(store: &TileStore, tile: Tile) -> Result<Vec<Hash>> {
    let whole = |count: usize| count as u64 == tile.width;
    let Some(bundle) = store.read(tile)? else {
        let removed = (tile.index * TILE_WIDTH) + tile.width <= removed_before(store)?;
        let hashes = store.read(Tile { kind: Kind::Hashes(0), ..tile })?.filter(|_| removed);
        let hashes = hashes.and_then(|bytes| hashes_in(&bytes)).filter(|hashes| whole(hashes.len()));
        return hashes.ok_or_else(|| contradiction(format!("{} is missing", tile.path())));
    };
    let entries = entries_in(&bundle).filter(|entries| whole(entries.len()));
    let entries = entries.ok_or_else(|| contradiction(format!("{} is damaged", tile.path())))?;
    Ok(entries.into_iter().map(leaf_hash).collect())
}

/// Takes up what the write-ahead file holds beyond the tiles.
fn continue_with(store: &TileStore, begun: Begun, lock: &File) -> Result<(EvidenceLog, Vec<Value>)> {
    let mut amiss = Vec::new();
    if begun.rebuilt {
        amiss.push(
            json!({ "what": "tiles", "why": "made again from the entries, which the checkpoint covers" }),
        );
    }
    amiss.extend(publish_key(store, &begun.signer));
    let mut storage = open_wal(store.root())?;
    let mut bytes = Vec::new();
    storage.read_to_end(&mut bytes).context("reading the write-ahead file")?;
    let signed = begun.tree.size();
    let contents = wal::read(&bytes, signed);
    let lock = lock.try_clone().context("keeping the lock")?;
    let mut wal = Wal::new(storage, contents.good_bytes, contents.good_bytes + contents.torn_bytes);
    // If the disk does not take it, neither does the file take more before all of it is in tiles.
    let _ = wal.write_again(&bytes[..contents.good_bytes as usize]);
    let mut log = EvidenceLog::assemble(store.clone(), begun.signer, begun.tree, begun.bundle, wal, lock);
    let mut gap = false;
    for batch in contents.batches {
        gap |= batch.first > log.size();
        if gap {
            break;
        }
        let known = (log.size() - batch.first).min(batch.entries.len() as u64) as usize;
        for entry in &batch.entries[known..] {
            log.take(entry);
        }
    }
    if contents.damaged || gap {
        // Acknowledged once and unreadable now: what can be read goes on, the file is kept.
        log.publish()?;
        let kept = free_name(&store.root().join(format!("{WAL_NAME}.damaged")));
        fs::rename(store.root().join(WAL_NAME), &kept).context("setting the write-ahead file aside")?;
        *log.wal_mut() = Wal::new(open_wal(store.root())?, 0, 0);
        amiss.push(json!({ "what": "write_ahead", "entries_kept": log.size() - signed, "kept_as": kept,
                           "offset": contents.good_bytes, "bytes": contents.torn_bytes }));
    } else if contents.torn_bytes > 0 {
        amiss.push(
            json!({ "what": "torn_batch", "offset": contents.good_bytes, "bytes": contents.torn_bytes }),
        );
    }
    log.wal_mut().cut().context("cutting off what a crash has torn")?;
    Ok((log, amiss))
}

/// Moves everything of a log but its lock into a directory beside it.
fn set_aside(directory: &Path) -> Result<PathBuf> {
    let kept = free_name(&directory.with_extension("aside"));
    fs::create_dir(&kept).with_context(|| format!("making {}", kept.display()))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() != LOCK_NAME {
            fs::rename(entry.path(), kept.join(entry.file_name()))
                .with_context(|| format!("setting {} aside", entry.path().display()))?;
        }
    }
    sync(directory).and_then(|()| sync(&kept)).context("syncing what was set aside")?;
    Ok(kept)
}

fn sync(directory: &Path) -> io::Result<()> {
    sync_directory(directory)?;
    directory.parent().map_or(Ok(()), sync_directory)
}

/// `path.1`, or the next number that is free.
fn free_name(path: &Path) -> PathBuf {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    (1..).map(numbered).find(|path| !path.exists()).unwrap_or_else(|| path.into())
}
