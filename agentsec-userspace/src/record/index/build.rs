//! Building an index anew, beside the one in use.

use super::key::Row;
use super::schema::{self, Coverage, Names};
use super::tally::Tallies;
use super::{Files, IndexError};
use crate::record::entries::{Entry, EventSource};
use crate::record::head::Head;
use rusqlite::Connection;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::{Receiver, sync_channel};

/// Entries that go from one thread to the next at once.
const BATCH: usize = 4096;
/// Batches that wait between two threads, at most.
const WAITING: usize = 4;
/// Tallies kept in memory, at most.
const TALLIES: usize = 1 << 20;
/// SQLite's memory for pages and for sorting, in KiB.
const CACHE_KIB: i64 = 64 * 1024;

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Entries of the log.
    pub entries: u64,
    /// Of these, lines that are no events and cannot be asked for.
    pub unreadable: u64,
}

/// Builds an index over the whole log and puts it into use. A reader uses the old one until then; who dies on the way
/// leaves the old one in use.
///
/// # Errors
///
/// When somebody else is building, or the disk or the log fails.
pub fn rebuild(files: &Files, source: &dyn EventSource) -> Result<Built, IndexError> {
    files.make()?;
    let _building = files.lock_build()?;
    let path = files.unfinished();
    files.remove(&path)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let result = build(&path, source);
    if result.is_err() {
        files.remove(&path)?;
    }
    let built = result?;
    files.exchange()?;
    Ok(built)
}

fn build(path: &std::path::Path, source: &dyn EventSource) -> Result<Built, IndexError> {
    let connection = Connection::open(path)?;
    // Until it is finished nobody uses it, so it need not survive anything.
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA cache_size = -{CACHE_KIB}; PRAGMA threads = 1;"
    ))?;
    schema::create(&connection)?;
    connection.execute_batch("BEGIN")?;
    let entries = source.entries_from(0)?;
    let (coverage, unreadable) = std::thread::scope(|scope| {
        let (to_parser, lines) = sync_channel(WAITING);
        let (to_writer, parsed) = sync_channel(WAITING);
        scope.spawn(move || send_batches(entries, |batch| to_parser.send(batch).is_ok()));
        scope.spawn(move || {
            let batches =
                lines.into_iter().map(|batch: io::Result<Vec<Entry>>| batch.map(|batch| Parsed::of(&batch)));
            for batch in batches {
                if to_writer.send(batch).is_err() {
                    break;
                }
            }
        });
        write(&connection, &parsed)
    })?;
    schema::create_indexes(&connection)?;
    coverage.write(&connection)?;
    connection.execute_batch("COMMIT")?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(Built { entries: coverage.entries, unreadable })
}

/// Sends entries on in batches until there are none, one fails, or nobody wants them any more.
fn send_batches(
    mut entries: impl Iterator<Item = io::Result<Entry>>,
    send: impl Fn(io::Result<Vec<Entry>>) -> bool,
) {
    loop {
        let batch: io::Result<Vec<Entry>> = entries.by_ref().take(BATCH).collect();
        let go_on = batch.as_ref().is_ok_and(|batch| batch.len() == BATCH);
        if !send(batch) || !go_on {
            return;
        }
    }
}

/// A batch, ready to be written.
pub(super) struct Parsed {
    pub rows: Vec<Row>,
    pub names: Names,
    pub coverage: Coverage,
}

impl Parsed {
    pub fn of(batch: &[Entry]) -> Self {
        let mut rows = Vec::with_capacity(batch.len());
        let mut names = Names::default();
        for (place, line) in batch {
            let Some(head) = Head::of(line) else { continue };
            rows.push(Row::of(*place, &head));
            names.meet(&head);
        }
        let coverage = match (batch.first(), batch.last()) {
            (Some((first, _)), Some((last, line))) => Coverage {
                entries: batch.len() as u64,
                first: *first,
                last: *last,
                last_sha256: schema::digest(line),
            },
            _ => Coverage::default(),
        };
        Self { rows, names, coverage }
    }
}

impl Coverage {
    /// What is covered after a batch more.
    pub(super) fn extend(&mut self, more: Self) {
        if more.entries > 0 {
            let (entries, first) = (self.entries, self.first);
            *self = more;
            if entries > 0 {
                self.entries += entries;
                self.first = first;
            }
        }
    }
}

fn write(
    connection: &Connection,
    parsed: &Receiver<io::Result<Parsed>>,
) -> Result<(Coverage, u64), IndexError> {
    let (mut coverage, mut unreadable) = (Coverage::default(), 0);
    let (mut tallies, mut names) = (Tallies::default(), Names::default());
    for batch in parsed {
        let batch = batch?;
        schema::insert(connection, &batch.rows)?;
        batch.rows.iter().for_each(|row| tallies.count(row));
        if tallies.0.len() > TALLIES {
            schema::add_tallies(connection, &std::mem::take(&mut tallies))?;
        }
        names.meet_all(batch.names);
        unreadable += batch.coverage.entries - batch.rows.len() as u64;
        coverage.extend(batch.coverage);
    }
    schema::add_tallies(connection, &tallies)?;
    names.write(connection)?;
    Ok((coverage, unreadable))
}
