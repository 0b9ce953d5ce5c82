//! An index over the log: a cache that answers quicker, and is never believed over the log.
//!
//! It is a SQLite file with a row for each entry: its place, time, and small numbers for agent, type, endpoint and ids.
//! It holds no event. An answer is a list of places; what stands there is read from the log and checked against the
//! question, so the index can show nothing that is not in the log. That it hides nothing either is checked by
//! [`tally`]s. An index that is missing, half built, of another log, or that contradicts itself or the log is not used:
//! the log is read from its start, and the index is built anew.
//!
//! What the index does not cover yet is read from the log, so an answer is complete however old the index is.

mod answer;
mod build;
mod catch_up;
mod files;
mod keeper;
pub mod key;
mod schema;
pub mod tally;
#[cfg(test)]
mod tests;

pub use answer::{Answer, PLACES_MAX};
pub use build::{Built, rebuild};
pub use catch_up::catch_up;
pub use files::Files;
pub use keeper::Keeper;
pub use schema::Coverage;

use std::fmt;
use std::io;

/// Why an index is not used or not made.
#[derive(Debug)]
pub enum IndexError {
    /// There is none.
    Missing,
    /// It was not built to its end.
    Unfinished,
    /// It was made by another version.
    OtherFormat {
        /// That version's format.
        format: i64,
    },
    /// It covers another log than this one.
    OtherLog,
    /// It contradicts itself or the log.
    Contradiction(&'static str),
    /// Somebody else is at it.
    Busy,
    /// SQLite says so; mostly, that the file is damaged.
    Sqlite(rusqlite::Error),
    /// The system says so.
    Io(io::Error),
}

impl IndexError {
    /// Whether building it anew would help: not when the disk is full or somebody else is at it.
    #[must_use]
    pub fn wants_rebuild(&self) -> bool {
        match self {
            Self::Busy | Self::Io(_) => false,
            Self::Sqlite(_) => self.is_damage(),
            Self::Missing | Self::Unfinished | Self::OtherFormat { .. } => true,
            Self::OtherLog | Self::Contradiction(_) => true,
        }
    }

    /// Whether the index is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{ApiMisuse, DatabaseCorrupt, NotADatabase, TypeMismatch, Unknown};
        match self {
            Self::Contradiction(_) => true,
            // Without a code it is a value or a table that is not as it was written.
            Self::Sqlite(error) => error.sqlite_error_code().is_none_or(|code| {
                matches!(code, ApiMisuse | DatabaseCorrupt | NotADatabase | TypeMismatch | Unknown)
            }),
            _ => false,
        }
    }
}

impl fmt::Display for IndexError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => out.write_str("there is no index"),
            Self::Unfinished => out.write_str("the index was not built to its end"),
            Self::OtherFormat { format } => {
                write!(out, "the index has format {format}, not {}", schema::FORMAT)
            }
            Self::OtherLog => out.write_str("the index is of another log than this one"),
            Self::Contradiction(what) => write!(out, "the index cannot be believed: {what}"),
            Self::Busy => out.write_str("somebody else is building the index"),
            Self::Sqlite(error) => write!(out, "the index: {error}"),
            Self::Io(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for IndexError {}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<io::Error> for IndexError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
