//! Which places of the log a question is about.

use super::key::{self, HOUR_MS};
use super::schema;
use super::tally::{Class, IDS, Tally, hour_of};
use super::{Files, IndexError};
use crate::record::entries::EventSource;
use crate::record::query::EventQuery;
use rusqlite::{Connection, params};

/// A question with more places than this is answered by reading the log, which is then as quick.
pub const PLACES_MAX: i64 = 1_000_000;

/// What an index says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where to look, in the order of the log. What stands there need not be wanted.
    pub places: Vec<u64>,
    /// The last place that the index covers. What comes after it is not among `places`.
    pub covered_to: Option<u64>,
}

/// One way to the places: by one index, over one range of its keys.
struct Way {
    class: Class,
    /// What the tally is under.
    tally_key: i64,
    /// The keys that are read, and those of them that are wanted.
    keys: (i64, i64),
    wanted: (i64, i64),
}

impl Answer {
    /// The answer to `query`, or `None` if the log itself is the quicker way to it.
    ///
    /// # Errors
    ///
    /// When there is no index that can be believed.
    pub fn find(
        files: &Files,
        source: &dyn EventSource,
        query: &EventQuery,
    ) -> Result<Option<Self>, IndexError> {
        if query.wants_all() {
            return Ok(None);
        }
        let _shared = files.lock_shared()?;
        let (connection, coverage) = files.open(source, false)?;
        let hours = hours(query);
        let mut best: Option<(i64, Vec<Way>)> = None;
        for ways in possible(query) {
            let mut entries: i64 = 0;
            for way in &ways {
                entries = entries.saturating_add(way.tally(&connection, hours)?.entries.max(0));
            }
            if best.as_ref().is_none_or(|(least, _)| entries < *least) {
                best = Some((entries, ways));
            }
        }
        let Some((_, ways)) = best.filter(|(entries, _)| *entries <= PLACES_MAX) else { return Ok(None) };
        let mut places = Vec::new();
        for way in ways {
            way.collect(&connection, hours, &mut places)?;
        }
        places.sort_unstable();
        places.dedup();
        if places.last().is_some_and(|last| *last > coverage.last) {
            return Err(IndexError::Contradiction("it knows entries that it does not cover"));
        }
        Ok(Some(Self { places, covered_to: (coverage.entries > 0).then_some(coverage.last) }))
    }
}

/// The hours of a question, the first and the last one whole: tallies are by the hour.
fn hours(query: &EventQuery) -> (i64, i64) {
    let first = query.since.map_or(0, |since| hour_of(since.0 as i64));
    let last = query.until.map_or(i64::MAX / HOUR_MS - 1, |until| hour_of(until.0 as i64));
    (first, last)
}

/// The ways to an answer, each of one or several parts. Any of them will do.
fn possible(query: &EventQuery) -> Vec<Vec<Way>> {
    let exact = |class, key| Way { class, tally_key: key, keys: (key, key), wanted: (key, key) };
    let mut ways = vec![vec![exact(Class::Time, 0)]];
    ways.extend(query.agent.iter().map(|agent| vec![exact(Class::Agent, key::agent(agent))]));
    if !query.types.is_empty() {
        ways.push(query.types.iter().map(|kind| exact(Class::Kind, key::kind(kind))).collect());
    }
    if let Some(id) = &query.correlation {
        let id = key::correlation(id);
        let bucket = key::correlation_bucket(id);
        let keys = key::correlation_keys(bucket);
        ways.push(
            IDS.iter().map(|&class| Way { class, tally_key: bucket, keys, wanted: (id, id) }).collect(),
        );
    }
    if let Some(endpoint) = query.endpoint {
        let key = |port| key::endpoint(endpoint.address, port);
        let wanted = endpoint.port.map_or((key(0), key(u16::MAX)), |port| (key(port), key(port)));
        let bucket = key::endpoint_bucket(wanted.0);
        let keys = key::endpoint_keys(bucket);
        ways.push(vec![Way { class: Class::Endpoint, tally_key: bucket, keys, wanted }]);
    }
    ways
}

impl Way {
    /// Whether its tallies are by the hour.
    const fn is_hourly(&self) -> bool {
        matches!(self.class, Class::Time | Class::Agent | Class::Kind)
    }

    fn tally(&self, connection: &Connection, hours: (i64, i64)) -> Result<Tally, IndexError> {
        let hours = if self.is_hourly() { hours } else { (0, 0) };
        schema::tally(connection, self.class, self.tally_key, hours)
    }

    /// Adds its places, after all that were read have been compared with their tally.
    fn collect(
        &self,
        connection: &Connection,
        hours: (i64, i64),
        places: &mut Vec<u64>,
    ) -> Result<(), IndexError> {
        let expected = self.tally(connection, hours)?;
        let mut statement = connection.prepare_cached(self.sql())?;
        let times = (hours.0 * HOUR_MS, (hours.1 + 1) * HOUR_MS - 1);
        let mut rows = match self.class {
            Class::Time => statement.query(params![times.0, times.1])?,
            Class::Agent | Class::Kind => statement.query(params![self.keys.0, times.0, times.1])?,
            _ => statement.query(params![self.keys.0, self.keys.1])?,
        };
        let mut found = Tally::default();
        while let Some(row) = rows.next()? {
            let (key, place): (i64, i64) = (row.get(0)?, row.get(1)?);
            found.add(place, key);
            if found.entries > expected.entries {
                break;
            }
            if (self.wanted.0..=self.wanted.1).contains(&key) {
                places.push(place as u64);
            }
        }
        if found != expected {
            return Err(IndexError::Contradiction("its entries are not those that it has counted"));
        }
        Ok(())
    }

    const fn sql(&self) -> &'static str {
        match self.class {
            Class::Time => "SELECT 0, place FROM entry INDEXED BY by_time WHERE time_ms BETWEEN ? AND ?",
            Class::Agent => {
                "SELECT agent, place FROM entry INDEXED BY by_agent WHERE agent = ? AND time_ms BETWEEN ? AND ?"
            }
            Class::Kind => {
                "SELECT kind, place FROM entry INDEXED BY by_kind WHERE kind = ? AND time_ms BETWEEN ? AND ?"
            }
            Class::Endpoint => {
                "SELECT endpoint, place FROM entry INDEXED BY by_endpoint WHERE endpoint BETWEEN ? AND ?"
            }
            Class::Correlation => {
                "SELECT correlation, place FROM entry INDEXED BY by_correlation WHERE correlation BETWEEN ? AND ?"
            }
            Class::Trace => "SELECT trace, place FROM entry INDEXED BY by_trace WHERE trace BETWEEN ? AND ?",
            Class::Reported => {
                "SELECT reported, place FROM entry INDEXED BY by_reported WHERE reported BETWEEN ? AND ?"
            }
        }
    }
}
