//! Whether bundles are what was signed, before they go.

use super::plan::bundle;
use crate::core::hex::hex;
use crate::record::anchor::consistent::Newest;
use crate::record::evidence::merkle::{Hash, leaf_hash, prove_inclusion, verify_inclusion};
use crate::record::evidence::tiles::{Kind, TILE_WIDTH, Tile, TileNodes, TileStore, entries_in, hashes_in};
use anyhow::{Context as _, Result, anyhow};
use sha2::{Digest, Sha256};

/// The bytes of the bundle with this index, after each of its entries was found under the signed root.
///
/// # Errors
///
/// When it cannot be read, or is not what was signed.
pub(super) fn sealed(store: &TileStore, index: u64, newest: &Newest) -> Result<Vec<u8>> {
    let tile = bundle(index);
    let path = tile.path();
    let bytes = store.read(tile).with_context(|| format!("reading {path}"))?;
    let bytes = bytes.ok_or_else(|| anyhow!("{path} is missing"))?;
    let entries = entries_in(&bytes).filter(|entries| entries.len() as u64 == TILE_WIDTH);
    let entries = entries.ok_or_else(|| anyhow!("{path} is damaged, and stays as evidence"))?;
    let leaves: Vec<Hash> = entries.into_iter().map(leaf_hash).collect();
    // Once the entries are gone their tile of hashes is all that proves them: it has to be whole as well.
    let hashes = store.read(Tile { kind: Kind::Hashes(0), ..tile });
    let hashes = hashes.context("reading the log's tiles")?.and_then(|bytes| hashes_in(&bytes));
    let checkpoint = &newest.checkpoint;
    let nodes = TileNodes { store, size: checkpoint.size };
    let first = index * TILE_WIDTH;
    // The first entry's proof holds the roots over all others of its bundle, made from that tile.
    let proof = prove_inclusion(&nodes, first, checkpoint.size).context("reading the log's tiles")?;
    let proved = verify_inclusion(&leaves[0], first, checkpoint.size, &proof, &checkpoint.root);
    if hashes.as_ref() == Some(&leaves) && proved {
        Ok(bytes)
    } else {
        Err(anyhow!("{path} or its hashes are not what was signed, and stay as evidence"))
    }
}

/// SHA-256 over the bundles' own, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Total(Sha256);

impl Total {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(Sha256::digest(bytes));
    }

    pub fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}
