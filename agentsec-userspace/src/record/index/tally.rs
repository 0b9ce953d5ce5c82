//! How many entries of each kind there should be, and the sum of their places.
//!
//! Tallies are why an index can be believed: what a question finds is added up and compared, so an entry that is
//! missing from the index, or moved within it, is noticed. They also tell beforehand which way to an answer is the
//! shortest.

use super::key::{self, HOUR_MS, Row};
use std::collections::HashMap;

/// What is tallied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// All entries, by hour.
    Time = 0,
    /// By agent and hour.
    Agent = 1,
    /// By type and hour.
    Kind = 2,
    /// By bucket of endpoints.
    Endpoint = 3,
    /// By bucket of correlation ids.
    Correlation = 4,
    /// By bucket of trace ids.
    Trace = 5,
    /// By bucket of reported ids.
    Reported = 6,
}

/// The classes of a row's ids, in their order.
pub const IDS: [Class; 3] = [Class::Correlation, Class::Trace, Class::Reported];

/// A number of entries and the sum of their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub entries: i64,
    /// The wrapping sum of their places and keys, each pair spread over all bits.
    pub sum: i64,
}

impl Tally {
    /// Counts the entry at `place` under its whole key.
    pub const fn add(&mut self, place: i64, key: i64) {
        self.entries += 1;
        self.sum = self.sum.wrapping_add(key::spread(place as u64 ^ key::spread(key as u64)) as i64);
    }

    /// Counts the entries of another one as well.
    pub const fn add_all(&mut self, other: Self) {
        self.entries = self.entries.wrapping_add(other.entries);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Tallies of entries that have not been written yet, by class, key and hour.
#[derive(Debug, Default)]
pub struct Tallies(pub HashMap<(Class, i64, i64), Tally>);

impl Tallies {
    /// Counts an entry wherever it belongs.
    pub fn count(&mut self, row: &Row) {
        let hour = hour_of(row.time_ms);
        let mut add = |class, tally_key, hour, key| {
            self.0.entry((class, tally_key, hour)).or_default().add(row.place, key);
        };
        add(Class::Time, 0, hour, 0);
        add(Class::Kind, row.kind, hour, row.kind);
        if let Some(agent) = row.agent {
            add(Class::Agent, agent, hour, agent);
        }
        if let Some(endpoint) = row.endpoint {
            add(Class::Endpoint, key::endpoint_bucket(endpoint), 0, endpoint);
        }
        for (class, id) in IDS.into_iter().zip(row.ids) {
            if let Some(id) = id {
                add(class, key::correlation_bucket(id), 0, id);
            }
        }
    }
}

/// The hour of a time.
#[must_use]
pub const fn hour_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(HOUR_MS)
}
