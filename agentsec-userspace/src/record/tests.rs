//! The journal over a log that refuses, its second path, and the thread that writes.

use super::dead_letters::{self, DeadLetters};
use super::entries::EventSource;
use super::event::tests::sealer;
use super::evidence::{EvidenceLog, EvidenceSource};
use super::sink::SinkError;
use super::writer::{Counts, QUEUE_EVENTS, Told};
use super::*;
use crate::clock;
use crate::core::draft::{Draft, EventKind, TripRef};
use crate::core::time::Time;
use serde_json::json;
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

const LATE: u64 = 60_000_000_000;

fn at(mono_ns: u64) -> Time {
    Time { mono_ns, wall_ns: 1_700_000_000_000_000_000 + mono_ns }
}

fn draft(number: u64) -> Draft {
    Draft::daemon(at(number), EventKind::EndpointNew, json!({ "number": number }))
}

fn trip(number: u64) -> Draft {
    let trip = TripRef { slot: 1, trip_seq: number as u32 };
    Draft { kind: EventKind::ContainmentAction, trip: Some(trip), ..draft(number) }
}

fn trip_ref(number: u64) -> TripRef {
    TripRef { slot: 1, trip_seq: number as u32 }
}

/// A log in memory that takes so many events more.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<(Vec<Event>, usize)>>);

impl Memory {
    fn with_room(room: usize) -> Self {
        let memory = Self::default();
        memory.make_room(room);
        memory
    }

    fn make_room(&self, room: usize) {
        self.0.borrow_mut().1 = room;
    }

    /// Each event's number, or what it says.
    fn said(&self) -> Vec<String> {
        self.0.borrow().0.iter().map(said).collect()
    }
}

fn said(event: &Event) -> String {
    verify(&event.to_line()).unwrap();
    let data = &event.event_data;
    data["number"].as_u64().map_or_else(|| data["what"].as_str().unwrap().to_owned(), |n| n.to_string())
}

impl EventSink for Memory {
    fn append(&mut self, events: &[Event]) -> Result<(), SinkError> {
        let (log, room) = &mut *self.0.borrow_mut();
        if events.len() > *room {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        *room -= events.len();
        log.extend_from_slice(events);
        Ok(())
    }
}

#[test]
fn what_a_log_refuses_follows_in_its_order_with_the_record_of_the_gap() {
    let memory = Memory::with_room(1);
    let mut journal = Journal::new(memory.clone(), sealer(), None);
    assert!(journal.write(at(0), vec![draft(0)], 0).durable);
    let outcome = journal.write(at(1), vec![trip(1)], 0);
    assert!(!outcome.durable && outcome.recorded.is_empty() && outcome.error.is_some());
    memory.make_room(100);
    assert_eq!(journal.write(at(2), vec![draft(2)], 0).written, 0, "not before it is time to try again");
    assert_eq!(journal.retry_at_ns(), Some(100_000_001));
    let outcome = journal.write(at(LATE), vec![draft(3)], 7);
    assert!(outcome.durable);
    assert_eq!(outcome.recorded, [trip_ref(1)]);
    assert_eq!(memory.said(), ["0", "1", "log_refuses", "2", "3", "events", "log_gap"]);
    let last = memory.0.borrow().0[5..].to_vec();
    assert_eq!(last[0].event_data["events_lost"], 7);
    assert_eq!((&last[1].event_data["events_delayed"], last[1].event_type), (&2.into(), EventKind::Loss));
    assert_eq!(journal.retry_at_ns(), None);
}

#[test]
fn the_record_of_a_gap_counts_what_waited_wherever_it_did() {
    let directory = tempfile::tempdir().unwrap();
    // A second path for two events, one, and none.
    for most in [Some(1500), Some(700), None] {
        let memory = Memory::default();
        let letters = most.map(|most| letters(directory.path(), most, &memory));
        let mut journal = Journal::new(memory.clone(), sealer(), letters);
        for second in 0..7 {
            assert!(!journal.write(at(second), vec![draft(second), draft(second)], 0).durable);
        }
        memory.make_room(100);
        assert!(journal.write(at(LATE), vec![], 0).durable);
        let gap = memory.0.borrow().0.last().unwrap().event_data.clone();
        assert_eq!((&gap["what"], &gap["events_delayed"]), (&"log_gap".into(), &14.into()), "{most:?}");
    }
}

#[test]
fn a_log_that_refuses_ever_again_is_tried_ever_more_rarely_and_says_so_once() {
    let memory = Memory::default();
    let mut journal = Journal::new(memory.clone(), sealer(), None);
    let mut now = 0;
    let mut waits = Vec::new();
    for number in 0..9 {
        assert!(journal.write(at(now), vec![draft(number)], 0).error.is_some());
        let next = journal.retry_at_ns().unwrap();
        waits.push((next - now) / 1_000_000);
        now = next;
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    memory.make_room(11);
    assert!(journal.write(at(now), vec![], 0).durable);
    let alerts = memory.said().iter().filter(|said| *said == "log_refuses").count();
    assert_eq!((alerts, memory.said().len()), (1, 11));
}

fn letters(directory: &Path, most: u64, log: &Memory) -> DeadLetters {
    let lines: Vec<Vec<u8>> = log.0.borrow().0.iter().map(|event| event.to_line().into_bytes()).collect();
    DeadLetters::open(directory, most, |count| {
        Ok(lines[lines.len().saturating_sub(count as usize)..].to_vec())
    })
    .unwrap()
}

#[test]
fn the_second_path_takes_what_the_log_refuses_and_counts_as_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let path = directory.path();
    let mut journal = Journal::new(memory.clone(), sealer(), Some(letters(path, 1 << 20, &memory)));
    let outcome = journal.write(at(0), vec![draft(0), trip(1)], 0);
    assert_eq!(outcome.recorded, [trip_ref(1)], "it is on a disk");
    assert!(!outcome.durable && outcome.error.is_some());
    assert_eq!(journal.waiting(), 0);
    assert_eq!(journal.write(at(1), vec![trip(2)], 0).recorded, [trip_ref(2)], "also between two tries");
    // The daemon dies: the next one finds them.
    drop(journal);
    memory.make_room(100);
    let mut journal = Journal::new(memory.clone(), sealer(), Some(letters(path, 1 << 20, &memory)));
    assert!(journal.write(at(2), vec![draft(3)], 0).durable);
    assert_eq!(memory.said(), ["0", "1", "log_refuses", "2", "log_gap", "3"]);
    let gap = memory.0.borrow().0[4].event_data.clone();
    assert_eq!((&gap["events_delayed"], &gap["events_damaged"]), (&4.into(), &0.into()));
    assert_eq!(gap["since"], "2023-11-14T22:13:20.000000000Z");
    assert_eq!(std::fs::metadata(path.join(dead_letters::NAME)).unwrap().len(), 0);
}

#[test]
fn a_crash_at_any_byte_of_the_second_path_or_of_its_delivery_loses_and_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(dead_letters::NAME);
    let full = Memory::default();
    let mut journal =
        Journal::new(full, sealer(), Some(letters(directory.path(), 1 << 20, &Memory::default())));
    journal.write(at(0), (0..4).map(draft).collect(), 0);
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    let ends: Vec<usize> =
        whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let memory = Memory::with_room(100);
        let mut journal =
            Journal::new(memory.clone(), sealer(), Some(letters(directory.path(), 1 << 20, &memory)));
        journal.write(at(1), vec![], 0);
        let kept = ends.iter().filter(|end| **end <= cut).count();
        let mut said = memory.said();
        assert_eq!(said.pop_if(|last| *last == "log_gap").is_some(), kept > 0, "cut at {cut}");
        assert_eq!(said, ["0", "1", "2", "3", "log_refuses"][..kept], "cut at {cut}");
    }
    // Delivered, and dead before the file was emptied.
    let memory = Memory::with_room(100);
    std::fs::write(&path, &whole).unwrap();
    for _ in 0..2 {
        let mut journal =
            Journal::new(memory.clone(), sealer(), Some(letters(directory.path(), 1 << 20, &memory)));
        journal.write(at(1), vec![], 0);
        drop(journal);
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(memory.said(), ["0", "1", "2", "3", "log_refuses", "log_gap", "log_gap"]);
}

#[test]
fn any_damaged_byte_of_the_second_path_loses_one_event_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(dead_letters::NAME);
    let nothing = Memory::default();
    let mut journal =
        Journal::new(nothing.clone(), sealer(), Some(letters(directory.path(), 1 << 20, &nothing)));
    journal.write(at(0), vec![draft(0), draft(1)], 0);
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for (place, new) in (0..second).flat_map(|place| [(place, 0xff), (place, whole[place] ^ 1)]) {
        let mut bytes = whole.clone();
        bytes[place] = new;
        std::fs::write(&path, bytes).unwrap();
        let memory = Memory::with_room(100);
        let mut journal =
            Journal::new(memory.clone(), sealer(), Some(letters(directory.path(), 1 << 20, &memory)));
        assert!(journal.write(at(1), vec![], 0).durable, "byte {place}");
        let said = memory.said();
        // Without the end of its line the first takes the second with it.
        let expected = if place + 1 == second {
            &["log_refuses", "log_gap"][..]
        } else {
            &["1", "log_refuses", "log_gap"]
        };
        assert_eq!(said, expected, "byte {place}");
        assert_eq!(memory.0.borrow().0[said.len() - 1].event_data["events_damaged"], 1, "byte {place}");
    }
}

#[test]
fn what_finds_no_room_while_the_log_refuses_x() {
    let memory = Memory::default();
    let mut journal = Journal::new(memory.clone(), sealer(), None);
    let mut now = 0;
    for _ in 0..5 {
        journal.write(at(now), vec![], 3);
        now += LATE;
    }
    assert_eq!(journal.waiting(), 2, "the first of them, and that the log refuses");
    memory.make_room(10);
    journal.write(at(now), vec![], 3);
    assert_eq!(memory.said(), ["events", "log_refuses", "events", "log_gap"]);
    let lost = |place: usize| memory.0.borrow().0[place].event_data["events_lost"].as_u64().unwrap();
    assert_eq!((lost(0), lost(2)), (3, 15));
}

#[test]
fn a_second_path_takes_as_many_as_it_has_room_for() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let line = sealer().seal(draft(0)).to_line().len() as u64 + 1;
    let mut journal =
        Journal::new(memory.clone(), sealer(), Some(letters(directory.path(), 3 * line, &memory)));
    let outcome = journal.write(at(0), (0..5).map(draft).collect(), 0);
    assert_eq!((outcome.written, journal.waiting()), (3, 3), "two, and that the log refuses, wait in memory");
    memory.make_room(100);
    assert!(journal.write(at(LATE), vec![], 0).durable);
    assert_eq!(memory.said(), ["0", "1", "2", "3", "4", "log_refuses", "log_gap"]);
}

#[test]
fn a_second_path_that_is_full_leaves_events_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let mut journal = Journal::new(memory.clone(), sealer(), Some(letters(directory.path(), 100, &memory)));
    let outcome = journal.write(at(0), vec![trip(1)], 0);
    assert!(outcome.recorded.is_empty());
    assert_eq!(journal.waiting(), 2);
    memory.make_room(100);
    assert_eq!(journal.write(at(LATE), vec![], 0).recorded, [trip_ref(1)]);
    assert_eq!(memory.said(), ["1", "log_refuses", "log_gap"]);
}

#[test]
fn a_second_path_belongs_to_one_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let memory = Memory::default();
    let _first = letters(directory.path(), 100, &memory);
    let error = DeadLetters::open(directory.path(), 100, |_| Ok(Vec::new())).unwrap_err();
    assert!(format!("{error:#}").contains("another process uses it"), "{error:#}");
}

fn events(directory: &Path) -> Vec<Event> {
    let entries = EvidenceSource::new(directory).entries_from(0).unwrap();
    entries.map(|entry| verify(std::str::from_utf8(&entry.unwrap().1).unwrap()).unwrap()).collect()
}

#[test]
fn the_thread_writes_everything_and_says_which_trips_are_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = EvidenceLog::open(&path, "host").unwrap().log;
    let (mut writer, mut told) = Writer::start(Journal::new(log, sealer(), None), clock::now).unwrap();
    for number in 0..500 {
        let drafts = if number % 100 == 99 { vec![draft(number), trip(number)] } else { vec![draft(number)] };
        assert_eq!(writer.write(drafts), []);
    }
    let (settled, wait) = std::sync::mpsc::channel();
    writer.after(move |kept| settled.send(kept).unwrap());
    wait.recv().unwrap();
    assert_eq!(events(&path).len(), 505, "who is told that it is written finds it there");
    assert_eq!(writer.counts(), Counts { written: 505, queued: 0, lost: 0 });
    assert!(writer.close());
    let mut recorded = Vec::new();
    while let Ok(Told::Recorded(trips)) = told.try_recv() {
        recorded.extend(trips.into_iter().map(|trip| trip.trip_seq));
    }
    assert_eq!(recorded, [99, 199, 299, 399, 499]);
    assert!(std::fs::read(path.join("wal")).unwrap().iter().all(|byte| *byte == 0), "it was closed");
}

#[test]
fn events_without_room_are_counted_and_told_and_their_trips_returned() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = EvidenceLog::open(&path, "host").unwrap().log;
    let (mut writer, _told) = Writer::start(Journal::new(log, sealer(), None), clock::now).unwrap();
    assert!(writer.has_room_for(QUEUE_EVENTS) && !writer.has_room_for(QUEUE_EVENTS + 1));
    // More at once than fit, so however quick the thread is.
    let mut drafts: Vec<Draft> = (0..QUEUE_EVENTS).map(draft).collect();
    drafts.extend([trip(1), draft(2)]);
    assert_eq!(writer.write(drafts), [trip_ref(1)]);
    assert!(writer.close());
    assert_eq!(writer.counts(), Counts { written: QUEUE_EVENTS + 1, queued: 0, lost: 2 });
    let last = events(&path).pop().unwrap();
    assert_eq!((said(&last), &last.event_data["events_lost"]), ("events".into(), &2.into()));
}
