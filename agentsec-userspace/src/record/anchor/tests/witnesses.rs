//! A witness: what it cosigns, what it refuses, and what that means.

use super::server::{Server, Witness as Other};
use super::{Log, runtime};
use crate::record::anchor::consistent::{Contradiction, How};
use crate::record::anchor::witness::Witness;
use crate::record::anchor::{Cosignature, Fault, WitnessKey, newest_trusted};
use crate::record::evidence::check::check;
use crate::record::evidence::note::Checkpoint;
use crate::record::remote::Client;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn served(log: &Log) -> (Server, Witness, Arc<Mutex<Other>>) {
    let (other, key) = Other::of(&log.newest().key.to_string());
    let other = Arc::new(Mutex::new(other));
    let answering = Arc::clone(&other);
    let server = Server::start(move |seen| answering.lock().unwrap().answer(seen));
    let witness = Witness { url: server.url(), key: WitnessKey::parse(&key).unwrap() };
    (server, witness, other)
}

fn place(witness: &Witness, log: &Log, was: Option<&Checkpoint>) -> Result<Cosignature, Fault> {
    runtime().block_on(async {
        let client = Client::new(None, Duration::from_secs(20)).unwrap();
        witness.place(&client, &log.store(), was, &log.newest()).await
    })
}

#[track_caller]
fn contradicted(placed: Result<Cosignature, Fault>) -> Contradiction {
    match placed {
        Err(Fault::Contradicted(contradiction)) => contradiction,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failed(placed: Result<Cosignature, Fault>) -> String {
    match placed {
        Err(Fault::Failed(error)) => format!("{error:#}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_growing_log_is_cosigned_and_a_verifier_believes_it() {
    let log = Log::of(1);
    let (server, witness, other) = served(&log);
    let mut was = None;
    for size in [1, 2, 3, 255, 256, 257, 511, 700, 700, 1025] {
        log.grow(size, "entry");
        let cosignature = place(&witness, &log, was.as_ref()).unwrap();
        let now = log.newest();
        assert_eq!((now.checkpoint.size, cosignature.at_s), (size, other.lock().unwrap().clock));
        // What is kept vouches for the log as the check sees it.
        let kept = format!("{}{}", now.signed, cosignature.line);
        let witnesses = [witness.key.clone()];
        let trusted = newest_trusted(&[("kept".into(), kept)], &now.key, &witnesses).unwrap();
        assert_eq!(trusted.cosigned, Some((now.checkpoint.clone(), cosignature)));
        let report = check(&log.store(), &now.key, &trusted.kept).unwrap();
        assert!(report.is_clean(), "{report:?}");
        let standing = trusted.standing(&report);
        assert_eq!((standing.anchored, standing.cosigned, standing.self_attested), (size, size, 0));
        was = Some(now.checkpoint);
    }
    assert_eq!(server.requests(), 10, "no request was refused");
}

#[test]
fn who_has_forgotten_what_was_cosigned_asks_again_with_the_witnesss_size() {
    let log = Log::of(300);
    let (server, witness, _other) = served(&log);
    place(&witness, &log, None).unwrap();
    log.grow(900, "entry");
    place(&witness, &log, None).unwrap();
    let bodies: Vec<String> = server.seen.lock().unwrap().iter().map(|(_, _, body)| body.clone()).collect();
    let olds: Vec<&str> = bodies.iter().map(|body| body.lines().next().unwrap()).collect();
    assert_eq!(olds, ["old 0", "old 0", "old 300"]);
}

#[test]
fn an_old_copy_and_another_tree_are_contradictions() {
    let log = Log::of(700);
    let (_server, witness, other) = served(&log);
    place(&witness, &log, None).unwrap();
    let was = log.newest().checkpoint;
    // Put back as it was before, and nobody here remembers.
    let old = log.rewritten(300);
    let found = contradicted(place(&witness, &old, None));
    assert_eq!((found.how, found.anchored, found.now.size), (How::RolledBack, 700, 300));
    // The same number of entries, and more, but others.
    let same = log.rewritten(700);
    assert_eq!(contradicted(place(&witness, &same, None)).how, How::SplitView);
    let more = log.rewritten(900);
    assert_eq!(contradicted(place(&witness, &more, None)).how, How::SplitView);
    // Here it is remembered: then nothing is even sent.
    assert_eq!(contradicted(place(&witness, &more, Some(&was))).how, How::Rewritten);
    assert_eq!(other.lock().unwrap().logs.values().next().unwrap().1, 700, "it has cosigned nothing of that");
}

#[test]
fn what_a_witness_refuses_is_told_in_words() {
    let log = Log::of(3);
    let (_server, witness, other) = served(&log);
    let stranger = Log::of(3);
    let error = failed(place(&witness, &stranger, None));
    assert!(error.contains("does not know the log agentsec/host/"), "{error}");
    let origin = log.newest().checkpoint.origin;
    other.lock().unwrap().logs.get_mut(&origin).unwrap().0 = stranger.newest().key.to_string();
    let error = failed(place(&witness, &log, None));
    assert!(error.contains("with another key than"), "{error}");
}

#[test]
fn an_answer_that_is_no_cosignature_of_this_witness_counts_for_nothing() {
    let log = Log::of(3);
    let (_, key) = Other::of(&log.newest().key.to_string());
    let key = WitnessKey::parse(&key).unwrap();
    let wrong = log.newest().signed;
    let answers: Vec<(StatusCode, String, &str)> = vec![
        (StatusCode::OK, String::new(), "without a cosignature"),
        (StatusCode::OK, wrong, "without a cosignature"),
        (StatusCode::OK, format!("— {} AAAA\n", key.name()), "without a cosignature"),
        (StatusCode::CONFLICT, "3".into(), "409 without a size"),
        (StatusCode::INTERNAL_SERVER_ERROR, "oh\nno".into(), "answered 500: oh"),
    ];
    for (status, body, expected) in answers {
        let told = body.clone();
        let server = Server::start(move |_| (status, told.clone()).into_response());
        let error = failed(place(&Witness { url: server.url(), key: key.clone() }, &log, None));
        assert!(error.contains(expected), "{body:?}: {error}");
    }
    // A cosignature of another checkpoint is a forgery, not an absence.
    let (other, _) = Other::of(&log.newest().key.to_string());
    let line = crate::record::anchor::cosign::tests::line(&other.name, &other.secret, "log\n9\nAAAA\n", 3);
    let server = Server::start(move |_| line.clone().into_response());
    let error = failed(place(&Witness { url: server.url(), key }, &log, None));
    assert!(error.contains("its cosignature is wrong"), "{error}");
}

#[test]
fn a_witness_that_always_says_another_size_is_given_up() {
    let log = Log::of(9);
    let (_, key) = Other::of(&log.newest().key.to_string());
    let mut size = 0;
    let server = Server::start(move |_| {
        size += 1;
        (StatusCode::CONFLICT, [("content-type", "text/x.tlog.size")], format!("{size}\n")).into_response()
    });
    let witness = Witness { url: server.url(), key: WitnessKey::parse(&key).unwrap() };
    assert!(failed(place(&witness, &log, None)).contains("changes its mind"));
    assert_eq!(server.requests(), 2);
}
