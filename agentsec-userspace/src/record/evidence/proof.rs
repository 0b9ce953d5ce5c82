//! A proof that an entry is in the log, which anybody checks without the log: C2SP's tlog-proof, with the entry as its
//! extra data.

use super::merkle::{Hash, leaf_hash, prove_inclusion, verify_inclusion};
use super::note::{Checkpoint, NoteFlaw, PublicKey};
use super::tiles::{Kind, TileNodes, TileStore, entries_in, tile_at};
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::{self, Write as _};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// A tree of 2^64 leaves is no higher.
const HASHES: usize = 63;

/// A proof, as it is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The entry: an event's line.
    pub entry: Vec<u8>,
    /// Its number.
    pub index: u64,
    hashes: Vec<Hash>,
    /// The signed checkpoint of the tree in which it is.
    checkpoint: String,
}

/// Why something proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofFlaw {
    /// It is not a proof with an entry in it.
    NotAProof,
    /// Its checkpoint is not what it should be.
    Checkpoint(NoteFlaw),
    /// The entry, its number or the hashes were changed: they do not lead to the signed root.
    NotInTree,
}

impl fmt::Display for ProofFlaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAProof => write!(out, "it is not a proof ({HEADER}) with an entry in it"),
            Self::Checkpoint(flaw) => write!(out, "its checkpoint: {flaw}"),
            Self::NotInTree => out.write_str("the entry is not in the tree that the checkpoint covers"),
        }
    }
}

impl std::error::Error for ProofFlaw {}

impl Proof {
    /// The proof of entry `index` of the log in `store`.
    ///
    /// # Errors
    ///
    /// When no checkpoint covers it yet, or the log is damaged there.
    pub fn of(store: &TileStore, index: u64) -> Result<Self> {
        let checkpoint = store.checkpoint()?.context("the log has no checkpoint yet")?;
        let size = read_public(store)?.checkpoint(&checkpoint).map_err(ProofFlaw::Checkpoint)?.size;
        if index >= size {
            bail!(
                "entry {index} is under no checkpoint yet: the latest covers {size} entries; try again in a second"
            );
        }
        let tile = tile_at(Kind::Entries, index, size);
        let bundle = store.read(tile)?.with_context(|| {
            format!("entry {index} is no longer here: {} was removed or is missing", tile.path())
        })?;
        let entries = entries_in(&bundle).with_context(|| format!("{} is damaged", tile.path()))?;
        let place = (index % super::tiles::TILE_WIDTH) as usize;
        let entry = entries.get(place).with_context(|| format!("{} is cut", tile.path()))?.to_vec();
        let hashes = prove_inclusion(&TileNodes { store, size }, index, size)?;
        Ok(Self { entry, index, hashes, checkpoint })
    }

    /// What the proof proves, by the log's key: which checkpoint covers the entry.
    ///
    /// # Errors
    ///
    /// When it proves nothing.
    pub fn verify(&self, key: &PublicKey) -> Result<Checkpoint, ProofFlaw> {
        let checkpoint = key.checkpoint(&self.checkpoint).map_err(ProofFlaw::Checkpoint)?;
        let leaf = leaf_hash(&self.entry);
        if verify_inclusion(&leaf, self.index, checkpoint.size, &self.hashes, &checkpoint.root) {
            Ok(checkpoint)
        } else {
            Err(ProofFlaw::NotInTree)
        }
    }

    /// From its text.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ProofFlaw> {
        parse(text).ok_or(ProofFlaw::NotAProof)
    }
}

fn read_public(store: &TileStore) -> Result<PublicKey> {
    super::key::read_public(store.root())
}

fn parse(text: &str) -> Option<Proof> {
    let (head, checkpoint) = text.split_once("\n\n")?;
    let mut lines = head.split('\n');
    if lines.next()? != HEADER {
        return None;
    }
    let entry = STANDARD.decode(lines.next()?.strip_prefix("extra ")?).ok()?;
    let digits = lines.next()?.strip_prefix("index ")?;
    let index: u64 = digits.parse().ok()?;
    let hash = |line: &str| STANDARD.decode(line).ok()?.try_into().ok();
    let hashes: Vec<Hash> = lines.map(hash).collect::<Option<_>>()?;
    // A number has one spelling.
    let is_plain = digits == index.to_string() && hashes.len() <= HASHES;
    is_plain.then(|| Proof { entry, index, hashes, checkpoint: checkpoint.to_owned() })
}

impl fmt::Display for Proof {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{HEADER}\nextra {}\nindex {}", STANDARD.encode(&self.entry), self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(out, "{}", STANDARD.encode(hash)))?;
        out.write_char('\n')?;
        out.write_str(&self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::super::EvidenceLog;
    use super::*;

    fn log(size: u64) -> (tempfile::TempDir, EvidenceLog) {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EvidenceLog::open(directory.path(), "host").unwrap().log;
        let entries: Vec<String> = (0..size).map(|number| format!("entry {number}")).collect();
        log.append(&entries, false).unwrap();
        log.publish().unwrap();
        (directory, log)
    }

    #[test]
    fn every_entry_of_logs_of_any_size_is_proved_and_read_back() {
        for size in [1, 2, 3, 255, 256, 257, 700] {
            let (_directory, log) = log(size);
            let key = log.signer().public();
            for index in (0..size).step_by(if size > 99 { 37 } else { 1 }).chain([size - 1]) {
                let proof = Proof::of(log.store(), index).unwrap();
                assert_eq!(Proof::parse(&proof.to_string()).as_ref(), Ok(&proof));
                assert_eq!(proof.entry, format!("entry {index}").into_bytes());
                assert_eq!(proof.verify(&key).unwrap(), log.head());
            }
            assert!(Proof::of(log.store(), size).unwrap_err().to_string().contains("no checkpoint yet"));
        }
    }

    #[test]
    fn no_byte_of_a_proof_can_be_changed() {
        let (_directory, log) = log(300);
        let key = log.signer().public();
        let text = Proof::of(log.store(), 257).unwrap().to_string();
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at) && text.is_char_boundary(at + 1)) {
            let new = if text.as_bytes()[at] == b'7' { "8" } else { "7" };
            let forged = format!("{}{new}{}", &text[..at], &text[at + 1..]);
            let verdict = Proof::parse(&forged).and_then(|proof| proof.verify(&key));
            assert!(verdict.is_err(), "byte {at}: {forged}");
        }
        let other = super::super::note::Signer::new(key.name(), &[7; 32]).unwrap();
        let verdict = Proof::parse(&text).unwrap().verify(&other.public());
        assert_eq!(verdict, Err(ProofFlaw::Checkpoint(NoteFlaw::OtherKey)));
    }
}
