//! Sources, repositories and targets that are not as they should be.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agentsec::config::recovery::RecoveryConfig;
use agentsec::recovery::{Kind, Store};
use anyhow::{Context, Result, ensure};

use super::{Bench, tree};

fn planted() -> Result<Bench> {
    let bench = Bench::new()?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(3))?;
    Ok(bench)
}

/// The repository's packs, greatest first.
fn packs(bench: &Bench) -> Result<Vec<PathBuf>> {
    let mut packs = Vec::new();
    for directory in fs::read_dir(PathBuf::from(&bench.store.restic.repository).join("data"))? {
        for pack in fs::read_dir(directory?.path())? {
            packs.push(pack?.path());
        }
    }
    packs.sort_by_key(|pack| std::cmp::Reverse(fs::metadata(pack).map_or(0, |about| about.len())));
    Ok(packs)
}

#[test]
fn a_flipped_bit_anywhere_in_a_pack_is_found_and_nothing_is_restored() -> Result<()> {
    let bench = planted()?;
    let record = bench.create()?;
    for pack in packs(&bench)? {
        let whole = fs::read(&pack)?;
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600))?;
        let mut broken = whole.clone();
        broken[20] ^= 1;
        fs::write(&pack, &broken)?;
        let verified = bench.verify(&record.id).unwrap_err();
        ensure!(verified.kind == Kind::Damaged, "{pack:?}: {verified}");
        assert!(!bench.store.catalogue()?.find(&record.id)?.is_verified());
        let out = bench.path("out");
        bench.restore(&record.id, &out).unwrap_err();
        assert!(!out.exists(), "half restored");
        assert_eq!(fs::read_dir(bench.path("lib/recovery/staging"))?.count(), 0, "left behind");
        fs::write(&pack, &whole)?;
        ensure!(bench.verify(&record.id)?.is_verified(), "mended");
    }
    Ok(())
}

#[test]
fn a_missing_pack_is_told_at_once() -> Result<()> {
    let bench = planted()?;
    let record = bench.create()?;
    for pack in packs(&bench)? {
        let away = pack.with_extension("away");
        fs::rename(&pack, &away)?;
        let started = Instant::now();
        let failure = bench.verify(&record.id).unwrap_err();
        ensure!(failure.kind == Kind::Damaged, "{failure}");
        ensure!(started.elapsed() < Duration::from_secs(60), "restic tries a quarter of an hour");
        bench.restore(&record.id, &bench.path("out")).unwrap_err();
        assert!(!bench.path("out").exists());
        fs::rename(&away, &pack)?;
    }
    Ok(())
}

#[test]
fn another_key_and_a_repository_that_is_gone_are_told_apart() -> Result<()> {
    let bench = planted()?;
    let record = bench.create()?;
    let key = bench.store.restic.key_file.clone();
    let right = fs::read(&key)?;
    fs::write(&key, "another")?;
    assert_eq!(bench.verify(&record.id).unwrap_err().kind, Kind::Key);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    assert!(bench.create().unwrap_err().message.contains("0644"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    fs::write(&key, right)?;
    fs::rename(&bench.store.restic.repository, bench.path("elsewhere"))?;
    assert_eq!(bench.verify(&record.id).unwrap_err().kind, Kind::NoRepository);
    Ok(())
}

#[test]
fn a_swapped_or_forgotten_snapshot_is_not_restored() -> Result<()> {
    let bench = planted()?;
    let first = bench.create()?;
    // Root, with the key, puts another state under the same words.
    fs::write(bench.path("state").join("evil"), "x")?;
    let state = bench.path("state").display().to_string();
    let swapped = bench.restic(&["backup", "--host", "agentsec", "--tag", "agentsec", &state])?;
    ensure!(swapped.status.success(), "{swapped:?}");
    ensure!(bench.restic(&["forget", &first.id])?.status.success());
    let strangers = bench.store.compare(&Default::default())?;
    assert_eq!(strangers.len(), 1, "what we did not make shows");
    assert!(bench.store.catalogue()?.find(&first.id)?.missing);
    assert!(bench.restore(&strangers[0].id, &bench.path("out")).is_err());
    assert!(bench.restore(&first.id, &bench.path("out")).is_err());
    assert!(!bench.path("out").exists());
    Ok(())
}

#[test]
fn a_lock_of_a_dead_process_stops_nobody() -> Result<()> {
    let bench = planted()?;
    bench.create()?;
    // An exclusive lock is left behind by a `check` that is killed.
    let mut check = std::process::Command::new("restic");
    check.args(["--no-cache", "-r", &bench.store.restic.repository, "check", "--read-data"]);
    check.arg("--password-file").arg(&bench.store.restic.key_file);
    check.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = check.spawn().context("restic")?;
    let locks = PathBuf::from(&bench.store.restic.repository).join("locks");
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read_dir(&locks)?.count() == 0 {
        ensure!(Instant::now() < deadline && child.try_wait()?.is_none(), "no lock was seen");
    }
    child.kill()?;
    child.wait()?;
    ensure!(fs::read_dir(&locks)?.count() == 1, "the lock is left");
    bench.create()?;
    Ok(())
}

#[test]
fn sockets_are_left_out_and_a_source_that_is_none_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let state = bench.path("state");
    let absent = bench.create().unwrap_err();
    assert_eq!(absent.kind, Kind::Source, "{absent}");
    symlink("/etc", &state)?;
    assert!(bench.create().unwrap_err().message.contains("link"));
    fs::remove_file(&state)?;
    fs::create_dir(&state)?;
    fs::write(state.join("f"), "x")?;
    let _listener = UnixListener::bind(state.join("socket"))?;
    let record = bench.create()?;
    bench.verify(&record.id)?;
    bench.restore(&record.id, &bench.path("out"))?;
    assert_eq!(fs::read_dir(bench.path("out"))?.count(), 1);
    Ok(())
}

#[test]
fn files_that_vanish_while_they_are_read_are_counted_and_the_rest_is_whole() -> Result<()> {
    let bench = Bench::new()?;
    let state = bench.path("state");
    fs::create_dir(&state)?;
    fs::write(state.join("kept"), "kept")?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let record = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Files come and go in their thousands meanwhile.
            for round in 0u64.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                for number in 0..200 {
                    let _ = fs::write(state.join(format!("{number}")), round.to_string());
                }
                for number in 0..200 {
                    let _ = fs::remove_file(state.join(format!("{number}")));
                }
            }
        });
        let records: Vec<_> = (0..3).map(|_| bench.create()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        records
    });
    for record in record {
        let record = record?;
        println!("{} files vanished", record.vanished);
        bench.verify(&record.id)?;
        bench.restore(&record.id, &bench.path("out"))?;
        assert_eq!(fs::read_to_string(bench.path("out/kept"))?, "kept");
    }
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_half_done() -> Result<()> {
    // Below a directory that only root can change, so that what is restored may wait beside its target.
    let bench = Bench::within("/run")?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(3))?;
    let big = bench.path("state").join("big");
    let mut content = vec![0; 3 << 20];
    fastrand::Rng::with_seed(1).fill(&mut content);
    fs::write(&big, &content)?;
    let record = bench.create()?;
    let small = Small::mount(&bench.path("small"), "1m")?;
    let failure = bench.restore(&record.id, &small.0.join("out")).unwrap_err();
    assert!(matches!(failure.kind, Kind::NoSpace), "{failure}");
    assert_eq!(fs::read_dir(&small.0)?.count(), 0, "nothing is left");
    let mut store = Store::new("b", &bench.store.spec, &RecoveryConfig::default(), &bench.path("lib"))?;
    store.restic.repository = small.0.join("repository").display().to_string();
    let full = store.create(&Default::default(), &super::now, &Default::default(), &mut |_, _| {});
    let full = full.unwrap_err();
    assert_eq!(full.kind, Kind::NoSpace, "{full}");
    assert_eq!(store.catalogue()?.records.len(), 0, "what was not stored is no snapshot");
    let left = agentsec::recovery::tiers::directory_bytes(&small.0);
    assert!(left < 100_000, "{left} bytes are left of what was stored");
    fs::remove_dir_all(&store.restic.repository)?;
    let body = "command = [\"/usr/bin/head\", \"-c\", \"9000000\", \"/dev/zero\"]\nrestore = [\"/bin/true\"]";
    let told = Store::new("a", &super::recovery(body)?, &RecoveryConfig::default(), &small.0)?;
    let full = told.create(&Default::default(), &super::now, &Default::default(), &mut |_, _| {});
    let full = full.unwrap_err();
    assert_eq!(full.kind, Kind::NoSpace, "{full}");
    assert!(!told.file("spool").exists(), "what a command told stays on the full disk");
    Ok(())
}

#[test]
fn a_mount_point_is_no_place_for_what_is_restored() -> Result<()> {
    let bench = planted()?;
    let record = bench.create()?;
    let small = Small::mount(&bench.path("small"), "1m")?;
    let failure = bench.restore(&record.id, &small.0).unwrap_err();
    assert!(failure.kind == Kind::Target && failure.message.contains("mount point"), "{failure}");
    Ok(())
}

#[test]
fn a_key_that_is_gone_is_not_replaced_by_another() -> Result<()> {
    let bench = planted()?;
    bench.create()?;
    let key = &bench.store.restic.key_file;
    fs::rename(key, bench.path("away"))?;
    let failure = bench.create().unwrap_err();
    assert!(failure.kind == Kind::Key && failure.message.contains("put its copy back"), "{failure}");
    assert!(!key.exists());
    fs::rename(bench.path("away"), key)?;
    bench.create()?;
    Ok(())
}

#[test]
fn a_state_that_holds_its_own_repository_is_refused() -> Result<()> {
    let bench = planted()?;
    bench.create()?;
    let body = format!("directory = {:?}", bench.path("").display().to_string());
    let spec = super::recovery(&body)?;
    let store = Store::new("a", &spec, &RecoveryConfig::default(), &bench.path("lib"))?;
    let refused = store.create(&Default::default(), &super::now, &Default::default(), &mut |_, _| {});
    let refused = refused.unwrap_err();
    assert!(refused.kind == Kind::Source && refused.message.contains("is in it"), "{refused}");
    Ok(())
}

/// A small file system, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &std::path::Path, size: &str) -> Result<Self> {
        fs::create_dir(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        let options = format!("size={size},mode=0700");
        nix::mount::mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount(&self.0);
    }
}
