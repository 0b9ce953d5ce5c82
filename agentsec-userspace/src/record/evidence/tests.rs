//! The log as a whole: crashes at every byte, changes of every bit, old copies, other keys.

use super::check::{Kept, Report, What, check};
use super::tiles::TileStore;
use super::*;
use crate::record::entries::EventSource;
use crate::record::sink::Storage;
use proptest::prelude::*;
use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

fn open(directory: &Path) -> EvidenceLog {
    let Opened { log, amiss } = EvidenceLog::open(directory, "host").unwrap();
    assert_eq!(amiss, Vec::<serde_json::Value>::new());
    log
}

/// In memory where that can be: thousands of logs are made, and each is synced.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn entry(number: u64) -> Vec<u8> {
    format!("{{\"number\":{number}}}").into_bytes()
}

fn entries(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.map(entry).collect()
}

fn read(directory: &Path) -> Vec<Vec<u8>> {
    let all: Vec<_> =
        EvidenceSource::new(directory).entries_from(0).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(all.iter().enumerate().all(|(at, (number, _))| *number == at as u64));
    all.into_iter().map(|(_, entry)| entry).collect()
}

fn verdict(directory: &Path, kept: &[&str]) -> Report {
    let key = key::read_public(directory).unwrap();
    let kept: Vec<Kept> =
        kept.iter().map(|signed| Kept { from: "kept".into(), signed: (*signed).to_owned() }).collect();
    check(&TileStore::new(directory), &key, &kept).unwrap()
}

fn found(report: &Report) -> Vec<(What, Option<u64>)> {
    report.findings.iter().map(|finding| (finding.what, finding.entry)).collect()
}

/// A directory with a log of `size` entries, all but the last `waiting` in tiles.
fn made(size: u64, waiting: u64) -> tempfile::TempDir {
    let directory = scratch();
    let mut log = open(directory.path());
    log.append(&entries(0..size - waiting), true).unwrap();
    log.close().unwrap();
    if waiting > 0 {
        log.append(&entries(size - waiting..size), true).unwrap();
    }
    directory
}

/// What is in the write-ahead file of the log in `directory`, without the zeros behind it.
fn ahead(directory: &Path) -> Vec<u8> {
    let mut bytes = fs::read(directory.join("wal")).unwrap();
    bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
    bytes
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()))
        } else {
            all.push(entry.path())
        }
    }
    all.sort();
    all
}

#[test]
fn entries_are_read_back_over_restarts_wherever_they_lie() {
    let directory = scratch();
    let path = directory.path();
    let mut next = 0;
    for (round, count) in [1u64, 3, 252, 1, 255, 300, 7].into_iter().enumerate() {
        let mut log = open(path);
        log.append(&entries(next..next + count), round % 2 == 0).unwrap();
        next += count;
        assert_eq!(read(path), entries(0..next), "in the write-ahead file");
        if round % 3 != 0 {
            log.publish().unwrap();
        }
        assert_eq!(read(path), entries(0..next));
        drop(log);
        let report = verdict(path, &[]);
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.signed + report.waiting, next);
    }
    let at = EvidenceSource::new(path).entries_at(&[818, 0, 256, 819, 5]).unwrap();
    assert_eq!(at, [Some(entry(818)), Some(entry(0)), Some(entry(256)), None, Some(entry(5))]);
}

#[test]
fn a_second_writer_is_refused() {
    let directory = scratch();
    let _first = open(directory.path());
    let error = EvidenceLog::open(directory.path(), "host").unwrap_err();
    assert!(format!("{error:#}").contains("another process writes this log"), "{error:#}");
}

#[test]
fn a_write_ahead_file_cut_at_any_byte_loses_nothing_that_was_whole() {
    let directory = made(260, 0);
    let path = directory.path();
    let mut log = open(path);
    let mut ends = vec![(0, 260)];
    for first in [260, 262, 300] {
        let next = first + if first == 262 { 38 } else { 2 };
        log.append(&entries(first..next), true).unwrap();
        ends.push((ahead(path).len(), next));
    }
    drop(log);
    let whole = ahead(path);
    for cut in 0..=whole.len() {
        for zeros in [0, 512] {
            let again = scratch();
            copy(path, again.path());
            let mut tail = whole[..cut].to_vec();
            tail.resize(cut + zeros, 0);
            fs::write(again.path().join("wal"), tail).unwrap();
            let (end, kept) = ends.iter().rfind(|(end, _)| *end <= cut).unwrap();
            let Opened { mut log, amiss } = EvidenceLog::open(again.path(), "host").unwrap();
            let torn = whole[*end..cut].iter().any(|&byte| byte != 0);
            assert_eq!(amiss.len(), usize::from(torn), "cut at {cut}: {amiss:?}");
            assert!(amiss.iter().all(|told| told["what"] == "torn_batch"));
            assert_eq!(log.size(), *kept, "cut at {cut}");
            log.append(&entries(*kept..kept + 1), true).unwrap();
            log.publish().unwrap();
            drop(log);
            assert_eq!(read(again.path()), entries(0..kept + 1));
            assert!(verdict(again.path(), &[]).is_clean());
        }
    }
}

#[test]
fn a_crash_between_any_two_files_of_a_checkpoint_loses_nothing() {
    // Everything that publishing writes, taken away file by file: tiles of the new size may be there or not.
    let before = made(250, 0);
    let after = scratch();
    copy(before.path(), after.path());
    let mut log = open(after.path());
    log.append(&entries(250..600), true).unwrap();
    copy(after.path(), before.path());
    log.publish().unwrap();
    drop(log);
    let new: Vec<_> = files(after.path())
        .into_iter()
        .filter(|path| path.strip_prefix(after.path()).unwrap().starts_with("tile"))
        .collect();
    for count in 0..=new.len() {
        let crashed = scratch();
        copy(before.path(), crashed.path());
        for file in &new[..count] {
            let target = crashed.path().join(file.strip_prefix(after.path()).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(file, target).unwrap();
        }
        let mut log = open(crashed.path());
        assert_eq!(log.size(), 600);
        log.close().unwrap();
        assert_eq!(read(crashed.path()), entries(0..600));
        let report = verdict(crashed.path(), &[]);
        assert!(report.is_clean(), "{count}: {report:?}");
    }
}

#[test]
fn every_changed_bit_of_a_small_log_is_found() {
    let directory = made(5, 2);
    let path = directory.path();
    let anchor = fs::read_to_string(path.join("checkpoint")).unwrap();
    let trusted = key::read_public(path).unwrap();
    assert!(verdict(path, &[&anchor]).is_clean());
    let mut bits = 0;
    for file in files(path) {
        let good = fs::read(&file).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, bad).unwrap();
            let kept = [Kept { from: "kept".into(), signed: anchor.clone() }];
            let report = check(&TileStore::new(path), &trusted, &kept).unwrap();
            assert!(!report.is_clean(), "bit {bit} of {}", file.display());
            bits += 1;
        }
        fs::write(&file, good).unwrap();
    }
    assert!(bits > 5000, "{bits} bits were changed");
}

#[test]
fn what_is_wrong_is_named_with_its_first_entry() {
    let (size, bundle) = (600, "tile/entries/001");
    let original = made(size, 0);
    let good = fs::read(original.path().join(bundle)).unwrap();
    let list: Vec<Vec<u8>> = tiles::entries_in(&good).unwrap().into_iter().map(<[u8]>::to_vec).collect();
    type Change = fn(&mut Vec<Vec<u8>>);
    let cases: [(&str, Change, What, u64); 5] = [
        ("changed", |all| all[7][2] = b'N', What::Changed, 263),
        ("taken out", |all| drop(all.remove(7)), What::Missing, 263),
        ("cut off", |all| all.truncate(250), What::Missing, 506),
        ("swapped", |all| all.swap(7, 200), What::Reordered, 263),
        ("put in", |all| all.insert(7, b"{}".to_vec()), What::Changed, 263),
    ];
    for (case, change, what, first) in cases {
        let mut entries = list.clone();
        change(&mut entries);
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| tiles::push_entry(&mut bytes, entry));
        fs::write(original.path().join(bundle), bytes).unwrap();
        assert_eq!(found(&verdict(original.path(), &[])), [(what, Some(first))], "{case}");
    }
    fs::remove_file(original.path().join(bundle)).unwrap();
    assert_eq!(found(&verdict(original.path(), &[])), [(What::Missing, Some(256))]);
}

#[test]
fn a_damaged_bundle_hides_nothing_of_the_others() {
    let log = made(600, 0);
    let bundle = log.path().join("tile/entries/000");
    let mut bytes = fs::read(&bundle).unwrap();
    let third = 2 * (2 + entry(0).len());
    bytes[third] = 0xff;
    fs::write(&bundle, bytes).unwrap();
    let source = EvidenceSource::new(log.path());
    let all: Vec<_> = source.entries_from(0).unwrap().collect::<Result<_, _>>().unwrap();
    let expected: Vec<u64> = (0..3).chain(256..600).collect();
    assert_eq!(all.iter().map(|(number, _)| *number).collect::<Vec<_>>(), expected);
    assert!(all.iter().all(|(number, line)| (*line == entry(*number)) == (*number != 2)));
    let at = source.entries_at(&[1, 3, 599]).unwrap();
    assert_eq!(at, [Some(entry(1)), None, Some(entry(599))]);
    assert_eq!(found(&verdict(log.path(), &[])), [(What::Changed, Some(2))]);
}

#[test]
fn a_file_of_what_was_removed_that_says_nothing_is_a_finding() {
    let log = made(600, 0);
    fs::write(log.path().join("removed"), "many\n").unwrap();
    assert_eq!(found(&verdict(log.path(), &[])), [(What::Damaged, None)]);
    fs::remove_file(log.path().join("tile/entries/001")).unwrap();
    assert_eq!(found(&verdict(log.path(), &[])), [(What::Damaged, None), (What::Missing, Some(256))]);
}

#[test]
fn without_a_signed_checkpoint_no_entry_is_called_attested_and_nothing_else_drowns_that() {
    let log = made(600, 0);
    assert!(verdict(log.path(), &[]).attested);
    let checkpoint = log.path().join("checkpoint");
    let signed = fs::read_to_string(&checkpoint).unwrap();
    // Four letters of the signature, before its padding.
    let at = signed.len() - 10;
    let forged = format!(
        "{}{}{}",
        &signed[..at],
        if &signed[at..at + 4] == "AAAA" { "BBBB" } else { "AAAA" },
        &signed[at + 4..]
    );
    for (text, claimed) in [("", 0), (forged.as_str(), 600)] {
        fs::write(&checkpoint, text).unwrap();
        let report = verdict(log.path(), &[]);
        assert_eq!((report.attested, report.signed), (false, claimed));
        assert_eq!(found(&report), [(What::Damaged, None)], "{:?}", report.findings);
    }
    fs::remove_file(&checkpoint).unwrap();
    let report = verdict(log.path(), &[&signed]);
    assert!(!report.attested);
    assert_eq!(found(&report), [(What::Missing, None), (What::RolledBack, Some(0))]);
}

#[test]
fn the_first_bad_entry_is_named_however_much_else_is_wrong() {
    let log = made(110 * 256, 0);
    for tile in 0..105 {
        let path = log.path().join(format!("tile/0/{tile:03}"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let bundle = log.path().join("tile/entries/107");
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[4] ^= 1;
    fs::write(bundle, bytes).unwrap();
    let report = verdict(log.path(), &[]);
    assert_eq!((report.first_bad(), report.findings.len(), report.more), (Some(107 * 256), 101, 5));
}

#[test]
fn what_is_no_file_or_has_more_behind_it_is_a_finding_and_waited_for_by_nobody() {
    let log = made(600, 0);
    let saved = scratch();
    copy(log.path(), saved.path());
    let bundle = log.path().join("tile/entries/001");
    let replace = |path: &Path, with: &dyn Fn(&Path)| {
        fs::remove_file(path).unwrap();
        with(path);
        let report = verdict(log.path(), &[]);
        if path.is_dir() {
            fs::remove_dir(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        copy(saved.path(), log.path());
        found(&report)
    };
    let pipe = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let sparse = |path: &Path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(replace(&bundle, &pipe), [(What::Damaged, Some(256))]);
    assert_eq!(replace(&bundle, &|path| fs::create_dir(path).unwrap()), [(What::Damaged, Some(256))]);
    assert_eq!(replace(&bundle, &sparse), [(What::Changed, Some(256))]);
    for name in ["tile/0/001", "checkpoint", "wal"] {
        assert_eq!(replace(&log.path().join(name), &pipe), [(What::Damaged, None)], "{name}");
    }
    let longer = |entry: &[u8]| {
        let mut bytes = fs::read(saved.path().join("tile/entries/001")).unwrap();
        tiles::push_entry(&mut bytes, entry);
        bytes
    };
    for behind in [&b"{}"[..], b""] {
        let mut bytes = longer(behind);
        assert_eq!(replace(&bundle, &|path| fs::write(path, &bytes).unwrap()), [(What::Damaged, None)]);
        bytes.push(0);
        assert_eq!(replace(&bundle, &|path| fs::write(path, &bytes).unwrap()), [(What::Damaged, None)]);
    }
    assert!(verdict(log.path(), &[]).is_clean());
}

#[test]
fn entries_and_hashes_changed_together_contradict_the_signature() {
    let directory = made(600, 0);
    let path = directory.path();
    for (bundle, tile) in [("tile/entries/001", "tile/0/001"), ("tile/entries/002.p/88", "tile/0/002.p/88")] {
        let saved = scratch();
        copy(path, saved.path());
        let good = fs::read(path.join(bundle)).unwrap();
        let mut bytes = Vec::new();
        let mut hashes = Vec::new();
        for (at, entry) in tiles::entries_in(&good).unwrap().into_iter().enumerate() {
            let entry = if at == 9 { b"{\"forged\":true}" } else { entry };
            tiles::push_entry(&mut bytes, entry);
            hashes.extend(merkle::leaf_hash(entry));
        }
        fs::write(path.join(bundle), bytes).unwrap();
        fs::write(path.join(tile), hashes).unwrap();
        assert!(!verdict(path, &[]).is_clean());
        copy(saved.path(), path);
        assert!(verdict(path, &[]).is_clean());
    }
}

#[test]
fn an_old_copy_put_back_is_found_only_with_a_checkpoint_from_elsewhere() {
    let directory = made(300, 0);
    let old = scratch();
    copy(directory.path(), old.path());
    let mut log = open(directory.path());
    log.append(&entries(300..400), true).unwrap();
    log.close().unwrap();
    let anchor = fs::read_to_string(directory.path().join("checkpoint")).unwrap();
    let report = verdict(directory.path(), &[&anchor]);
    assert!(report.is_clean());
    assert_eq!((report.signed, report.anchored), (400, 400));
    assert!(verdict(old.path(), &[]).is_clean(), "it is a log, only not the latest");
    assert_eq!(found(&verdict(old.path(), &[&anchor])), [(What::RolledBack, Some(300))]);
}

#[test]
fn a_log_rewritten_by_who_has_the_key_contradicts_the_checkpoints_from_before() {
    let directory = made(300, 0);
    let path = directory.path();
    let early = fs::read_to_string(path.join("checkpoint")).unwrap();
    let mut log = open(path);
    log.append(&entries(300..400), true).unwrap();
    log.close().unwrap();
    let late = fs::read_to_string(path.join("checkpoint")).unwrap();
    drop(log);
    fs::remove_dir_all(path.join("tile")).unwrap();
    fs::remove_file(path.join("checkpoint")).unwrap();
    let mut log = open(path);
    let mut forged = entries(0..400);
    forged[350] = b"{}".to_vec();
    log.append(&forged, true).unwrap();
    log.close().unwrap();
    assert!(verdict(path, &[]).is_clean(), "nothing on this host contradicts it");
    let report = verdict(path, &[&early, &late]);
    assert_eq!(found(&report), [(What::Rewritten, Some(300))]);
    assert_eq!(report.anchored, 300);
}

#[test]
fn another_key_is_told_and_its_log_is_set_aside_at_the_next_start() {
    let (original, other, directory) = (made(10, 0), made(10, 0), scratch());
    let path = directory.path().join("log");
    copy(original.path(), &path);
    let trusted = key::read_public(&path).unwrap();
    for name in ["key", "key.pub"] {
        fs::copy(other.path().join(name), path.join(name)).unwrap();
    }
    let report = check(&TileStore::new(&path), &trusted, &[]).unwrap();
    assert!(report.is_clean(), "the log's signature is still that of the trusted key: {report:?}");
    let Opened { mut log, amiss } = EvidenceLog::open(&path, "host").unwrap();
    assert_eq!((amiss.len(), log.size()), (1, 0));
    let kept = PathBuf::from(amiss[0]["kept_as"].as_str().unwrap());
    assert_eq!(read(&kept), entries(0..10), "evidence stays");
    log.append(&entries(0..1), true).unwrap();
    log.close().unwrap();
    assert_eq!(found(&check(&TileStore::new(&path), &trusted, &[]).unwrap())[0].0, What::OtherKey);
}

#[test]
fn a_missing_key_and_a_damaged_log_begin_a_new_one_beside_the_old() {
    let missing: fn(&Path) = |path| fs::remove_file(path.join("key")).unwrap();
    let readable: fn(&Path) = |path| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    };
    let damaged: fn(&Path) = |path| fs::write(path.join("tile/entries/000.p/10"), "x").unwrap();
    let unsigned: fn(&Path) = |path| fs::write(path.join("checkpoint"), "x").unwrap();
    for (case, harm) in
        [("missing", missing), ("readable", readable), ("damaged", damaged), ("unsigned", unsigned)]
    {
        let (original, directory) = (made(10, 0), scratch());
        let path = directory.path().join("log");
        copy(original.path(), &path);
        harm(&path);
        let Opened { mut log, amiss } = EvidenceLog::open(&path, "host").unwrap();
        assert_eq!((amiss.len(), log.size()), (1, 0), "{case}");
        log.append(&entries(0..3), true).unwrap();
        log.close().unwrap();
        drop(log);
        assert_eq!(open(&path).size(), 3, "{case}");
        assert!(verdict(&path, &[]).is_clean(), "{case}");
    }
}

#[test]
fn a_public_key_that_is_missing_cut_or_another_is_written_again_and_told() {
    let (log, other) = (made(3, 1), made(1, 0));
    let public = log.path().join("key.pub");
    let right = fs::read(&public).unwrap();
    let foreign = fs::read(other.path().join("key.pub")).unwrap();
    for wrong in [None, Some(&b""[..]), Some(&right[..20]), Some(&foreign)] {
        match wrong {
            None => fs::remove_file(&public).unwrap(),
            Some(bytes) => fs::write(&public, bytes).unwrap(),
        }
        let Opened { log: opened, amiss } = EvidenceLog::open(log.path(), "host").unwrap();
        assert_eq!((opened.size(), amiss.len()), (3, 1));
        assert_eq!((amiss[0]["what"].as_str(), amiss[0]["error"].is_null()), (Some("public_key"), true));
        assert_eq!(fs::read(&public).unwrap(), right);
        assert_eq!(fs::metadata(&public).unwrap().permissions().mode() & 0o777, 0o644);
    }
    drop(open(log.path()));
}

#[test]
fn lost_hashes_are_made_again_from_the_entries() {
    let directory = made(600, 0);
    fs::remove_dir_all(directory.path().join("tile/1")).unwrap();
    fs::write(directory.path().join("tile/0/002.p/88"), [0; 32 * 88]).unwrap();
    assert!(!verdict(directory.path(), &[]).is_clean());
    let Opened { log, amiss } = EvidenceLog::open(directory.path(), "host").unwrap();
    assert_eq!((log.size(), amiss[0]["what"].as_str()), (600, Some("tiles")));
    drop(log);
    assert!(verdict(directory.path(), &[]).is_clean());
}

#[test]
fn a_damaged_write_ahead_file_is_kept_and_told() {
    let directory = scratch();
    let mut log = open(directory.path());
    for first in 0..3 {
        log.append(&entries(first..first + 1), true).unwrap();
    }
    drop(log);
    let wal = directory.path().join("wal");
    let mut bytes = ahead(directory.path());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&wal, &bytes).unwrap();
    let report = verdict(directory.path(), &[]);
    assert_eq!(found(&report), [(What::Changed, Some(1))]);
    let Opened { log, amiss } = EvidenceLog::open(directory.path(), "host").unwrap();
    assert_eq!((log.size(), amiss[0]["what"].as_str()), (1, Some("write_ahead")));
    assert!(fs::read(amiss[0]["kept_as"].as_str().unwrap()).unwrap().starts_with(&bytes));
}

/// A disk whose system forgets what it could not write, and says so once.
struct Forgetful {
    disk: fs::File,
    /// What was written since the last sync.
    dirty: Vec<(u64, Vec<u8>)>,
    fails: Rc<Cell<bool>>,
}

impl Storage for Forgetful {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.dirty.push((offset, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        let dirty = std::mem::take(&mut self.dirty);
        if self.fails.get() {
            return Err(io::Error::other("EIO"));
        }
        dirty
            .iter()
            .try_for_each(|(offset, bytes)| Storage::write_at(&mut self.disk, *offset, bytes).map(drop))
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        Storage::set_length(&mut self.disk, length)
    }
}

#[test]
fn nothing_is_acknowledged_behind_what_a_failed_sync_has_lost() {
    let directory = scratch();
    let store = TileStore::new(directory.path());
    drop(open(directory.path()));
    let (fails, lock) = (Rc::new(Cell::new(false)), fs::File::open(directory.path().join("lock")).unwrap());
    let disk = fs::OpenOptions::new().write(true).open(directory.path().join("wal")).unwrap();
    let disk = Forgetful { disk, dirty: Vec::new(), fails: Rc::clone(&fails) };
    let signer = key::read(directory.path()).unwrap().unwrap();
    let wal = wal::Wal::new(disk, 0, 0);
    let mut log = EvidenceLog::assemble(store, signer, tree::Frontier::default(), Vec::new(), wal, lock);
    log.append(&entries(0..3), true).unwrap();
    log.append(&entries(3..6), false).unwrap();
    fails.set(true);
    assert!(log.append(&entries(6..7), true).is_err(), "its sync loses the entries before it as well");
    assert!(log.append(&entries(6..7), true).is_err());
    fails.set(false);
    log.append(&entries(6..8), true).unwrap();
    drop(log);
    // The machine stops: what is on the disk is what there is.
    assert_eq!(read(directory.path()), entries(0..8));
    drop(open(directory.path()));
    assert!(verdict(directory.path(), &[]).is_clean());
}

#[test]
fn an_entry_that_no_bundle_can_hold_is_refused() {
    let directory = scratch();
    let mut log = open(directory.path());
    assert!(log.append(&[vec![b'x'; 65_536]], true).is_err());
    log.append(&[vec![b'x'; 65_535]], true).unwrap();
    log.close().unwrap();
    assert_eq!(read(directory.path()), [vec![b'x'; 65_535]]);
}

/// A write-ahead file cut between two batches is a shorter one: nothing signs those yet. So is one of which no more is
/// left than the zeros that a length begins with. The space at the end of a key is no part of it.
fn means_the_same(file: &Path, original: &[u8], changed: &[u8]) -> bool {
    match file.file_name().and_then(|name| name.to_str()) {
        Some("wal") => changed.iter().all(|&byte| byte == 0),
        Some("key" | "key.pub") => original.trim_ascii_end() == changed.trim_ascii_end(),
        _ => false,
    }
}

proptest! {
    #[test]
    fn any_change_of_any_file_is_found(
        size in 1u64..700, waiting in 0u64..20, which: prop::sample::Index, at: prop::sample::Index,
        value in 1u8.., cut: bool,
    ) {
        let directory = made(size, waiting.min(size - 1));
        let path = directory.path();
        let trusted = key::read_public(path).unwrap();
        let all: Vec<_> = files(path).into_iter().filter(|file| fs::metadata(file).unwrap().len() > 0).collect();
        let file = &all[which.index(all.len())];
        let original = if file.ends_with("wal") { ahead(path) } else { fs::read(file).unwrap() };
        prop_assume!(!original.is_empty());
        let (mut bytes, position) = (original.clone(), at.index(original.len()));
        if cut { bytes.truncate(position) } else { bytes[position] ^= value }
        prop_assume!(!means_the_same(file, &original, &bytes));
        fs::write(file, bytes).unwrap();
        let report = check(&TileStore::new(path), &trusted, &[]).unwrap();
        prop_assert!(!report.is_clean(), "{} at {}", file.display(), position);
    }
}
