//! What a state and a repository rest on: links, mounts, disks that are not there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use agentsec::config::recovery::StateSource;
use agentsec::recovery::health::{self, Repository};
use agentsec::recovery::store::Wish;
use agentsec::recovery::{Cancel, Kind};
use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount, umount};

use super::{Bench, tree};

/// A directory that something is mounted on; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// The directory itself once more.
    fn again(path: &Path) -> Result<Self> {
        mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

/// Where nobody but root can change anything.
fn planted() -> Result<Bench> {
    let bench = Bench::within("/run")?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(3))?;
    Ok(bench)
}

#[test]
fn a_link_above_a_state_that_its_agent_may_have_made_is_not_followed() -> Result<()> {
    let mut bench = Bench::new()?;
    let state = bench.path("above/state");
    bench.store.spec.source = StateSource::Directory(state.clone());
    fs::create_dir_all(&state)?;
    let record = bench.create()?;
    let victim = bench.path("victim/state");
    fs::create_dir_all(&victim)?;
    fs::write(victim.join("f"), "not the agent's")?;
    fs::rename(bench.path("above"), bench.path("real"))?;
    symlink(bench.path("victim"), bench.path("above"))?;
    for (failure, kind) in [
        (bench.create().unwrap_err(), Kind::Source),
        (bench.restore(&record.id, &state).unwrap_err(), Kind::Target),
    ] {
        ensure!(failure.kind == kind && failure.message.contains("goes through the link"), "{failure}");
    }
    assert_eq!(fs::read_to_string(victim.join("f"))?, "not the agent's");
    Ok(())
}

#[test]
fn what_is_mounted_in_a_state_is_told_and_left_alone() -> Result<()> {
    let bench = planted()?;
    let record = bench.create()?;
    let volume = bench.path("state").join("volume");
    fs::create_dir(&volume)?;
    fs::write(volume.join("f"), "")?;
    let _mounted = Mounted::again(&volume)?;
    for (failure, kind) in [
        (bench.create().unwrap_err(), Kind::Source),
        (bench.restore(&record.id, &bench.path("state")).unwrap_err(), Kind::Target),
    ] {
        ensure!(failure.kind == kind && failure.message.contains("mounted in it"), "{failure}");
    }
    ensure!(volume.join("f").exists());
    Ok(())
}

#[test]
fn another_mount_of_the_same_file_system_is_written_like_another_disk() -> Result<()> {
    let bench = planted()?;
    let record = bench.create()?;
    let above = bench.path("volume");
    fs::create_dir(&above)?;
    let _mounted = Mounted::again(&above)?;
    bench.restore(&record.id, &above.join("out"))?;
    super::assert_same(&tree::entries(&bench.path("state"))?, &tree::entries(&above.join("out"))?, "there");
    assert_eq!(fs::read_dir(&above)?.count(), 1, "nothing is left beside it");
    Ok(())
}

#[test]
fn a_repository_whose_disk_is_away_is_not_made_anew() -> Result<()> {
    let bench = planted()?;
    bench.create()?;
    let (repository, away) = (PathBuf::from(&bench.store.restic.repository), bench.path("away"));
    fs::rename(&repository, &away)?;
    // As a mount point is without its disk.
    fs::create_dir(&repository)?;
    let failure = bench.create().unwrap_err();
    ensure!(failure.kind == Kind::NoRepository && failure.message.contains("mount its disk"), "{failure}");
    assert_eq!(fs::read_dir(&repository)?.count(), 0);
    let found = health::repositories(std::slice::from_ref(&bench.store));
    ensure!(matches!(&found[..], [Repository::Unusable(why)] if why.contains("mount its disk")), "{found:?}");
    fs::remove_dir(&repository)?;
    fs::rename(&away, &repository)?;
    bench.create()?;
    let records = bench.store.catalogue()?.records;
    ensure!(records.len() == 2 && records.iter().all(|record| !record.missing), "{records:?}");
    Ok(())
}

#[test]
fn where_a_repository_is_is_told_to_no_other_process() -> Result<()> {
    let mut bench = planted()?;
    let (program, said) = (bench.path("restic"), bench.path("arguments"));
    fs::write(
        &program,
        format!("#!/bin/sh\necho \"$@\" >> {}\nexec /usr/bin/restic \"$@\"\n", said.display()),
    )?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    bench.store.restic.program = program;
    let record = bench.create()?;
    let other = bench.path("copy").display().to_string();
    bench.store.restic.copy_to(&other, &[record.id], &Cancel::default())?;
    let said = fs::read_to_string(said)?;
    // A location may have a password in it.
    ensure!(said.contains("copy") && !said.contains(&bench.store.restic.repository), "{said}");
    ensure!(!said.contains(&other), "{said}");
    Ok(())
}

#[test]
fn what_was_stored_and_came_to_nothing_is_forgotten_and_is_no_strangers() -> Result<()> {
    let mut bench = planted()?;
    let take = |bench: &Bench, point: &str| {
        let wish = Wish { point: point.into(), ..Wish::default() };
        bench.store.create(&wish, &super::now, &Cancel::default(), &mut |_, _| {})
    };
    let killed = bench.path("restic");
    // As if the daemon had been killed when it was stored and not yet in the catalogue.
    let script = "#!/bin/sh\n/usr/bin/restic \"$@\" || exit\ncase \" $* \" in *' backup '*) exit 9;; esac\n";
    fs::write(&killed, script)?;
    fs::set_permissions(&killed, fs::Permissions::from_mode(0o755))?;
    let real = std::mem::replace(&mut bench.store.restic.program, killed);
    take(&bench, "one").unwrap_err();
    bench.store.restic.program = real;
    let stored = || bench.store.restic.snapshots(None, &Cancel::default());
    assert_eq!(stored()?.len(), 1);
    let record = take(&bench, "two")?;
    assert_eq!(bench.store.compare(&Cancel::default())?, []);
    assert_eq!(stored()?.into_iter().map(|stored| stored.id).collect::<Vec<_>>(), [record.id]);
    // What others have put there is theirs, and is told.
    let foreign = bench.path("state").display().to_string();
    ensure!(bench.restic(&["backup", "--tag", "point:one", &foreign])?.status.success());
    assert_eq!(bench.store.compare(&Cancel::default())?.len(), 1);
    Ok(())
}
