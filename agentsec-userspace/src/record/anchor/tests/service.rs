//! The thread as the daemon starts it.

use super::server::{Server, Witness as Other};
use super::{Log, wait_for};
use crate::config::log::{AnchorConfig, AnchorPlace, AnchorsConfig};
use crate::record::anchor::service::{covered, kept_checkpoint};
use crate::record::anchor::{Anchors, Told, WitnessKey, newest_trusted};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

fn config(anchors: impl IntoIterator<Item = (&'static str, AnchorPlace)>) -> AnchorsConfig {
    let named = |(name, place): (&str, AnchorPlace)| (name.to_owned(), AnchorConfig { place });
    AnchorsConfig {
        interval_ns: 20_000_000,
        anchors: anchors.into_iter().map(named).collect(),
        ..AnchorsConfig::default()
    }
}

fn start(config: AnchorsConfig, state_dir: &Path) -> (Anchors, Arc<Mutex<Vec<Told>>>) {
    let told: Arc<Mutex<Vec<Told>>> = Arc::default();
    let hear = Arc::clone(&told);
    let anchors = Anchors::start(config, state_dir, Box::new(move |one| hear.lock().unwrap().push(one)));
    (anchors.unwrap(), told)
}

fn size(anchors: &Anchors, name: &str) -> Option<u64> {
    anchors.states().get(name)?.anchored.as_ref().map(|anchored| anchored.size)
}

#[test]
fn every_anchor_gets_every_new_checkpoint_and_a_failing_one_hinders_no_other() {
    let log = Log::of(3);
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = elsewhere.path().join("checkpoints");
    let (other, key) = Other::of(&log.newest().key.to_string());
    let other = Mutex::new(other);
    let witness = Server::start(move |seen| other.lock().unwrap().answer(seen));
    let works = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&works);
    let http = Server::start(move |_| match answers.load(Ordering::Acquire) {
        true => StatusCode::OK.into_response(),
        false => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    });
    let key = WitnessKey::parse(&key).unwrap();
    let config = config([
        ("file", AnchorPlace::File { path: file.clone(), same_device: false }),
        ("http", AnchorPlace::Http { url: http.url(), header_file: None }),
        ("witness", AnchorPlace::Witness { url: witness.url(), key: key.clone() }),
    ]);
    let (anchors, told) = start(config.clone(), log.state_dir());
    for name in ["file", "witness"] {
        wait_for(name, || (size(&anchors, name) == Some(3)).then_some(()));
    }
    wait_for("the failure", || told.lock().unwrap().first().cloned());
    log.grow(400, "entry");
    for name in ["file", "witness"] {
        wait_for(name, || (size(&anchors, name) == Some(400)).then_some(()));
    }
    assert_eq!(size(&anchors, "http"), None);
    works.store(true, Ordering::Release);
    wait_for("http", || (size(&anchors, "http") == Some(400)).then_some(()));
    let all = wait_for("that it works", || Some(told.lock().unwrap().clone()).filter(|told| told.len() > 1));
    assert!(
        matches!(&all[0], Told::Failing { anchor, kind: "http", error, failures: 1, anchored: 0 }
            if anchor == "http" && error.contains("503")),
        "{all:?}"
    );
    assert_eq!(all[1..], [Told::Working { anchor: "http".into(), anchored: 400 }], "once each");
    drop(anchors);
    let origin = log.newest().checkpoint.origin;
    assert_eq!(covered(log.state_dir(), &origin).unwrap(), Some(400));
    // What is kept of the witness convinces by itself.
    let kept = fs::read_to_string(kept_checkpoint(log.state_dir(), "witness")).unwrap();
    let trusted = newest_trusted(&[("kept".into(), kept)], &log.newest().key, &[key]).unwrap();
    assert_eq!(trusted.cosigned.unwrap().0.size, 400);
    // Started again, it goes on from there: the witness is asked with the size that it knows.
    let requests = witness.requests();
    let (anchors, told) = start(config, log.state_dir());
    log.grow(500, "entry");
    for name in ["file", "http", "witness"] {
        wait_for(name, || (size(&anchors, name) == Some(500)).then_some(()));
    }
    assert_eq!((witness.requests() - requests, told.lock().unwrap().len()), (1, 0));
}

#[test]
fn a_log_that_was_put_back_or_rewritten_is_an_alert_and_is_not_anchored() {
    for size_now in [200, 300, 400] {
        let log = Log::of(300);
        let http = Server::start(|_| StatusCode::OK.into_response());
        let config = config([("http", AnchorPlace::Http { url: http.url(), header_file: None })]);
        let (anchors, _) = start(config.clone(), log.state_dir());
        wait_for("http", || (size(&anchors, "http") == Some(300)).then_some(()));
        drop(anchors);
        let other = log.rewritten(size_now);
        fs::remove_dir_all(log.directory()).unwrap();
        fs::rename(other.directory(), log.directory()).unwrap();
        let requests = http.requests();
        let (anchors, told) = start(config, log.state_dir());
        let first = wait_for("the alert", || told.lock().unwrap().first().cloned());
        let draft = first.draft(crate::core::Time::default());
        assert_eq!(draft.data["what"], "anchor_contradicted");
        let how = if size_now < 300 { "rolled_back" } else { "rewritten" };
        assert_eq!((&draft.data["how"], &draft.data["anchored"]["entries"]), (&how.into(), &300.into()));
        let state = anchors.states().remove("http").unwrap();
        assert!(state.contradicted && state.anchored.unwrap().size == 300);
        assert_eq!(covered(log.state_dir(), &log.newest().checkpoint.origin).unwrap(), None);
        drop(anchors);
        assert_eq!(http.requests(), requests, "nothing of it was sent");
    }
}

#[test]
fn a_new_log_is_told_and_anchored_beside_the_old_one() {
    let log = Log::of(3);
    let http = Server::start(|_| StatusCode::OK.into_response());
    let config = config([("http", AnchorPlace::Http { url: http.url(), header_file: None })]);
    let (anchors, told) = start(config, log.state_dir());
    wait_for("http", || (size(&anchors, "http") == Some(3)).then_some(()));
    let was = log.newest().checkpoint;
    fs::remove_dir_all(log.directory()).unwrap();
    log.grow(2, "entry");
    let now =
        wait_for("the new one", || (size(&anchors, "http") == Some(2)).then(|| log.newest().checkpoint));
    let all = told.lock().unwrap().clone();
    let changed = Told::OtherLog { anchor: "http".into(), was, now };
    // Between the two there was no log that could be read.
    assert!(all.contains(&changed) && all.len() <= 3, "{all:?}");
}

#[test]
fn a_new_configuration_is_taken_and_another_place_begins_anew() {
    let log = Log::of(3);
    let (one, two) = (
        Server::start(|_| StatusCode::OK.into_response()),
        Server::start(|_| StatusCode::OK.into_response()),
    );
    let at = |server: &Server| AnchorPlace::Http { url: server.url(), header_file: None };
    let (anchors, told) = start(config([("a", at(&one))]), log.state_dir());
    wait_for("a", || (size(&anchors, "a") == Some(3)).then_some(()));
    anchors.reconfigure(config([("a", at(&two)), ("b", at(&one))]));
    wait_for("b", || (size(&anchors, "b") == Some(3)).then_some(()));
    wait_for("a at its new place", || (two.requests() == 1).then_some(()));
    anchors.reconfigure(config([]));
    wait_for("none", || anchors.states().is_empty().then_some(()));
    assert_eq!(told.lock().unwrap().clone(), []);
}

#[test]
fn memory_that_cannot_be_understood_is_told_and_begun_anew() {
    let log = Log::of(3);
    let http = Server::start(|_| StatusCode::OK.into_response());
    fs::create_dir(log.state_dir().join("anchors")).unwrap();
    fs::write(log.state_dir().join("anchors/state.json"), "{").unwrap();
    let config = config([("http", AnchorPlace::Http { url: http.url(), header_file: None })]);
    let (anchors, told) = start(config, log.state_dir());
    wait_for("http", || (size(&anchors, "http") == Some(3)).then_some(()));
    assert!(matches!(&told.lock().unwrap()[..], [Told::Broken { error }] if error.contains("state.json")));
}
