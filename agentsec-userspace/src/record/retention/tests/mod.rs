//! Retention on real logs, cut off after each of its steps.

mod bucket;

use super::service::{Done, Keeper, dry_run};
use super::{Intent, Told, accounted_for, remove};
use crate::config::LogConfig;
use crate::config::log::{AnchorConfig, AnchorPlace, Destination, KeepLog};
use crate::core::time::{Time, rfc3339};
use crate::record::anchor::consistent::newest;
use crate::record::anchor::state::{AnchorState, Anchored, Memory, States};
use crate::record::entries::EventSource as _;
use crate::record::evidence::check::{Report, check};
use crate::record::evidence::files::removed_before;
use crate::record::evidence::merkle::{leaf_hash, prove_inclusion, verify_inclusion};
use crate::record::evidence::tiles::{TileNodes, TileStore, entries_in};
use crate::record::evidence::{EvidenceLog, EvidenceSource, Opened, key};
use crate::record::index;
use crate::record::query::EventQuery;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SECOND: u64 = 1_000_000_000;
/// Entry `n` was written at this many seconds.
const START: u64 = 1_700_000_000;

fn entry(number: u64) -> String {
    let at = rfc3339((START + number) * SECOND);
    format!(
        "{{\"agent_id\":\"a\",\"event_data\":{{\"number\":{number}}},\"event_type\":\"DROPS\",\"timestamp\":\"{at}\"}}"
    )
}

/// A state directory with a log.
struct Site {
    state: TempDir,
}

impl Site {
    fn of(size: u64) -> Self {
        let state = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let site = Self { state };
        site.append(&(0..size).map(entry).collect::<Vec<_>>());
        site
    }

    fn path(&self) -> &Path {
        self.state.path()
    }

    fn store(&self) -> TileStore {
        TileStore::new(&self.path().join("log"))
    }

    fn append(&self, entries: &[String]) {
        let Opened { mut log, amiss } = EvidenceLog::open(&self.path().join("log"), "host").unwrap();
        assert!(amiss.is_empty(), "{amiss:?}");
        log.append(entries, true).unwrap();
        log.close().unwrap();
    }

    /// Records what the daemon would.
    fn record(&self, intent: &Intent) {
        let draft = intent.draft(Time::default());
        self.append(&[json!({
            "event_data": draft.data, "event_type": draft.kind.name(),
            "timestamp": rfc3339((START + 1_000_000) * SECOND),
        })
        .to_string()]);
    }

    fn check(&self) -> Report {
        check(&self.store(), &key::read_public(&self.path().join("log")).unwrap(), &[]).unwrap()
    }

    fn source(&self) -> EvidenceSource {
        EvidenceSource::in_state(self.path())
    }

    /// Where the bundles that are left begin.
    fn first_left(&self) -> u64 {
        self.source().entries_from(0).unwrap().next().unwrap().unwrap().0
    }
}

/// Keeps what is younger than so many seconds.
fn keep(seconds: u64) -> LogConfig {
    let mut config = LogConfig::default();
    config.retention.keep = KeepLog { age_ns: Some(seconds * SECOND), bytes: None };
    config
}

/// So many seconds after the first entry.
fn at(seconds: u64) -> Time {
    Time { mono_ns: seconds * SECOND, wall_ns: (START + seconds) * SECOND }
}

fn step(keeper: &mut Keeper, now: Time) -> anyhow::Result<Done> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(keeper.step(now))
}

#[track_caller]
fn told(done: anyhow::Result<Done>) -> Intent {
    match done {
        Ok(Done::Told(intent)) => intent,
        other => panic!("{other:?}"),
    }
}

#[test]
fn old_bundles_go_after_their_event_is_signed_and_what_is_left_is_proved() {
    let site = Site::of(2000);
    let mut keeper = Keeper::new(site.path(), keep(1000));
    // At 2,000 s entries before 1,000 are too old: three whole bundles.
    let now = at(2000);
    let plan = dry_run(site.path(), &keeper.config, now).unwrap();
    assert_eq!((plan.removed_before, plan.cut, plan.covered), (0, 768, 2000));
    let intent = told(step(&mut keeper, now));
    assert_eq!((intent.from, intent.to, &intent.shipped_to), (0, 768, &None));
    // Nothing goes before the event is in the log, signed.
    assert_eq!(step(&mut keeper, now).unwrap(), Done::Waiting);
    assert_eq!((removed_before(&site.store()).unwrap(), site.first_left()), (0, 0));
    site.record(&Intent { id: "another".into(), ..intent.clone() });
    assert_eq!(step(&mut keeper, now).unwrap(), Done::Waiting);
    site.record(&intent);
    assert_eq!(step(&mut keeper, now).unwrap(), Done::Removed);
    assert_eq!(step(&mut keeper, now).unwrap(), Done::Nothing);
    assert_eq!((removed_before(&site.store()).unwrap(), site.first_left()), (768, 768));
    let report = site.check();
    assert!(report.is_clean() && report.removed == 768 && report.signed == 2002, "{report:?}");
    assert_eq!(accounted_for(&site.source()).unwrap(), 768);
    // Proofs for what remains, and for what has gone, are what they were.
    let signed = newest(&site.store()).unwrap().unwrap().checkpoint;
    for number in [0, 767, 768, 1999] {
        let store = site.store();
        let proof =
            prove_inclusion(&TileNodes { store: &store, size: signed.size }, number, signed.size).unwrap();
        let leaf = leaf_hash(entry(number).as_bytes());
        assert!(verify_inclusion(&leaf, number, signed.size, &proof, &signed.root), "{number}");
    }
    let found = site.source().entries_at(&[767, 768]).unwrap();
    assert_eq!(found, [None, Some(entry(768).into_bytes())]);
    // The log goes on.
    site.append(&["more".into()]);
    assert!(site.check().is_clean());
}

#[test]
fn what_is_gone_is_accounted_for_by_its_place_and_not_by_its_number() {
    let site = Site::of(2000);
    let entries = site.path().join("log/tile/entries");
    let first = fs::read(entries.join("000")).unwrap();
    let mut keeper = Keeper::new(site.path(), keep(1000));
    site.record(&told(step(&mut keeper, at(2000))));
    assert_eq!(step(&mut keeper, at(2000)).unwrap(), Done::Removed);
    let (report, accounted) = (site.check(), accounted_for(&site.source()).unwrap());
    assert_eq!((report.removed, accounted, report.first_removed_from(accounted)), (768, 768, None));
    // As many as the event says are gone, and others: the first is back from the archive.
    fs::write(entries.join("000"), first).unwrap();
    fs::remove_file(entries.join("003")).unwrap();
    fs::write(site.path().join("log/removed"), "1024\n").unwrap();
    let report = site.check();
    assert_eq!((report.removed, report.first_removed_from(accounted)), (768, Some(768)));
}

#[test]
fn what_covers_it_bounds_what_may_go() {
    let site = Site::of(2000);
    let now = at(1_000_000);
    let everything = dry_run(site.path(), &keep(60), now).unwrap();
    assert_eq!(everything.cut, 7 * 256, "the newest full bundle stays");
    let mut config = keep(60);
    let place = AnchorPlace::File { path: "/nowhere/file".into(), same_device: false };
    config.anchors.anchors.insert("a".into(), AnchorConfig { place });
    assert!(dry_run(site.path(), &config, now).unwrap().is_empty(), "nothing is anchored");
    let signed = newest(&site.store()).unwrap().unwrap().checkpoint;
    let anchored = Anchored { size: 600, ..Anchored::new(&signed, 0, None) };
    let state = AnchorState { anchored: Some(anchored), ..AnchorState::default() };
    let memory = Memory::in_state(site.path());
    memory.save(&States::from([("a".into(), state.clone())])).unwrap();
    let plan = dry_run(site.path(), &config, now).unwrap();
    assert_eq!((plan.cut, plan.covered), (512, 600));
    memory.save(&States::from([("a".into(), AnchorState { contradicted: true, ..state })])).unwrap();
    assert!(dry_run(site.path(), &config, now).unwrap().is_empty(), "what is contradicted covers nothing");
    // By size.
    let mut config = LogConfig::default();
    let bytes = everything.bytes_here;
    config.retention.keep.bytes = Some(bytes * 2 / 3);
    let plan = dry_run(site.path(), &config, now).unwrap();
    assert!((3..=4).contains(&(plan.cut / 256)) && bytes - plan.bytes <= bytes * 2 / 3, "{plan:?}");
    assert!(
        dry_run(site.path(), &LogConfig::default(), now).unwrap().is_empty(),
        "without a bound all stays"
    );
}

#[test]
fn shipped_bundles_are_read_back_and_hold_what_was_signed() {
    let site = Site::of(1000);
    let archive = tempfile::tempdir().unwrap();
    let mut config = keep(100);
    config.retention.ship_to = Some(Destination::Directory(archive.path().into()));
    let mut keeper = Keeper::new(site.path(), config);
    let intent = told(step(&mut keeper, at(2000)));
    let signed = newest(&site.store()).unwrap().unwrap();
    assert_eq!(intent.shipped_to.as_deref(), archive.path().to_str());
    let of_log = archive.path().join(&signed.checkpoint.origin);
    for index in 0..intent.to / 256 {
        let bytes = fs::read(of_log.join(format!("tile/entries/{index:03}"))).unwrap();
        let entries = entries_in(&bytes).unwrap();
        assert_eq!(entries[255], entry(index * 256 + 255).as_bytes());
    }
    let kept = fs::read_to_string(of_log.join("checkpoint.1000")).unwrap();
    assert_eq!(signed.key.checkpoint(&kept).unwrap(), signed.checkpoint);
    site.record(&intent);
    assert_eq!(step(&mut keeper, at(2000)).unwrap(), Done::Removed);
    assert_eq!(site.check().removed, intent.to);
}

#[test]
fn an_archive_that_cannot_take_them_keeps_them_here() {
    let site = Site::of(1000);
    let archive = tempfile::tempdir().unwrap();
    let mut config = keep(100);
    config.retention.ship_to = Some(Destination::Directory(archive.path().join("missing")));
    let mut keeper = Keeper::new(site.path(), config.clone());
    assert!(format!("{:#}", step(&mut keeper, at(2000)).unwrap_err()).contains("missing"));
    // Something else lies where a bundle should.
    config.retention.ship_to = Some(Destination::Directory(archive.path().into()));
    let origin = newest(&site.store()).unwrap().unwrap().checkpoint.origin;
    let squatted = archive.path().join(origin).join("tile/entries/001");
    fs::create_dir_all(squatted.parent().unwrap()).unwrap();
    fs::write(squatted, "something else").unwrap();
    let mut keeper = Keeper::new(site.path(), config);
    let error = format!("{:#}", step(&mut keeper, at(2000)).unwrap_err());
    assert!(error.contains("001") && error.contains("another object is there"), "{error}");
    assert_eq!((site.first_left(), removed_before(&site.store()).unwrap()), (0, 0));
    assert!(!site.path().join("retention.json").exists());
}

#[test]
fn a_damaged_bundle_is_evidence_and_stays() {
    // The first entry, one in the middle and the last, and hashes.
    for (file, part) in [("entries", 0), ("entries", 1), ("entries", 2), ("0", 0), ("0", 1), ("0", 2)] {
        let site = Site::of(1000);
        let path = site.path().join(format!("log/tile/{file}/001"));
        let mut bytes = fs::read(&path).unwrap();
        // Not in a time, which would make the bundle young instead.
        let fits = |at: &usize| file == "0" || bytes[*at..].starts_with(b"DROPS");
        let places: Vec<usize> = (0..bytes.len()).filter(fits).collect();
        bytes[places[part * (places.len() - 1) / 2]] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = format!("{:#}", step(&mut Keeper::new(site.path(), keep(100)), at(2000)).unwrap_err());
        assert!(error.contains("as evidence"), "{error}");
        assert_eq!(site.first_left(), 0);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_crash_after_any_step_leaves_a_valid_log_and_the_next_start_finishes() {
    let site = Site::of(2000);
    let intent = told(step(&mut Keeper::new(site.path(), keep(1000)), at(2000)));
    // Told and not recorded when it crashed: told again, under the same name.
    let again = told(step(&mut Keeper::new(site.path(), keep(1000)), at(2000)));
    assert_eq!(again, intent);
    site.record(&intent);
    let all = remove::steps(&site.store(), intent.to).unwrap();
    assert_eq!(all.len(), 1 + 3 + 1);
    for done in 0..=all.len() {
        let crashed = Site { state: tempfile::tempdir_in("/dev/shm").unwrap() };
        copy(site.path(), crashed.path());
        let store = crashed.store();
        all[..done].iter().for_each(|one| remove::take(&store, *one).unwrap());
        let report = crashed.check();
        assert!(report.is_clean(), "after {done} steps: {report:?}");
        assert_eq!(report.removed, [0, 0, 256, 512, 768, 768][done], "after {done} steps");
        // A writer opens it, and finds nothing amiss.
        crashed.append(&["more".into()]);
        let mut keeper = Keeper::new(crashed.path(), keep(1000));
        assert_eq!(step(&mut keeper, at(2000)).unwrap(), Done::Removed, "after {done} steps");
        assert_eq!(step(&mut keeper, at(2000)).unwrap(), Done::Nothing);
        let report = crashed.check();
        assert!(report.is_clean() && report.removed == 768, "after {done} steps: {report:?}");
    }
}

#[test]
fn what_a_crash_left_before_removed_is_unlinked_and_nothing_else() {
    let site = Site::of(2000);
    let mut keeper = Keeper::new(site.path(), keep(1300));
    let intent = told(step(&mut keeper, at(2000)));
    site.record(&intent);
    remove::take(&site.store(), remove::Step::Say(intent.to)).unwrap();
    fs::remove_file(site.path().join(super::service::INTENT_NAME)).unwrap();
    assert_eq!(step(&mut Keeper::new(site.path(), LogConfig::default()), at(2000)).unwrap(), Done::Nothing);
    assert_eq!((site.first_left(), site.check().removed), (intent.to, intent.to));
}

#[test]
fn a_file_that_says_more_is_removed_than_events_do_removes_nothing() {
    let site = Site::of(2000);
    remove::take(&site.store(), remove::Step::Say(512)).unwrap();
    let error = step(&mut Keeper::new(site.path(), LogConfig::default()), at(2000)).unwrap_err().to_string();
    assert!(error.contains("before 512 have gone") && error.contains("before 0 only"), "{error}");
    assert_eq!((site.first_left(), site.check().removed), (0, 0));
}

#[test]
fn bundles_in_directories_of_a_thousand_go_with_their_directory() {
    let site = Site::of(0);
    let store = site.store();
    // Sparse files stand for bundles: only where they lie matters here.
    let entries = site.path().join("log/tile/entries");
    for index in [0u64, 999, 1000, 1999, 2000] {
        let path = site.path().join("log").join(super::plan::bundle(index).path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    for one in remove::steps(&store, 2000 * 256).unwrap() {
        remove::take(&store, one).unwrap();
    }
    let left: Vec<PathBuf> = fs::read_dir(&entries).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [entries.join("x002")]);
}

#[test]
fn a_log_whose_hashes_are_damaged_is_rebuilt_though_its_beginning_has_gone() {
    let site = Site::of(2000);
    let mut keeper = Keeper::new(site.path(), keep(1000));
    let intent = told(step(&mut keeper, at(2000)));
    site.record(&intent);
    assert_eq!(step(&mut keeper, at(2000)).unwrap(), Done::Removed);
    // The edge, which a writer needs, and which the entries that are left do not give by themselves.
    let edge = site.path().join("log/tile/1/000.p/7");
    fs::remove_file(&edge).unwrap();
    let Opened { log, amiss } = EvidenceLog::open(&site.path().join("log"), "host").unwrap();
    assert_eq!((amiss.len(), &amiss[0]["what"]), (1, &json!("tiles")), "{amiss:?}");
    drop(log);
    assert!(site.check().is_clean() && edge.exists());
}

#[test]
fn the_index_answers_about_what_is_left() {
    let site = Site::of(2000);
    let files = index::Files::in_state(site.path());
    index::rebuild(&files, &site.source()).unwrap();
    let mut keeper = Keeper::new(site.path(), keep(1000));
    let intent = told(step(&mut keeper, at(2000)));
    site.record(&intent);
    step(&mut keeper, at(2000)).unwrap();
    let query = EventQuery { agent: Some("a".into()), ..EventQuery::default() };
    let answered = |site: &Site| {
        let answer = index::Answer::find(&files, &site.source(), &query).unwrap().unwrap();
        let found = site.source().entries_at(&answer.places).unwrap();
        found.into_iter().flatten().filter(|line| query.wants(line)).count()
    };
    assert_eq!(answered(&site), 2000 - 768, "an index of before");
    index::catch_up(&files, &site.source(), 10_000).unwrap();
    assert_eq!(answered(&site), 2000 - 768, "one that has caught up");
    index::rebuild(&files, &site.source()).unwrap();
    assert_eq!(answered(&site), 2000 - 768, "a new one");
}

#[test]
fn the_thread_does_it_all_and_tells() {
    let site = Site::of(1000);
    let mut config = keep(60);
    config.retention.interval_ns = SECOND;
    let (sender, told) = std::sync::mpsc::channel();
    let retention =
        super::Retention::start(config, site.path(), Box::new(move |one| drop(sender.send(one)))).unwrap();
    let Told::Going(intent) = told.recv_timeout(std::time::Duration::from_secs(60)).unwrap() else {
        panic!("it failed")
    };
    site.record(&intent);
    for _ in 0..1200 {
        if removed_before(&site.store()).unwrap() == 768 && site.first_left() == 768 {
            drop(retention);
            assert!(site.check().is_clean());
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("nothing was removed");
}
