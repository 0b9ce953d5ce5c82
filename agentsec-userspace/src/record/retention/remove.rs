//! Removing bundles, one step at a time; after each the log is valid.

use super::plan::bundle;
use crate::record::evidence::files::{self, REMOVED_NAME, bundles_on_disk};
use crate::record::evidence::tiles::{TILE_WIDTH, TileStore};
use crate::whole_file::sync_directory;
use anyhow::{Context as _, Result};
use std::fs;
use std::io;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Says that entries before this one may be missing.
    Say(u64),
    /// Unlinks the bundle with this index.
    Unlink(u64),
    /// Puts it on the disk that bundles are gone, and removes directories that are empty now.
    Settle,
}

/// The steps that remove everything before entry `to`.
///
/// # Errors
///
/// When the log cannot be listed.
pub(super) fn steps(store: &TileStore, to: u64) -> Result<Vec<Step>> {
    let mut here: Vec<u64> = bundles_on_disk(store)
        .context("listing the log's bundles")?
        .into_iter()
        .map(|(index, _)| index)
        .collect();
    here.retain(|index| (index + 1) * TILE_WIDTH <= to);
    here.sort_unstable();
    let mut steps = Vec::new();
    if files::removed_before(store)? < to {
        steps.push(Step::Say(to));
    }
    if !here.is_empty() {
        steps.extend(here.into_iter().map(Step::Unlink));
        steps.push(Step::Settle);
    }
    Ok(steps)
}

/// Takes one step.
///
/// # Errors
///
/// When it cannot; it may be taken again.
pub(super) fn take(store: &TileStore, step: Step) -> Result<()> {
    match step {
        Step::Say(to) => {
            store.replace_beside(REMOVED_NAME, format!("{to}\n").as_bytes()).context("saying what is removed")
        }
        Step::Unlink(index) => {
            let path = store.root().join(bundle(index).path());
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("removing {}", path.display()))
                }
                _ => Ok(()),
            }
        }
        Step::Settle => settle(&store.root().join("tile/entries")).context("syncing the log's directories"),
    }
}

/// Removes directories that are empty, and syncs the others. Bundles of numbers below 1000 lie in the top one.
fn settle(directory: &std::path::Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_group = entry.file_name().as_encoded_bytes().starts_with(b"x") && entry.file_type()?.is_dir();
        if is_group {
            settle(&entry.path())?;
            // The writer makes its directory again, if it is the one that it writes to next.
            match fs::remove_dir(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => return Err(error),
                _ => {}
            }
        }
    }
    sync_directory(directory)
}
