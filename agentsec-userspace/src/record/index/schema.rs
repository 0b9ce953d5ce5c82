//! The tables, and the one row that says what the index covers.

use super::IndexError;
use super::key::Row;
use super::tally::{Class, Tallies, Tally};
use crate::core::hex::{hex, sha256};
use crate::record::head::Head;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// Another number is another layout, which is rebuilt.
pub const FORMAT: i64 = 1;
/// Names that are kept for people; more agents have their keys only.
const NAMES: usize = 65_536;

const TABLES: &str = "
CREATE TABLE coverage(
  id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, entries INTEGER NOT NULL, first INTEGER NOT NULL,
  last INTEGER NOT NULL, last_sha256 TEXT NOT NULL, seal TEXT NOT NULL);
CREATE TABLE entry(
  place INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, agent INTEGER, kind INTEGER NOT NULL, endpoint INTEGER,
  correlation INTEGER, trace INTEGER, reported INTEGER);
CREATE TABLE tally(
  class INTEGER, key INTEGER, hour INTEGER, entries INTEGER NOT NULL, sum INTEGER NOT NULL,
  PRIMARY KEY (class, key, hour)) WITHOUT ROWID;
CREATE TABLE agent(key INTEGER, name TEXT, PRIMARY KEY (key, name)) WITHOUT ROWID;
CREATE TABLE kind(key INTEGER, name TEXT, PRIMARY KEY (key, name)) WITHOUT ROWID;
CREATE VIEW event AS
  SELECT place, strftime('%Y-%m-%dT%H:%M:%fZ', time_ms / 1000.0, 'unixepoch') AS time, agent.name AS agent,
    kind.name AS type
  FROM entry LEFT JOIN agent ON agent.key = entry.agent LEFT JOIN kind ON kind.key = entry.kind;";

const INDEXES: [&str; 7] = [
    "CREATE INDEX by_time ON entry(time_ms)",
    "CREATE INDEX by_agent ON entry(agent, time_ms) WHERE agent IS NOT NULL",
    "CREATE INDEX by_kind ON entry(kind, time_ms)",
    "CREATE INDEX by_endpoint ON entry(endpoint) WHERE endpoint IS NOT NULL",
    "CREATE INDEX by_correlation ON entry(correlation) WHERE correlation IS NOT NULL",
    "CREATE INDEX by_trace ON entry(trace) WHERE trace IS NOT NULL",
    "CREATE INDEX by_reported ON entry(reported) WHERE reported IS NOT NULL",
];

/// Makes the tables.
pub fn create(connection: &Connection) -> Result<(), IndexError> {
    Ok(connection.execute_batch(TABLES)?)
}

/// Makes the indexes, which is quicker after the rows than with them.
pub fn create_indexes(connection: &Connection) -> Result<(), IndexError> {
    INDEXES.iter().try_for_each(|index| Ok(connection.execute_batch(index)?))
}

/// What an index covers: all entries of the log up to one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// How many entries.
    pub entries: u64,
    /// Place of the first one that was covered.
    pub first: u64,
    /// Place of the last.
    pub last: u64,
    /// SHA-256 of the last one's line, in hex: if the log has another one there, it is another log.
    pub last_sha256: String,
}

impl Coverage {
    /// A digest of the row, so that it cannot be wrong by accident.
    fn seal(&self) -> String {
        let Self { entries, first, last, last_sha256 } = self;
        hex(&Sha256::digest(format!("{FORMAT} {entries} {first} {last} {last_sha256}")))
    }

    /// What the index says.
    ///
    /// # Errors
    ///
    /// When it says nothing, or nothing that can be believed.
    pub fn read(connection: &Connection) -> Result<Self, IndexError> {
        let sql = "SELECT format, entries, first, last, last_sha256, seal FROM coverage WHERE id = 1";
        let found = connection.query_row(sql, [], |row| {
            let number = |column| row.get::<_, i64>(column).map(|number| number as u64);
            let coverage =
                Self { entries: number(1)?, first: number(2)?, last: number(3)?, last_sha256: row.get(4)? };
            Ok((row.get::<_, i64>(0)?, coverage, row.get::<_, String>(5)?))
        });
        let (format, coverage, seal) = found.optional()?.ok_or(IndexError::Unfinished)?;
        match () {
            () if format != FORMAT => Err(IndexError::OtherFormat { format }),
            () if seal != coverage.seal() => Err(IndexError::Contradiction("its coverage has another seal")),
            () => Ok(coverage),
        }
    }

    /// Says it in the index.
    pub fn write(&self, connection: &Connection) -> Result<(), IndexError> {
        let Self { entries, first, last, last_sha256 } = self;
        connection.execute(
            "INSERT OR REPLACE INTO coverage VALUES (1, ?, ?, ?, ?, ?, ?)",
            params![FORMAT, *entries as i64, *first as i64, *last as i64, last_sha256, self.seal()],
        )?;
        Ok(())
    }
}

/// SHA-256 of a line, in hex.
#[must_use]
pub fn digest(line: &[u8]) -> String {
    sha256(line)
}

/// Names that were met, for people who look into the index.
#[derive(Debug, Default)]
pub struct Names {
    agents: HashSet<String>,
    kinds: HashSet<String>,
}

impl Names {
    /// Remembers the names of an entry.
    pub fn meet(&mut self, head: &Head<'_>) {
        meet(&mut self.kinds, head.kind());
        if let Some(agent) = head.agent() {
            meet(&mut self.agents, agent);
        }
    }

    /// Remembers all names of another one.
    pub fn meet_all(&mut self, other: Self) {
        other.agents.iter().for_each(|name| meet(&mut self.agents, name));
        other.kinds.iter().for_each(|name| meet(&mut self.kinds, name));
    }

    /// Puts them into the index.
    pub fn write(&self, connection: &Connection) -> Result<(), IndexError> {
        let all = [
            ("agent", &self.agents, super::key::agent as fn(&str) -> i64),
            ("kind", &self.kinds, super::key::kind),
        ];
        for (table, names, key) in all {
            let mut insert =
                connection.prepare_cached(&format!("INSERT OR IGNORE INTO {table} VALUES (?, ?)"))?;
            for name in names {
                insert.execute(params![key(name), name])?;
            }
        }
        Ok(())
    }
}

fn meet(names: &mut HashSet<String>, name: &str) {
    if names.len() < NAMES && !names.contains(name) {
        names.insert(name.to_owned());
    }
}

/// Puts rows into the index, whose places are all new.
pub fn insert(connection: &Connection, rows: &[Row]) -> Result<(), IndexError> {
    let mut insert = connection.prepare_cached("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?;
    for row in rows {
        let [correlation, trace, reported] = row.ids;
        insert.execute(params![
            row.place,
            row.time_ms,
            row.agent,
            row.kind,
            row.endpoint,
            correlation,
            trace,
            reported
        ])?;
    }
    Ok(())
}

/// Adds tallies to those in the index.
pub fn add_tallies(connection: &Connection, tallies: &Tallies) -> Result<(), IndexError> {
    let mut find = connection
        .prepare_cached("SELECT entries, sum FROM tally WHERE class = ? AND key = ? AND hour = ?")?;
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO tally VALUES (?, ?, ?, ?, ?)")?;
    for (&(class, key, hour), more) in &tallies.0 {
        let found = find.query_row(params![class as u8, key, hour], tally_of).optional()?;
        let mut tally = found.unwrap_or_default();
        tally.add_all(*more);
        put.execute(params![class as u8, key, hour, tally.entries, tally.sum])?;
    }
    Ok(())
}

/// The tally over some hours.
pub fn tally(
    connection: &Connection,
    class: Class,
    key: i64,
    hours: (i64, i64),
) -> Result<Tally, IndexError> {
    let sql = "SELECT entries, sum FROM tally WHERE class = ? AND key = ? AND hour BETWEEN ? AND ?";
    let mut find = connection.prepare_cached(sql)?;
    let mut total = Tally::default();
    for tally in find.query_map(params![class as u8, key, hours.0, hours.1], tally_of)? {
        total.add_all(tally?);
    }
    Ok(total)
}

fn tally_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Tally> {
    Ok(Tally { entries: row.get(0)?, sum: row.get(1)? })
}
