//! Which snapshots may go. Never the newest verified one of an agent, and never what a kept one depends on. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::recovery::Keep;

use super::catalogue::Record;

const HOUR_NS: u64 = 3_600_000_000_000;

/// One agent's snapshots and how many of them are kept.
pub struct Shelf<'a> {
    /// The snapshots, oldest first.
    pub records: &'a [Record],
    /// How many; `None` while all of them stay.
    pub keep: Option<Keep>,
}

/// The ids that may go, by agent; agents with none are left out.
#[must_use]
pub fn removable(shelves: &BTreeMap<String, Shelf<'_>>) -> BTreeMap<String, Vec<String>> {
    let mut kept: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (agent, shelf) in shelves {
        kept.extend(own(shelf).into_iter().map(|id| (agent.as_str(), id)));
    }
    // What is kept keeps what it fits, and so on.
    let mut next: Vec<(&str, &str)> = kept.iter().copied().collect();
    while let Some((agent, id)) = next.pop() {
        let record = shelves.get(agent).and_then(|shelf| shelf.records.iter().find(|record| record.id == id));
        for (other, theirs) in record.iter().flat_map(|record| &record.depends) {
            if kept.insert((other, theirs)) {
                next.push((other, theirs));
            }
        }
    }
    let gone = |agent: &str, shelf: &Shelf<'_>| -> Vec<String> {
        let records = shelf.records.iter().filter(|record| !kept.contains(&(agent, record.id.as_str())));
        records.map(|record| record.id.clone()).collect()
    };
    shelves
        .iter()
        .map(|(agent, shelf)| (agent.clone(), gone(agent, shelf)))
        .filter(|(_, ids)| !ids.is_empty())
        .collect()
}

/// What an agent's own rule keeps.
fn own<'a>(shelf: &Shelf<'a>) -> BTreeSet<&'a str> {
    let Some(keep) = shelf.keep else {
        return shelf.records.iter().map(|record| record.id.as_str()).collect();
    };
    // What nobody has any more is no snapshot to keep: another counts in its place.
    let newest_first = || shelf.records.iter().rev().filter(|record| record.is_there());
    let mut kept: BTreeSet<&str> =
        newest_first().take(keep.last as usize).map(|record| record.id.as_str()).collect();
    kept.extend(newest_first().find(|record| record.is_verified()).map(|record| record.id.as_str()));
    kept.extend(newest_first().find(|record| record.is_good()).map(|record| record.id.as_str()));
    for (spans, span_ns) in [(keep.hourly, HOUR_NS), (keep.daily, 24 * HOUR_NS)] {
        let mut seen = BTreeSet::new();
        // Of each hour or day its newest good one: another could not be used.
        for record in newest_first().filter(|record| record.is_good()) {
            if seen.len() == spans as usize {
                break;
            }
            if seen.insert(record.finished.wall_ns / span_ns) {
                kept.insert(&record.id);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::moment::Moment;
    use super::*;
    use proptest::prelude::*;

    fn record(id: String, minute: u64, verified: bool) -> Record {
        Record {
            id,
            finished: Moment::wall(minute * 60_000_000_000),
            verified_ns: verified.then_some(1),
            ..Record::default()
        }
    }

    fn gone(records: &[Record], keep: Keep) -> Vec<String> {
        let shelves = [("a".to_owned(), Shelf { records, keep: Some(keep) })].into();
        removable(&shelves).remove("a").unwrap_or_default()
    }

    #[test]
    fn the_newest_the_hours_and_the_days_are_kept() {
        let records: Vec<Record> = (0..300).map(|n| record(format!("{n}"), n * 20, true)).collect();
        let keep = Keep { last: 2, hourly: 3, daily: 2 };
        let gone = gone(&records, keep);
        let kept: Vec<u64> = (0..300).filter(|n| !gone.contains(&n.to_string())).collect();
        // Three an hour, 72 a day: the last two, the newest of the last three hours, the newest of the day before.
        assert_eq!(kept, [287, 293, 296, 298, 299]);
    }

    #[test]
    fn the_last_verified_one_stays_however_old_it_is() {
        let mut records: Vec<Record> = (0..50).map(|n| record(format!("{n}"), n, n == 3)).collect();
        let keep = Keep { last: 1, hourly: 0, daily: 0 };
        assert!(!gone(&records, keep).contains(&"3".to_owned()));
        records[3].damaged = Some("since then".into());
        assert!(gone(&records, keep).contains(&"3".to_owned()));
    }

    #[test]
    fn the_last_good_one_stays_beside_what_an_incident_has_left() {
        let mut records: Vec<Record> = (0..6).map(|n| record(format!("{n}"), n, true)).collect();
        for record in &mut records[3..] {
            record.suspect = Some("i".into());
        }
        let kept = |hourly| {
            let gone = gone(&records, Keep { last: 1, hourly, daily: 0 });
            (0..6).filter(|n| !gone.contains(&n.to_string())).collect::<Vec<_>>()
        };
        assert_eq!((kept(0), kept(1)), (vec![2, 5], vec![2, 5]));
    }

    #[test]
    fn what_is_gone_from_the_repository_takes_nobodys_place() {
        let mut records: Vec<Record> = (0..4).map(|n| record(format!("{n}"), n, true)).collect();
        (records[2].missing, records[3].missing) = (true, true);
        let one = Keep { last: 1, hourly: 0, daily: 0 };
        assert_eq!(gone(&records, one), ["0", "2", "3"]);
        (records[2].copied, records[2].tree) = (true, Some("t".into()));
        assert_eq!(gone(&records, one), ["0", "1", "3"], "a copy is one to keep");
    }

    #[test]
    fn what_stays_for_now_keeps_what_it_depends_on() {
        let one = Some(Keep { last: 1, hourly: 0, daily: 0 });
        let db: Vec<Record> = (0..4).map(|n| record(format!("d{n}"), n, true)).collect();
        let mut app: Vec<Record> = (0..2).map(|n| record(format!("a{n}"), n, true)).collect();
        for (n, made) in app.iter_mut().enumerate() {
            made.depends.insert("db".into(), format!("d{n}"));
        }
        let gone = |keep| {
            let shelves = [
                ("app".to_owned(), Shelf { records: &app, keep }),
                ("db".to_owned(), Shelf { records: &db, keep: one }),
            ];
            removable(&shelves.into())
        };
        // app is in an incident, and an operator has taken another one of it since.
        assert_eq!(gone(None), [("db".to_owned(), vec!["d2".to_owned()])].into());
        assert_eq!(gone(one)["app"], ["a0"]);
        assert_eq!(gone(one)["db"], ["d0", "d2"]);
    }

    proptest! {
        #[test]
        fn nothing_goes_that_is_needed(
            verified in proptest::collection::vec(any::<bool>(), 2..40),
            links in proptest::collection::vec(any::<u8>(), 40),
            last in 1u32..4, hourly in 0u32..3, daily in 0u32..3,
        ) {
            let keep = Keep { last, hourly, daily };
            let db: Vec<Record> =
                (0..verified.len()).map(|n| record(format!("d{n}"), n as u64 * 25, !verified[n])).collect();
            let app: Vec<Record> = verified.iter().enumerate().map(|(n, verified)| {
                let mut made = record(format!("a{n}"), n as u64 * 25, *verified);
                made.depends.insert("db".into(), format!("d{}", usize::from(links[n]) % db.len()));
                made
            }).collect();
            let shelves: BTreeMap<String, Shelf<'_>> = [
                ("app".to_owned(), Shelf { records: &app, keep: Some(keep) }),
                ("db".to_owned(), Shelf { records: &db, keep: Some(Keep { last: 1, hourly: 0, daily: 0 }) }),
            ].into();
            let gone = removable(&shelves);
            let is_gone = |agent: &str, id: &str| gone.get(agent).is_some_and(|ids| ids.iter().any(|gone| gone == id));
            for (agent, records) in [("app", &app), ("db", &db)] {
                prop_assert!(!is_gone(agent, &records.last().unwrap().id), "the newest stays");
                if let Some(record) = records.iter().rev().find(|record| record.is_verified()) {
                    prop_assert!(!is_gone(agent, &record.id), "the last verified one stays");
                }
            }
            for record in app.iter().filter(|record| !is_gone("app", &record.id)) {
                prop_assert!(!is_gone("db", &record.depends["db"]), "what a kept one depends on stays");
            }
            let most = last + hourly + daily + 1;
            let kept = app.iter().filter(|record| !is_gone("app", &record.id)).count();
            prop_assert!(kept as u32 <= most, "{} are kept of at most {}", kept, most);
        }
    }
}
