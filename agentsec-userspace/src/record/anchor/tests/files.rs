//! The file anchor; `/dev/shm` is another file system than the log's.

use super::Log;
use crate::record::anchor::consistent::How;
use crate::record::anchor::file::FileAnchor;
use crate::record::anchor::history::notes;
use crate::record::anchor::{Fault, newest_trusted};
use crate::record::evidence::check::{What, check};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use tempfile::TempDir;

fn elsewhere() -> (TempDir, FileAnchor) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let here = fs::metadata(std::env::temp_dir()).unwrap().dev();
    assert_ne!(fs::metadata(directory.path()).unwrap().dev(), here, "the test needs two file systems");
    let anchor = FileAnchor { path: directory.path().join("checkpoints"), same_device: false };
    (directory, anchor)
}

fn place(anchor: &FileAnchor, log: &Log) -> Result<(), Fault> {
    anchor.place(&log.store(), None, &log.newest())
}

fn failed(placed: Result<(), Fault>) -> String {
    match placed {
        Err(Fault::Failed(error)) => format!("{error:#}"),
        other => panic!("{other:?}"),
    }
}

fn how(placed: Result<(), Fault>) -> How {
    match placed {
        Err(Fault::Contradicted(contradiction)) => contradiction.how,
        other => panic!("{other:?}"),
    }
}

#[test]
fn checkpoints_are_appended_and_vouch_for_the_log() {
    let (_directory, anchor) = elsewhere();
    let log = Log::of(3);
    for size in [3, 3, 300, 500] {
        log.grow(size, "entry");
        place(&anchor, &log).unwrap();
    }
    let text = fs::read_to_string(&anchor.path).unwrap();
    assert_eq!(notes(&text).len(), 3, "an unchanged one is not appended again");
    assert_eq!(fs::metadata(&anchor.path).unwrap().mode() & 0o777, 0o600);
    log.grow(600, "entry");
    let key = log.newest().key;
    let trusted = newest_trusted(&[("file".into(), text.clone())], &key, &[]).unwrap();
    let report = check(&log.store(), &key, &trusted.kept).unwrap();
    let standing = trusted.standing(&report);
    assert!(report.is_clean());
    assert_eq!((standing.anchored, standing.cosigned, standing.self_attested), (500, 0, 100));
    // Rewritten by whoever has the key: found, with the first entry that nothing vouches for.
    let other = log.rewritten(600);
    let report = check(&other.store(), &key, &trusted.kept).unwrap();
    assert_eq!(report.findings[0].what, What::Rewritten, "{report:?}");
    let report = check(&log.rewritten(2).store(), &key, &trusted.kept).unwrap();
    assert_eq!(report.findings[0].what, What::RolledBack, "{report:?}");
    let stranger = Log::of(1).newest().key;
    let error = newest_trusted(&[("file".into(), text)], &stranger, &[]).unwrap_err();
    assert!(error.to_string().contains("of other logs"), "{error}");
}

#[test]
fn a_torn_end_is_left_and_the_next_checkpoint_still_counts() {
    let (_directory, anchor) = elsewhere();
    let log = Log::of(3);
    place(&anchor, &log).unwrap();
    let whole = fs::read(&anchor.path).unwrap();
    log.grow(5, "entry");
    let more = log.newest().signed.into_bytes();
    for cut in 0..=more.len() {
        fs::write(&anchor.path, [&whole[..], &more[..cut]].concat()).unwrap();
        place(&anchor, &log).unwrap();
        let text = String::from_utf8_lossy(&fs::read(&anchor.path).unwrap()).into_owned();
        let key = log.newest().key;
        let good = notes(&text).into_iter().filter_map(|note| key.checkpoint(note).ok());
        let mut sizes: Vec<u64> = good.map(|one| one.size).collect();
        // One whose last newline only is missing counts, and is not relied on.
        sizes.dedup();
        assert_eq!(sizes, [3, 5], "cut at {cut}: {text}");
    }
}

#[test]
fn a_log_that_contradicts_the_file_is_not_placed_there() {
    let (_directory, anchor) = elsewhere();
    let log = Log::of(300);
    place(&anchor, &log).unwrap();
    let before = fs::read(&anchor.path).unwrap();
    assert_eq!(how(place(&anchor, &log.rewritten(200))), How::RolledBack);
    assert_eq!(how(place(&anchor, &log.rewritten(300))), How::Rewritten);
    assert_eq!(how(place(&anchor, &log.rewritten(400))), How::Rewritten);
    assert_eq!(fs::read(&anchor.path).unwrap(), before);
    // What is remembered and no longer there was taken away.
    fs::write(&anchor.path, "").unwrap();
    let was = log.newest().checkpoint;
    let error = failed(anchor.place(&log.store(), Some(&was), &log.newest()));
    assert!(error.contains("no longer holds what was placed there"), "{error}");
    // Another log may share the file.
    let other = Log::of(7);
    fs::write(&anchor.path, before).unwrap();
    place(&anchor, &other).unwrap();
    log.grow(301, "entry");
    place(&anchor, &log).unwrap();
    assert_eq!(notes(&fs::read_to_string(&anchor.path).unwrap()).len(), 3);
}

#[test]
fn what_is_no_file_of_another_file_system_is_refused() {
    let (directory, anchor) = elsewhere();
    let log = Log::of(3);
    let same = FileAnchor { path: log.state_dir().join("checkpoints"), same_device: false };
    let error = failed(place(&same, &log));
    assert!(error.contains("same file system") && !same.path.exists(), "{error}");
    place(&FileAnchor { same_device: true, ..same }, &log).unwrap();
    let link = FileAnchor { path: directory.path().join("link"), ..anchor.clone() };
    std::os::unix::fs::symlink("/dev/shm/agentsec-nowhere", &link.path).unwrap();
    assert!(failed(place(&link, &log)).contains("opening"));
    let pipe = FileAnchor { path: directory.path().join("pipe"), ..anchor.clone() };
    nix::unistd::mkfifo(&pipe.path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(failed(place(&pipe, &log)).contains("it is no file"));
    let missing = FileAnchor { path: directory.path().join("missing/file"), ..anchor };
    assert!(failed(place(&missing, &log)).contains("looking at"));
}

#[test]
fn a_damaged_log_is_not_anchored() {
    let (_directory, anchor) = elsewhere();
    let log = Log::of(300);
    let tile = log.directory().join("tile/0/001.p/44");
    let mut bytes = fs::read(&tile).unwrap();
    bytes[5] ^= 1;
    fs::OpenOptions::new().write(true).open(&tile).unwrap().write_all(&bytes).unwrap();
    let newest = log.newest();
    let compared = super::super::consistent::compare(&log.store(), None, &newest.checkpoint).unwrap();
    assert_eq!(compared.unwrap_err().how, How::NotItsTree);
    drop(anchor);
}
