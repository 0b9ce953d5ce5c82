//! The index against the log that it is over.

use super::keeper::keep;
use super::*;
use crate::record::entries::EventSource;
use crate::record::evidence::{EvidenceLog, EvidenceSource};
use crate::record::query::EventQuery;
use crate::record::timestamp::Timestamp;
use proptest::prelude::*;
use std::cell::RefCell;
use std::fs;

/// A log in a directory of its own.
struct Log {
    directory: tempfile::TempDir,
    log: RefCell<Option<EvidenceLog>>,
    source: EvidenceSource,
    files: Files,
}

/// 2026-01-01.
const START_MS: u64 = 1_767_225_600_000;

fn line(number: u64) -> String {
    let agent = ["crawler", "mailer", "planner"][number as usize % 3];
    let kind = if number.is_multiple_of(7) { "LOSS" } else { "AGENT_INTERACTION" };
    // One in ten is told late.
    let at = Timestamp(START_MS + number * 60_000 - if number % 10 == 9 { 90 * 60_000 } else { 0 });
    let (host, flow) = (number % 5, number / 2);
    format!(
        r#"{{"agent_id":"{agent}","correlation_id":"flow-{flow}","event_data":{{"remote_address":"192.0.2.{host}","remote_port":{},"trace_id":"trace-{}"}},"event_type":"{kind}","timestamp":"{at}"}}"#,
        440 + number % 4,
        number / 6,
    )
}

impl Log {
    fn new(lines: std::ops::Range<u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = EvidenceSource::in_state(directory.path());
        let files = Files::in_state(directory.path());
        let log = Self { directory, log: RefCell::new(None), source, files };
        log.append(lines);
        log
    }

    fn append(&self, lines: std::ops::Range<u64>) {
        self.append_lines(&lines.map(line).collect::<Vec<_>>());
    }

    /// What is appended is in tiles but for the last hundred, which wait.
    fn append_lines(&self, lines: &[String]) {
        let mut log = self.log.borrow_mut();
        let path = self.directory.path().join("log");
        let log = log.get_or_insert_with(|| EvidenceLog::open(&path, "host").unwrap().log);
        let (first, last) = lines.split_at(lines.len().saturating_sub(100));
        log.append(first, false).unwrap();
        log.publish().unwrap();
        log.append(last, false).unwrap();
    }

    /// Another log takes its place.
    fn replace(&self, lines: std::ops::Range<u64>) {
        *self.log.borrow_mut() = None;
        fs::remove_dir_all(self.directory.path().join("log")).unwrap();
        self.append(lines);
    }

    /// The answer as a reader makes it: the places of the index, then what it does not cover, all checked.
    fn through_index(&self, query: &EventQuery) -> Result<Option<Vec<u64>>, IndexError> {
        let Some(answer) = Answer::find(&self.files, &self.source, query)? else { return Ok(None) };
        let lines = self.source.entries_at(&answer.places).unwrap();
        let mut found: Vec<u64> = Vec::new();
        for (place, line) in answer.places.iter().zip(lines) {
            let line = line.ok_or(IndexError::Contradiction("no line"))?;
            found.extend(query.wants(&line).then_some(*place));
        }
        let rest = self.scan(query);
        found.extend(rest.into_iter().filter(|place| answer.covered_to.is_none_or(|to| *place > to)));
        Ok(Some(found))
    }

    fn scan(&self, query: &EventQuery) -> Vec<u64> {
        let entries = self.source.entries_from(0).unwrap().map(Result::unwrap);
        entries.filter(|(_, line)| query.wants(line)).map(|(place, _)| place).collect()
    }
}

fn queries() -> Vec<EventQuery> {
    let base = EventQuery::default;
    let at = |minute: u64| Some(Timestamp(START_MS + minute * 60_000));
    let agent = || Some("mailer".to_owned());
    vec![
        EventQuery { agent: agent(), ..base() },
        EventQuery { agent: agent(), since: at(30), until: at(61), ..base() },
        EventQuery { agent: Some("nobody".into()), ..base() },
        EventQuery { types: vec!["loss".into(), "ALERT".into()], ..base() },
        EventQuery { since: at(100), ..base() },
        EventQuery { until: at(5), ..base() },
        EventQuery { correlation: Some("flow-12".into()), ..base() },
        EventQuery { correlation: Some("trace-9".into()), agent: agent(), ..base() },
        EventQuery { endpoint: "192.0.2.3".parse().ok(), ..base() },
        EventQuery { endpoint: "192.0.2.3:441".parse().ok(), types: vec!["loss".into()], ..base() },
    ]
}

#[test]
fn every_question_gets_the_same_answer_as_from_the_log() {
    let log = Log::new(0..300);
    assert_eq!(rebuild(&log.files, &log.source).unwrap(), Built { entries: 300, unreadable: 0 });
    for (number, query) in queries().iter().enumerate() {
        let expected = log.scan(query);
        assert_eq!(expected.is_empty(), query.agent.as_deref() == Some("nobody"), "{number}");
        assert_eq!(log.through_index(query).unwrap(), Some(expected), "{query:?}");
    }
}

#[test]
fn what_is_added_later_is_found_before_and_after_the_index_has_caught_up() {
    let log = Log::new(0..100);
    rebuild(&log.files, &log.source).unwrap();
    log.append(100..250);
    for most in [0, 1, 60, 1000, 1000] {
        catch_up(&log.files, &log.source, most).unwrap();
        for query in queries() {
            assert_eq!(log.through_index(&query).unwrap(), Some(log.scan(&query)), "{most}: {query:?}");
        }
    }
    assert_eq!(catch_up(&log.files, &log.source, 1000).unwrap(), 0, "nothing is left");
}

#[test]
fn lines_that_are_no_events_are_counted_and_hide_nothing() {
    let log = Log::new(0..5);
    log.append_lines(&["not json", "[]", "{\"event_data\":7}"].map(str::to_owned));
    log.append(5..10);
    assert_eq!(rebuild(&log.files, &log.source).unwrap(), Built { entries: 13, unreadable: 2 });
    for query in queries() {
        assert_eq!(log.through_index(&query).unwrap(), Some(log.scan(&query)), "{query:?}");
    }
}

#[test]
fn an_index_that_is_missing_unfinished_or_of_another_log_is_built_anew() {
    let log = Log::new(0..50);
    let query = &queries()[0];
    let error = |log: &Log| log.through_index(query).unwrap_err();
    assert!(matches!(error(&log), IndexError::Missing));
    keep(&log.files, &log.source).unwrap();
    assert!(log.through_index(query).is_ok());

    // As a crash in the middle of a build would leave it, had it been in the index's place.
    let connection = rusqlite::Connection::open(log.files.index()).unwrap();
    connection.execute_batch("DELETE FROM coverage").unwrap();
    drop(connection);
    assert!(matches!(error(&log), IndexError::Unfinished));
    keep(&log.files, &log.source).unwrap();
    assert_eq!(log.through_index(query).unwrap(), Some(log.scan(query)));

    // An old copy of the log put back, and one that was cut and has grown again.
    log.replace(0..25);
    assert!(matches!(error(&log), IndexError::OtherLog));
    log.append(400..450);
    assert!(matches!(error(&log), IndexError::OtherLog));
    keep(&log.files, &log.source).unwrap();
    assert_eq!(log.through_index(query).unwrap(), Some(log.scan(query)));
}

#[test]
fn a_build_that_died_leaves_the_index_in_use_and_is_begun_anew() {
    let log = Log::new(0..50);
    rebuild(&log.files, &log.source).unwrap();
    fs::write(log.files.unfinished(), b"half of an index").unwrap();
    fs::write(log.files.unfinished().with_extension("new-journal"), b"its journal").unwrap();
    let query = &queries()[0];
    assert_eq!(log.through_index(query).unwrap(), Some(log.scan(query)));
    rebuild(&log.files, &log.source).unwrap();
    assert!(!log.files.unfinished().exists());
    assert_eq!(log.through_index(query).unwrap(), Some(log.scan(query)));
}

#[test]
fn only_one_builds_at_a_time() {
    let log = Log::new(0..5);
    rebuild(&log.files, &log.source).unwrap();
    let held = log.files.lock_build().unwrap();
    assert!(matches!(rebuild(&log.files, &log.source), Err(IndexError::Busy)));
    assert!(matches!(catch_up(&log.files, &log.source, 1), Err(IndexError::Busy)));
    drop(held);
    assert!(rebuild(&log.files, &log.source).is_ok());
}

#[test]
fn an_entry_missing_from_an_index_or_moved_in_it_is_noticed() {
    for damage in [
        "DELETE FROM entry WHERE place = (SELECT max(place) FROM entry WHERE agent = (SELECT key FROM agent WHERE name = 'mailer'))",
        "UPDATE entry SET agent = 7 WHERE agent = (SELECT key FROM agent WHERE name = 'mailer')",
        "UPDATE entry SET time_ms = time_ms + 86400000 WHERE agent = (SELECT key FROM agent WHERE name = 'mailer')",
        "DELETE FROM tally",
    ] {
        let log = Log::new(0..300);
        rebuild(&log.files, &log.source).unwrap();
        rusqlite::Connection::open(log.files.index()).unwrap().execute_batch(damage).unwrap();
        let query = EventQuery {
            agent: Some("mailer".into()),
            until: Some(Timestamp(START_MS + 20 * 3_600_000)),
            ..EventQuery::default()
        };
        let result = log.through_index(&query);
        assert!(matches!(result, Err(IndexError::Contradiction(_))), "{damage}: {result:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_damaged_index_is_refused_or_right(at: prop::sample::Index, bit in 0u8..8) {
        thread_local!(static LOG: (Log, Vec<u8>) = {
            let log = Log::new(0..300);
            rebuild(&log.files, &log.source).unwrap();
            let bytes = fs::read(log.files.index()).unwrap();
            (log, bytes)
        });
        LOG.with(|(log, whole)| {
            let mut bytes = whole.clone();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            fs::write(log.files.index(), bytes).unwrap();
            for query in queries() {
                if let Ok(Some(found)) = log.through_index(&query) {
                    assert_eq!(found, log.scan(&query), "byte {at}, bit {bit}: {query:?}");
                }
            }
        });
    }
}
