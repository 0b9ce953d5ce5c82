//! Checks a log: does it hold what was signed, and what does it not hold any more?
//!
//! Everything is hashed anew from the entries. Where the entries of a bundle differ from its tile of hashes, the tile
//! above (or the signed root) tells which of the two was changed. Checkpoints that are kept elsewhere are compared at
//! their sizes: what they cover cannot be rewritten by whoever has the key.

use super::files::{self, Stray};
use super::log::LOCK_NAME;
use super::merkle::{Hash, leaf_hash, root_of};
use super::note::{Checkpoint, NoteFlaw, PublicKey};
use super::source::read_wal;
use super::tiles::{Kind, TILE_WIDTH, Tile, TileStore, entries_in, hashes_in, readable_entries, tile_at};
use super::tree::Frontier;
use anyhow::Result;
use serde::Serialize;
use std::fs::File;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// An entry is not the one that was signed.
    Changed,
    /// An entry that was signed is not there.
    Missing,
    /// Entries stand in another order than they were signed in.
    Reordered,
    /// The log is shorter than a checkpoint of it: an old copy was put back, or its end was cut off.
    RolledBack,
    /// What a checkpoint covers is not what the log holds: it was rewritten and signed anew.
    Rewritten,
    /// A checkpoint is not signed by the key of the log.
    OtherKey,
    /// A file is not what it should be; the entries are.
    Damaged,
    /// Bytes at the end of the write-ahead file are no batch: a crash cut it, or the last batch was changed.
    Torn,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: What,
    /// The first entry that it is about.
    pub entry: Option<u64>,
    /// The file.
    pub file: String,
    /// The same in words.
    pub detail: String,
}

/// A checkpoint that is compared with the log.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where it comes from.
    pub from: String,
    /// The signed note.
    pub signed: String,
}

/// What a check comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Names the log.
    pub origin: String,
    /// Its public key.
    pub key: String,
    /// Entries that the log's own checkpoint covers.
    pub signed: u64,
    /// That checkpoint is signed by the log's key. If it is not, `signed` is only what it claims, and no entry is attested by this host.
    pub attested: bool,
    /// Entries behind those, which no checkpoint covers yet.
    pub waiting: u64,
    /// Entries that a checkpoint from elsewhere covers, and that are what they were then.
    pub anchored: u64,
    /// Entries whose bundle retention has removed; their hashes are there.
    pub removed: u64,
    /// Which those are: the first of each run of them, and the one behind it.
    #[serde(skip)]
    pub removed_runs: Vec<(u64, u64)>,
    /// Bytes of entries hashed.
    pub bytes: u64,
    /// What is wrong, as it was found.
    pub findings: Vec<Finding>,
    /// How much more is wrong that is not among these.
    pub more: u64,
}

/// The most findings that are told.
const FINDINGS: usize = 100;

impl Report {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The first entry of which something is wrong.
    #[must_use]
    pub fn first_bad(&self) -> Option<u64> {
        self.findings.iter().filter_map(|finding| finding.entry).min()
    }

    /// Of the entries that are gone, the first that is not before `accounted`.
    #[must_use]
    pub fn first_removed_from(&self, accounted: u64) -> Option<u64> {
        self.removed_runs.iter().find(|(_, end)| *end > accounted).map(|(first, _)| accounted.max(*first))
    }

    fn remove(&mut self, first: u64, entries: u64) {
        self.removed += entries;
        match self.removed_runs.last_mut() {
            Some((_, end)) if *end == first => *end += entries,
            _ => self.removed_runs.push((first, first + entries)),
        }
    }

    fn find(&mut self, what: What, entry: Option<u64>, file: impl Into<String>, detail: impl Into<String>) {
        // Whatever else is wrong, the first bad entry is named.
        let is_first_bad = entry.is_some_and(|entry| self.first_bad().is_none_or(|first| entry < first));
        if self.findings.len() >= FINDINGS && !is_first_bad {
            self.more += 1;
        } else {
            self.findings.push(Finding { what, entry, file: file.into(), detail: detail.into() });
        }
    }
}

/// What hears how far a check is: entries, and of how many.
pub type Heard<'a> = &'a mut dyn FnMut(u64, u64);

/// Checks the log in `store`, of the given key, against `kept` checkpoints.
///
/// # Errors
///
/// When a file cannot be read. What is wrong with those that can is in the report.
pub fn check(store: &TileStore, key: &PublicKey, kept: &[Kept]) -> Result<Report> {
    check_heard(store, key, kept, &mut |_, _| {})
}

/// The same, telling how far it is.
///
/// # Errors
///
/// When a file cannot be read.
pub fn check_heard(store: &TileStore, key: &PublicKey, kept: &[Kept], heard: Heard<'_>) -> Result<Report> {
    const ATTEMPTS: usize = 3;
    let mut report = check_once(store, key, kept, heard)?;
    // A writer may have replaced files between two looks at them.
    for _ in 1..ATTEMPTS {
        if report.is_clean() || !is_being_written(store) {
            break;
        }
        report = check_once(store, key, kept, heard)?;
    }
    Ok(report)
}

/// Whether another process writes this log now.
#[must_use]
pub fn is_being_written(store: &TileStore) -> bool {
    File::open(store.root().join(LOCK_NAME)).is_ok_and(|lock| lock.try_lock().is_err())
}

fn check_once(store: &TileStore, key: &PublicKey, kept: &[Kept], heard: Heard<'_>) -> Result<Report> {
    let report = Report { origin: key.name().to_owned(), key: key.to_string(), ..Report::default() };
    let mut check =
        Check { store, report, tree: Frontier::default(), heads: Vec::new(), agreed: 0, removed_before: 0 };
    check.removed();
    let own = check.own_checkpoint(key);
    check.kept_checkpoints(key, kept);
    check.report.attested = own.is_some();
    if let Some(own) = own {
        check.report.signed = own.size;
        check.heads.push(Head { from: "checkpoint".into(), checkpoint: own, outside: false });
    }
    check.heads.sort_by_key(|head| head.checkpoint.size);
    check.compare_heads();
    check.published(heard);
    check.write_ahead();
    check.heads_beyond();
    check.strays()?;
    Ok(check.report)
}

struct Head {
    from: String,
    checkpoint: Checkpoint,
    /// It comes from elsewhere.
    outside: bool,
}

struct Check<'a> {
    store: &'a TileStore,
    report: Report,
    tree: Frontier,
    /// Those to be compared, by size.
    heads: Vec<Head>,
    /// The size of the latest checkpoint that agreed.
    agreed: u64,
    /// Bundles before this entry may be missing.
    removed_before: u64,
}

impl Check<'_> {
    fn removed(&mut self) {
        match files::removed_before(self.store) {
            Ok(entry) => self.removed_before = entry,
            Err(error) => self.report.find(What::Damaged, None, files::REMOVED_NAME, format!("{error:#}")),
        }
    }

    fn own_checkpoint(&mut self, key: &PublicKey) -> Option<Checkpoint> {
        let Some(signed) = self.store.checkpoint().unwrap_or_else(|error| {
            self.report.find(What::Damaged, None, "checkpoint", error.to_string());
            None
        }) else {
            if self.report.is_clean() && self.store.root().join("tile").exists() {
                self.report.find(What::Missing, None, "checkpoint", "there is none, and there are tiles");
            }
            return None;
        };
        match key.checkpoint(&signed) {
            Ok(checkpoint) => {
                // What is behind our signature is nobody's.
                let ours = signed.matches("\n— ").count() == 1;
                if !ours {
                    self.report.find(
                        What::Damaged,
                        None,
                        "checkpoint",
                        "it has signatures that are not ours",
                    );
                }
                Some(checkpoint)
            }
            Err(flaw) => {
                self.report.find(what_of(flaw), None, "checkpoint", flaw.to_string());
                // Its size still says how much there should be.
                let text = signed.rfind("\n\n").map_or("", |end| &signed[..=end]);
                let claimed = Checkpoint::parse(text).ok();
                self.report.signed = claimed.as_ref().map_or(0, |checkpoint| checkpoint.size);
                None
            }
        }
    }

    fn kept_checkpoints(&mut self, key: &PublicKey, kept: &[Kept]) {
        for Kept { from, signed } in kept {
            match key.checkpoint(signed) {
                Ok(checkpoint) => self.heads.push(Head { from: from.clone(), checkpoint, outside: true }),
                Err(flaw) => self.report.find(what_of(flaw), None, from.as_str(), flaw.to_string()),
            }
        }
    }

    /// Compares the checkpoints of exactly the size that the tree has now.
    fn compare_heads(&mut self) {
        let size = self.tree.size();
        while self.heads.first().is_some_and(|head| head.checkpoint.size == size) {
            let Head { from, checkpoint, outside } = self.heads.remove(0);
            if checkpoint.root == self.tree.root() {
                self.agreed = size;
                if outside {
                    self.report.anchored = size;
                }
            } else {
                let detail = format!(
                    "its {size} entries are not those of the log; those before {} are as a checkpoint says",
                    self.agreed
                );
                self.report.find(What::Rewritten, Some(self.agreed), from, detail);
            }
        }
    }

    /// Checkpoints of more than there is.
    fn heads_beyond(&mut self) {
        for Head { from, checkpoint, .. } in std::mem::take(&mut self.heads) {
            let (there, size) = (self.tree.size(), checkpoint.size);
            self.report.find(
                What::RolledBack,
                Some(there),
                from,
                format!("it covers {size} entries, and the log has {there}"),
            );
        }
    }

    fn published(&mut self, heard: Heard<'_>) {
        let size = self.report.signed;
        let mut first = 0;
        while first < size {
            let entries = tile_at(Kind::Entries, first, size);
            let Some(hashes) = self.judge(entries, first, size) else { return };
            for hash in hashes {
                self.push(hash);
            }
            first += entries.width;
            heard(first, size);
        }
        self.edge();
    }

    /// Adds a leaf; tiles above the lowest that become full are compared with their files.
    fn push(&mut self, hash: Hash) {
        let mut full = Vec::new();
        self.tree.push(hash, &mut |tile, hashes| {
            if tile.kind != Kind::Hashes(0) {
                full.push((tile, hashes.as_flattened().to_vec()));
            }
        });
        for (tile, expected) in full {
            self.compare_tile(tile, &expected);
        }
        if self.heads.first().is_some_and(|head| head.checkpoint.size == self.tree.size()) {
            self.compare_heads();
        }
    }

    fn compare_tile(&mut self, tile: Tile, expected: &[u8]) {
        let detail = match self.store.read(tile) {
            Ok(None) => "it is missing; the entries are as signed".to_owned(),
            Ok(Some(bytes)) if bytes != expected => "its hashes are not those of the entries".to_owned(),
            Ok(Some(_)) => return,
            Err(error) => error.to_string(),
        };
        self.report.find(What::Damaged, None, tile.path(), detail);
    }

    /// The last tiles, which are not full.
    fn edge(&mut self) {
        let partial: Vec<(Tile, Vec<u8>)> =
            self.tree.partial_tiles().map(|(tile, hashes)| (tile, hashes.as_flattened().to_vec())).collect();
        for (tile, expected) in partial.into_iter().filter(|(tile, _)| tile.kind != Kind::Hashes(0)) {
            self.compare_tile(tile, &expected);
        }
    }

    /// The leaf hashes of one bundle, as they were signed as far as that can be told. `None` when there is nothing
    /// from which the rest of the log could be judged.
    fn judge(&mut self, entries: Tile, first: u64, size: u64) -> Option<Vec<Hash>> {
        let hashes = Tile { kind: Kind::Hashes(0), ..entries };
        // A tile that cannot be read is told below as one that is missing.
        let tile = self.store.read(hashes).unwrap_or_default();
        let width = entries.width as usize;
        let signed = tile.as_deref().and_then(hashes_in).filter(|hashes| hashes.len() == width);
        let bundle = match self.store.read(entries) {
            Ok(bundle) => bundle,
            Err(error) => {
                self.report.find(What::Damaged, Some(first), entries.path(), error.to_string());
                return signed;
            }
        };
        let Some(bundle) = bundle else {
            if first + entries.width <= self.removed_before && signed.is_some() {
                self.report.remove(first, entries.width);
            } else {
                self.report.find(What::Missing, Some(first), entries.path(), "the file is missing");
            }
            return signed;
        };
        let found: Option<Vec<Hash>> =
            entries_in(&bundle).map(|entries| entries.into_iter().map(leaf_hash).collect());
        self.report.bytes += bundle.len() as u64;
        match (found, signed) {
            (Some(found), Some(signed)) if found == signed => Some(found),
            (Some(found), signed) if found.len() == width && self.fits(&found, hashes, size) => {
                let detail =
                    if signed.is_some() { "its hashes were changed" } else { "it is missing or cut" };
                self.report.find(
                    What::Damaged,
                    None,
                    hashes.path(),
                    format!("{detail}; the entries are as signed"),
                );
                Some(found)
            }
            (found, Some(signed)) => {
                let readable = || readable_entries(&bundle, width).into_iter().map(leaf_hash).collect();
                let found = found.unwrap_or_else(readable);
                if found.starts_with(&signed) {
                    let detail = "there is more behind its entries, which are as signed";
                    self.report.find(What::Damaged, None, entries.path(), detail);
                } else {
                    let (what, at, detail) = difference(&found, &signed);
                    self.report.find(what, Some(first + at as u64), entries.path(), detail);
                }
                Some(signed)
            }
            (_, None) => {
                let detail = "neither its entries nor their hashes are as signed";
                self.report.find(What::Changed, Some(first), entries.path(), detail);
                None
            }
        }
    }

    /// Whether these leaves are the signed ones, by the tile above or, at the end of the log, by the signed root.
    fn fits(&self, leaves: &[Hash], tile: Tile, size: u64) -> bool {
        if tile.width == TILE_WIDTH {
            let above = tile_at(Kind::Hashes(1), tile.index, size);
            let bytes = self.store.read(above).unwrap_or_default();
            let hashes = bytes.as_deref().and_then(hashes_in).unwrap_or_default();
            return hashes.get((tile.index % TILE_WIDTH) as usize) == Some(&root_of(leaves));
        }
        let mut tree = self.tree.clone();
        leaves.iter().for_each(|leaf| tree.push(*leaf, &mut |_, _| {}));
        let root = tree.root();
        self.heads.iter().any(|head| head.checkpoint.size == size && head.checkpoint.root == root)
    }

    /// What is not in tiles yet.
    fn write_ahead(&mut self) {
        let signed = self.report.signed;
        let contents = match read_wal(self.store.root(), signed) {
            Ok(contents) => contents,
            Err(error) => return self.report.find(What::Damaged, None, "wal", error.to_string()),
        };
        if self.tree.size() < signed {
            return;
        }
        for batch in contents.batches {
            if batch.first > self.tree.size() {
                let (from, to) = (self.tree.size(), batch.first);
                let detail = format!("entries {from} to {} are neither in tiles nor here", to - 1);
                self.report.find(What::Missing, Some(from), "wal", detail);
                return;
            }
            for (number, entry) in (batch.first..).zip(&batch.entries) {
                if number >= self.tree.size() {
                    self.report.waiting += 1;
                    self.report.bytes += entry.len() as u64;
                    self.push(leaf_hash(entry));
                }
            }
        }
        if contents.torn_bytes > 0 {
            let detail = format!(
                "{} bytes from {} on are no batch{}",
                contents.torn_bytes,
                contents.good_bytes,
                if contents.damaged { ", and whole ones follow" } else { "" }
            );
            let what = if contents.damaged { What::Changed } else { What::Torn };
            self.report.find(what, contents.damaged.then(|| self.tree.size()), "wal", detail);
        }
    }

    /// Files of earlier sizes, the key's halves, and what does not belong here.
    fn strays(&mut self) -> Result<()> {
        for Stray { file, detail } in
            files::strays(self.store, self.report.attested.then_some(self.report.signed))?
        {
            self.report.find(What::Damaged, None, file, detail);
        }
        Ok(())
    }
}

const fn what_of(flaw: NoteFlaw) -> What {
    match flaw {
        NoteFlaw::OtherKey | NoteFlaw::OtherOrigin | NoteFlaw::BadKey => What::OtherKey,
        NoteFlaw::NotANote | NoteFlaw::NotACheckpoint | NoteFlaw::BadSignature => What::Damaged,
    }
}

/// How the entries of a bundle differ from those that were signed, and where that begins.
fn difference(found: &[Hash], signed: &[Hash]) -> (What, usize, String) {
    let at = found.iter().zip(signed).take_while(|(found, signed)| found == signed).count();
    let rest = found.get(at).map_or(&[][..], |_| &found[at..]);
    let sorted = |hashes: &[Hash]| {
        let mut hashes = hashes.to_vec();
        hashes.sort_unstable();
        hashes
    };
    if found.len() == signed.len() && sorted(found) == sorted(signed) {
        return (What::Reordered, at, "its entries stand in another order than they were signed in".into());
    }
    let skipped = signed.len().saturating_sub(found.len());
    if skipped > 0 && (rest.is_empty() || signed.get(at + skipped) == rest.first()) {
        return (What::Missing, at, format!("{skipped} entries that were signed are not there"));
    }
    (What::Changed, at, "it is not the entry that was signed".into())
}
