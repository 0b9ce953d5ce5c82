//! Up to where entries may go.

use crate::config::log::KeepLog;
use crate::record::evidence::files::{self, bundles_on_disk};
use crate::record::evidence::tiles::{Kind, TILE_WIDTH, Tile, TileStore, entries_in};
use crate::record::head::Head;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fs;
use std::time::UNIX_EPOCH;

/// The most bundles that go at once: a quarter of a million entries.
const MOST: u64 = 1024;
const MS: u64 = 1_000_000;

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Entries before this one have gone already.
    pub removed_before: u64,
    /// Entries before this one may go now.
    pub cut: u64,
    /// Bytes of the bundles between.
    pub bytes: u64,
    /// Entries before this one are covered by what has to cover them.
    pub covered: u64,
    /// Bytes of all bundles that are here.
    pub bytes_here: u64,
}

impl Plan {
    /// Nothing may go.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cut <= self.removed_before
    }
}

/// A bundle as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Its size.
    pub bytes: u64,
    /// When its newest entry was written, milliseconds since 1970.
    pub newest_ms: u64,
}

/// The decision, bundle by bundle from the oldest on. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    keep: KeepLog,
    now_ms: u64,
    /// Bytes that would stay.
    left: u64,
}

impl Cut {
    /// Of a log with so many bytes of bundles, now.
    #[must_use]
    pub const fn new(keep: KeepLog, now_ms: u64, bytes: u64) -> Self {
        Self { keep, now_ms, left: bytes }
    }

    /// Whether the next bundle goes.
    pub fn takes(&mut self, bundle: Bundle) -> bool {
        let age_ms = self.now_ms.saturating_sub(bundle.newest_ms);
        let old = self.keep.age_ns.is_some_and(|age| age_ms > age / MS);
        let much = self.keep.bytes.is_some_and(|bytes| self.left > bytes);
        if old || much {
            self.left = self.left.saturating_sub(bundle.bytes);
        }
        old || much
    }
}

/// The bundle of entries with this index, full.
pub(super) const fn bundle(index: u64) -> Tile {
    Tile { kind: Kind::Entries, index, width: TILE_WIDTH }
}

/// What of the log in `store` may go, of which the first `covered` entries are covered. Nothing is changed.
///
/// # Errors
///
/// When the log cannot be read.
pub fn plan(store: &TileStore, keep: KeepLog, covered: u64, now_ms: u64) -> Result<Plan> {
    let removed_before = files::removed_before(store)?;
    let mut here = bundles_on_disk(store).context("listing the log's bundles")?;
    here.retain(|(index, _)| (index + 1) * TILE_WIDTH > removed_before);
    let bytes_here = here.iter().map(|(_, bytes)| bytes).sum();
    let mut plan = Plan { removed_before, cut: removed_before, covered, bytes_here, ..Plan::default() };
    if keep.is_everything() {
        return Ok(plan);
    }
    let mut decision = Cut::new(keep, now_ms, bytes_here);
    let first = removed_before / TILE_WIDTH;
    // The newest full bundle stays whatever its age, so that the log never seems empty.
    let end = (covered.saturating_sub(1) / TILE_WIDTH).min(first + MOST);
    for index in first..end {
        let found = look(store, index)?;
        if !decision.takes(found) {
            break;
        }
        plan.cut = (index + 1) * TILE_WIDTH;
        plan.bytes += found.bytes;
    }
    Ok(plan)
}

/// Reads a bundle's size and the time of its newest entry; a bundle without times has that of its file.
fn look(store: &TileStore, index: u64) -> Result<Bundle> {
    let path = store.root().join(bundle(index).path());
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let times = entries_in(&bytes).unwrap_or_default().into_iter();
    let newest = times.filter_map(|entry| Head::of(entry)?.time()).max();
    let newest_ms = match newest {
        Some(time) => time.0,
        None => {
            let modified = fs::metadata(&path)?.modified()?;
            modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
        }
    };
    Ok(Bundle { bytes: bytes.len() as u64, newest_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_goes_when_it_is_too_old_or_there_is_too_much() {
        let bundles = [(10, 100), (20, 100), (30, 100), (40, 100)];
        let gone = |age_ms: Option<u64>, bytes| {
            let keep = KeepLog { age_ns: age_ms.map(|age| age * MS), bytes };
            let mut cut = Cut::new(keep, 50, 400);
            let takes = |&(newest_ms, bytes): &(u64, u64)| cut.takes(Bundle { bytes, newest_ms });
            bundles.iter().map(takes).take_while(|takes| *takes).count()
        };
        assert_eq!(gone(None, None), 0);
        assert_eq!((gone(Some(25), None), gone(Some(30), None), gone(Some(5), None)), (2, 1, 4));
        assert_eq!((gone(None, Some(400)), gone(None, Some(399)), gone(None, Some(100))), (0, 1, 3));
        assert_eq!(gone(Some(30), Some(150)), 3, "either bound");
        // Times that lie ahead are not old.
        let keep = KeepLog { age_ns: Some(0), bytes: None };
        assert!(!Cut::new(keep, 50, 1).takes(Bundle { bytes: 1, newest_ms: 60 }));
    }
}
