//! Whether the log still is what was anchored. Pure but for the tiles that it looks at.

use crate::record::evidence::merkle;
use crate::record::evidence::note::{Checkpoint, PublicKey};
use crate::record::evidence::tiles::{TileNodes, TileStore};
use crate::record::evidence::{key, merkle::Hash};
use anyhow::{Context, Result, anyhow};
use std::fmt;

/// The newest checkpoint, as it lies in the log's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// The signed note.
    pub signed: String,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The log's public key.
    pub key: PublicKey,
}

/// The newest checkpoint; `None` while the log has none.
///
/// # Errors
///
/// When it cannot be read, or is not signed by the key beside it.
pub fn newest(store: &TileStore) -> Result<Option<Newest>> {
    let Some(signed) = store.checkpoint().context("reading the log's checkpoint")? else { return Ok(None) };
    let key = key::read_public(store.root())?;
    let checkpoint = key.checkpoint(&signed).map_err(|flaw| anyhow!("the log's checkpoint: {flaw}"))?;
    Ok(Some(Newest { signed, checkpoint, key }))
}

/// What was anchored and what the log says now cannot both be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// In which way.
    pub how: How,
    /// Entries that were anchored.
    pub anchored: u64,
    /// Root over them, where it is known: a witness tells only the size.
    pub anchored_root: Option<Hash>,
    /// What the log says.
    pub now: Checkpoint,
}

/// In which way the log contradicts what was anchored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It has fewer entries.
    RolledBack,
    /// Its entries of then are others.
    Rewritten,
    /// Its tiles are not those that its own checkpoint covers.
    NotItsTree,
    /// The anchor has seen another tree of this log.
    SplitView,
}

impl How {
    /// As in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled_back",
            Self::Rewritten => "rewritten",
            Self::NotItsTree => "not_its_tree",
            Self::SplitView => "split_view",
        }
    }
}

impl Contradiction {
    pub(super) fn of(how: How, was: Option<&Checkpoint>, now: &Checkpoint) -> Self {
        let anchored = was.map_or(0, |was| was.size);
        Self { how, anchored, anchored_root: was.map(|was| was.root), now: now.clone() }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.now.size;
        let was = self.anchored;
        match self.how {
            How::RolledBack => write!(out, "{was} entries were anchored, and the log has {now}"),
            How::Rewritten => write!(out, "the first {was} entries are not those that were anchored"),
            How::NotItsTree => write!(out, "the tiles are not those of the {now} entries that are signed"),
            How::SplitView => write!(out, "the anchor holds another tree of {was} entries than the log"),
        }
    }
}

/// Whether `now` continues `was`, by the tiles in `store`. What was anchored of another log contradicts nothing.
///
/// # Errors
///
/// When a tile cannot be read; the inner one when it does not.
pub fn compare(
    store: &TileStore,
    was: Option<&Checkpoint>,
    now: &Checkpoint,
) -> Result<Result<(), Contradiction>> {
    let was = was.filter(|was| was.origin == now.origin);
    let contradiction = |how| Ok(Err(Contradiction::of(how, was, now)));
    if was.is_some_and(|was| was.size > now.size) {
        return contradiction(How::RolledBack);
    }
    if root(store, now.size, now.size)? != now.root {
        return contradiction(How::NotItsTree);
    }
    if let Some(was) = was
        && root(store, was.size, now.size)? != was.root
    {
        return contradiction(How::Rewritten);
    }
    Ok(Ok(()))
}

/// The root over the first `size` entries of a log of `whole`.
fn root(store: &TileStore, size: u64, whole: u64) -> Result<Hash> {
    merkle::root(&TileNodes { store, size: whole }, size).context("reading the log's tiles")
}

/// Proof that the first `old` entries are the beginning of `now`'s.
///
/// # Errors
///
/// When a tile cannot be read.
pub fn proof(store: &TileStore, old: u64, now: &Checkpoint) -> Result<Vec<Hash>> {
    merkle::prove_consistency(&TileNodes { store, size: now.size }, old, now.size)
        .context("reading the log's tiles")
}
