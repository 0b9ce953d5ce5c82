//! What the forensic log says of snapshots. Catalogue and repository lie on this host, and who has one can have both:
//! a snapshot is ours when the log says so too, which nobody changes without its checkpoints showing it.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use crate::record::ask::ask;
use crate::record::entries::EventSource;
use crate::record::evidence::EvidenceSource;
use crate::record::head::Head;
use crate::record::index::Files;
use crate::record::intact;
use crate::record::query::EventQuery;
use crate::record::timestamp::Timestamp;

use super::catalogue::Record;

/// An event may be written so much later than what it tells of, milliseconds.
const LATE_MS: u64 = 5_000;
/// What is asked for begins so much before the oldest snapshot, milliseconds.
const SLACK_MS: u64 = 86_400_000;

/// Whether the log says that a snapshot is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attested {
    /// It does.
    Yes,
    /// It cannot say, and why.
    Unknown(String),
    /// It says otherwise, or nothing although it would, and why.
    No(String),
}

/// A snapshot as the event of its creation has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Made {
    action: String,
    snapshot: String,
    tree: Option<String>,
    depends: BTreeMap<String, String>,
    finished: String,
}

/// What the log says of one agent's snapshots.
#[derive(Clone, Debug, Default)]
pub struct Testimony {
    made: BTreeMap<String, Made>,
    /// From when to when it would know, by its first and its last event.
    span: Option<(Timestamp, Timestamp)>,
    /// Why it cannot be read.
    unreadable: Option<String>,
}

impl Testimony {
    /// What the log says of `records`, the snapshots of `agent`; `index` is the one over it.
    #[must_use]
    pub fn read(log: &EvidenceSource, index: &Files, agent: &str, records: &[Record]) -> Self {
        let mut testimony = Self::default();
        if let Err(error) = testimony.try_read(log, index, agent, records) {
            testimony.unreadable = Some(error.to_string());
        }
        testimony
    }

    fn try_read(
        &mut self,
        log: &EvidenceSource,
        index: &Files,
        agent: &str,
        records: &[Record],
    ) -> io::Result<()> {
        let Some(oldest) = records.iter().map(made_ms).min() else { return Ok(()) };
        let query = EventQuery {
            since: Some(Timestamp(oldest.saturating_sub(SLACK_MS))),
            agent: Some(agent.to_owned()),
            types: vec![crate::core::EventKind::Snapshot.name().to_owned()],
            ..EventQuery::default()
        };
        ask(log, index, &query, |line| self.hear(line))?;
        let first = time_of_next(log, 0)?;
        let last = time_of_next(log, log.size()?.saturating_sub(1))?;
        self.span = first.zip(last);
        Ok(())
    }

    /// Takes one event. What was altered says nothing.
    fn hear(&mut self, line: &[u8]) {
        let Some(event) = intact(line) else { return };
        let Ok(made) = serde_json::from_value::<Made>(event.event_data) else { return };
        if made.action == "created" {
            self.made.entry(made.snapshot.clone()).or_insert(made);
        }
    }

    /// Whether a snapshot is ours.
    #[must_use]
    pub fn of(&self, record: &Record) -> Attested {
        if let Some(made) = self.made.get(&record.id) {
            return agree(record, made);
        }
        let at = Timestamp(made_ms(record));
        match (&self.unreadable, self.span) {
            (Some(why), _) => Attested::Unknown(format!("the forensic log cannot be read: {why}")),
            (None, None) => Attested::Unknown("the forensic log is empty".into()),
            (None, Some((from, _))) if at < from => {
                Attested::Unknown(format!("the forensic log begins later, at {from}"))
            }
            (None, Some((_, to))) if at.0.saturating_add(LATE_MS) > to.0 => {
                Attested::Unknown(format!("the forensic log has not come so far yet, only to {to}"))
            }
            _ => Attested::No("the forensic log does not tell of its creation".into()),
        }
    }
}

/// Whether the catalogue says of a snapshot what the log says.
fn agree(record: &Record, made: &Made) -> Attested {
    let trees = record.tree.as_ref().zip(made.tree.as_ref());
    let differing = if trees.is_some_and(|(ours, theirs)| ours != theirs) {
        "tree"
    } else if record.depends != made.depends {
        "dependencies"
    } else if record.finished.shown() != made.finished {
        "time"
    } else {
        return Attested::Yes;
    };
    Attested::No(format!("the forensic log has another {differing} for it than the catalogue"))
}

fn made_ms(record: &Record) -> u64 {
    record.finished.wall_ns / 1_000_000
}

/// The time of the first event at `place` or after it.
fn time_of_next(log: &EvidenceSource, place: u64) -> io::Result<Option<Timestamp>> {
    for entry in log.entries_from(place)? {
        if let Some(time) = Head::of(&entry?.1).and_then(|head| head.time()) {
            return Ok(Some(time));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::Moment;

    const MINUTE: u64 = 60_000_000_000;

    fn record(id: &str, minute: u64) -> Record {
        Record {
            id: id.into(),
            tree: Some(format!("tree of {id}")),
            finished: Moment::wall(minute * MINUTE),
            depends: [("db".to_owned(), "d1".to_owned())].into(),
            ..Record::default()
        }
    }

    fn made(record: &Record) -> Made {
        Made {
            action: "created".into(),
            snapshot: record.id.clone(),
            tree: record.tree.clone(),
            depends: record.depends.clone(),
            finished: record.finished.shown(),
        }
    }

    fn knowing(record: &Record) -> Testimony {
        Testimony {
            made: [(record.id.clone(), made(record))].into(),
            span: Some((Timestamp(5 * 60_000), Timestamp(60 * 60_000))),
            unreadable: None,
        }
    }

    #[test]
    fn what_differs_in_any_point_from_the_log_is_not_ours() {
        let ours = record("a", 10);
        let log = knowing(&ours);
        assert_eq!(log.of(&ours), Attested::Yes);
        let table: [(Record, &str); 3] = [
            (Record { tree: Some("another".into()), ..ours.clone() }, "tree"),
            (Record { depends: BTreeMap::new(), ..ours.clone() }, "dependencies"),
            (Record { finished: Moment::wall(9 * MINUTE), ..ours.clone() }, "time"),
        ];
        for (changed, what) in table {
            let Attested::No(why) = log.of(&changed) else { panic!("{what}") };
            assert!(why.contains(what), "{why}");
        }
        let unread = Record { tree: None, ..ours };
        assert_eq!(log.of(&unread), Attested::Yes, "its id stands for its tree");
    }

    #[test]
    fn what_the_log_says_nothing_of_is_not_ours_if_the_log_would_know() {
        let log = knowing(&record("a", 10));
        assert!(matches!(log.of(&record("b", 10)), Attested::No(_)));
        assert!(matches!(log.of(&record("b", 4)), Attested::Unknown(_)), "what it told then has gone");
        assert!(matches!(log.of(&record("b", 60)), Attested::Unknown(_)), "it may come yet");
        let unreadable = Testimony { unreadable: Some("EIO".into()), ..Testimony::default() };
        assert!(matches!(unreadable.of(&record("a", 10)), Attested::Unknown(_)));
        assert!(matches!(Testimony::default().of(&record("a", 10)), Attested::Unknown(_)));
    }
}
