//! The journal and its file, also when the disk is full and after crashes.

use super::event::tests::sealer;
use super::log::Storage;
use super::*;
use crate::core::draft::{Draft, EventKind, TripRef};
use crate::core::time::Time;
use serde_json::json;
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

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

/// Every line of the file, verified.
fn events(path: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(|line| verify(line).unwrap_or_else(|flaw| panic!("{flaw}: {line}"))).collect()
}

/// A disk in memory with so much room.
#[derive(Clone, Default)]
struct Disk(Rc<RefCell<DiskState>>);

#[derive(Default)]
struct DiskState {
    bytes: Vec<u8>,
    room: usize,
    fail_sync: bool,
    fail_truncate: bool,
    syncs: usize,
}

impl Storage for Disk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.borrow_mut();
        let taken = bytes.len().min(disk.room.saturating_sub(disk.bytes.len()));
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.bytes.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        disk.syncs += 1;
        if disk.fail_sync { Err(io::Error::other("EIO")) } else { Ok(()) }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        if disk.fail_truncate {
            return Err(io::Error::other("EIO"));
        }
        disk.bytes.truncate(length as usize);
        Ok(())
    }
}

impl Disk {
    fn numbers(&self) -> Vec<Option<u64>> {
        let text = String::from_utf8(self.0.borrow().bytes.clone()).unwrap();
        text.lines().map(|line| verify(line).unwrap().event_data["number"].as_u64()).collect()
    }
}

fn journal(disk: &Disk, capacity: usize) -> Journal<JsonLines<Disk>> {
    Journal::with_capacity(JsonLines::with_storage(disk.clone(), 0), sealer(), at(0), capacity)
}

#[test]
fn events_are_appended_over_restarts_and_only_the_owner_reads_them() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.jsonl");
    for number in 0..3 {
        let mut journal = Journal::new(JsonLines::open(&path).unwrap(), sealer(), at(0));
        assert!(journal.write(at(number), vec![draft(number)]).durable);
    }
    let numbers: Vec<_> =
        events(&path).iter().map(|event| event.event_data["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_second_writer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.jsonl");
    let _first = JsonLines::open(&path).unwrap();
    assert_eq!(JsonLines::open(&path).unwrap_err().kind, io::ErrorKind::WouldBlock);
}

#[test]
fn a_tail_torn_at_any_byte_stays_and_is_followed_by_a_loss() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.jsonl");
    let mut journal = Journal::new(JsonLines::open(&path).unwrap(), sealer(), at(0));
    journal.write(at(0), vec![draft(1), draft(2)]);
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for cut in first..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut journal = Journal::new(JsonLines::open(&path).unwrap(), sealer(), at(0));
        assert!(journal.write(at(9), vec![draft(3)]).durable);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.as_bytes().starts_with(&whole[..cut]), "evidence stays");
        let kinds: Vec<_> =
            text.lines().map(|line| verify(line).ok().map(|event| event.event_type)).collect();
        let (new, loss) = (Some(EventKind::EndpointNew), Some(EventKind::Loss));
        if cut == first {
            assert_eq!(kinds, [new, new]);
        } else if cut >= whole.len() - 1 {
            assert_eq!(kinds, [new, new, new], "only the newline was missing");
        } else {
            assert_eq!(kinds, [new, None, loss, new], "cut at {cut}");
        }
    }
}

#[test]
fn a_full_disk_delays_events_and_corrupts_none_at_any_size() {
    let free = Disk::default();
    free.0.borrow_mut().room = usize::MAX;
    journal(&free, 100).write(at(0), (0..4).map(draft).collect());
    let size = free.0.borrow().bytes.len();
    for room in 0..=size {
        let disk = Disk::default();
        disk.0.borrow_mut().room = room;
        let mut journal = journal(&disk, 100);
        journal.write(at(0), vec![draft(0)]);
        let durable = journal.write(at(200_000_000), (1..4).map(draft).collect()).durable;
        assert_eq!(durable, room >= size);
        disk.numbers();
        disk.0.borrow_mut().room = usize::MAX;
        assert!(journal.write(at(60_000_000_000), vec![]).durable);
        assert_eq!(disk.numbers(), [Some(0), Some(1), Some(2), Some(3)], "room for {room}");
    }
}

#[test]
fn a_partial_line_that_cannot_be_cut_at_once_is_cut_before_the_next() {
    let disk = Disk::default();
    *disk.0.borrow_mut() = DiskState { room: 10, fail_truncate: true, ..DiskState::default() };
    let mut journal = journal(&disk, 100);
    assert!(!journal.write(at(0), vec![draft(0)]).durable);
    assert_eq!(disk.0.borrow().bytes.len(), 10);
    disk.0.borrow_mut().room = usize::MAX;
    assert!(!journal.write(at(1_000_000_000), vec![]).durable, "still not cut");
    disk.0.borrow_mut().fail_truncate = false;
    assert!(journal.write(at(2_000_000_000), vec![]).durable);
    assert_eq!(disk.numbers(), [Some(0)]);
}

#[test]
fn a_trip_is_recorded_only_once_it_is_synced() {
    let disk = Disk::default();
    *disk.0.borrow_mut() = DiskState { room: usize::MAX, fail_sync: true, ..DiskState::default() };
    let mut journal = journal(&disk, 100);
    assert!(journal.write(at(0), vec![draft(0)]).durable, "an ordinary event needs no sync");
    assert_eq!(disk.0.borrow().syncs, 0);
    let outcome = journal.write(at(1), vec![trip(7)]);
    assert!(!outcome.durable && outcome.recorded.is_empty() && outcome.error.is_some());
    assert_eq!(disk.numbers(), [Some(0)], "what may be lost is taken back");
    disk.0.borrow_mut().fail_sync = false;
    assert!(journal.write(at(2), vec![]).recorded.is_empty(), "not before it is time to retry");
    let outcome = journal.write(at(200_000_000), vec![]);
    assert_eq!(outcome.recorded, [TripRef { slot: 1, trip_seq: 7 }]);
}

#[test]
fn events_beyond_the_queue_are_counted_and_told() {
    let disk = Disk::default();
    let mut journal = journal(&disk, 3);
    let outcome = journal.write(at(0), vec![draft(0), trip(1), draft(2), draft(3), trip(4)]);
    assert_eq!(outcome.refused, [TripRef { slot: 1, trip_seq: 4 }]);
    assert_eq!((journal.waiting(), journal.lost()), (3, 2));
    disk.0.borrow_mut().room = usize::MAX;
    let outcome = journal.write(at(1_000_000_000), vec![]);
    assert_eq!((outcome.durable, outcome.recorded.len()), (true, 1));
    assert_eq!(disk.numbers(), [Some(0), Some(1), Some(2), None]);
    let text = String::from_utf8(disk.0.borrow().bytes.clone()).unwrap();
    assert!(text.lines().last().unwrap().contains("\"events_lost\":2"), "{text}");
}

#[test]
fn the_devices_own_full_disk_is_survived() {
    let full = std::fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
    let mut journal = Journal::new(JsonLines::with_storage(full, 0), sealer(), at(0));
    let outcome = journal.write(at(0), vec![trip(1)]);
    assert_eq!(outcome.error.map(|error| error.kind), Some(io::ErrorKind::StorageFull));
    assert_eq!(journal.waiting(), 1);
}
