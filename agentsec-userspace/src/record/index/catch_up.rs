//! Adding what the log has and the index has not.

use super::build::Parsed;
use super::schema;
use super::tally::Tallies;
use super::{Files, IndexError};
use crate::record::entries::{Entry, EventSource};
use std::io;

/// Adds at most `most` entries to the index in use, in one transaction. How many there were.
///
/// # Errors
///
/// When there is no index of this log, or it or the log fails. Nothing is added then.
pub fn catch_up(files: &Files, source: &dyn EventSource, most: usize) -> Result<usize, IndexError> {
    if !files.index().exists() {
        return Err(IndexError::Missing);
    }
    let _building = files.lock_build()?;
    let _alone = files.lock_alone()?;
    let (mut connection, mut coverage) = files.open(source, true)?;
    // The last one that is covered comes first.
    let known = usize::from(coverage.entries > 0);
    let entries: io::Result<Vec<Entry>> =
        source.entries_from(coverage.last)?.skip(known).take(most).collect();
    let batch = Parsed::of(&entries?);
    let added = batch.coverage.entries as usize;
    if added == 0 {
        return Ok(0);
    }
    let transaction = connection.transaction()?;
    let mut tallies = Tallies::default();
    batch.rows.iter().for_each(|row| tallies.count(row));
    schema::insert(&transaction, &batch.rows)?;
    schema::add_tallies(&transaction, &tallies)?;
    batch.names.write(&transaction)?;
    coverage.extend(batch.coverage);
    coverage.write(&transaction)?;
    transaction.commit()?;
    Ok(added)
}
