//! Repositories elsewhere: an append-only server, which nothing here can make forget, an object store with locks,
//! copies, and memory.

use std::fs;
use std::time::{Duration, SystemTime};

use agentsec::recovery::lay_out::{COPY, MEMORY};
use agentsec::recovery::memory::Memory;
use agentsec::recovery::{Cancel, Kind, Store};
use agentsec_tests::stores::{AppendOnly, CREDENTIALS, ObjectStore};
use anyhow::{Result, ensure};

use super::{Bench, tree};

#[test]
fn an_append_only_server_takes_snapshots_and_forgets_none() -> Result<()> {
    let mut bench = Bench::new()?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(5))?;
    fs::create_dir(bench.path("server"))?;
    let server = AppendOnly::start(None, &bench.path("server"))?;
    bench.store.restic.repository = format!("{}/a", server.location());
    let expected = tree::entries(&bench.path("state"))?;
    let record = bench.create()?;
    ensure!(bench.verify(&record.id)?.is_verified());
    let refused = bench.store.restic.forget(std::slice::from_ref(&record.id), false, &Cancel::default());
    ensure!(
        bench.store.restic.snapshots(Some(&record.id), &Cancel::default())?.len() == 1,
        "it is still there"
    );
    assert_eq!(refused.unwrap_err().kind, Kind::Denied, "and told at once");
    bench.restore(&record.id, &bench.path("out"))?;
    super::assert_same(&expected, &tree::entries(&bench.path("out"))?, "from the server");
    Ok(())
}

#[test]
fn a_copy_elsewhere_has_the_same_tree_and_restic_finds_it_whole() -> Result<()> {
    let bench = Bench::new()?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(6))?;
    let record = bench.verify(&bench.create()?.id)?;
    let other = bench.path("copy").display().to_string();
    bench.store.restic.copy_to(&other, std::slice::from_ref(&record.id), &Cancel::default())?;
    let mut there: Store = bench.store.clone();
    there.restic.repository = other;
    let copied = there.restic.snapshots(None, &Cancel::default())?;
    let tree = record.tree.as_deref();
    ensure!(tree.is_some(), "whoever has read a snapshot knows its tree");
    assert_eq!(copied.iter().map(|copy| Some(copy.tree.as_str())).collect::<Vec<_>>(), [tree]);
    there.restic.verify(&copied[0].id, tree, 0, &Cancel::default(), &mut |_, _| {})?;
    Ok(())
}

#[test]
fn in_an_object_store_snapshots_are_taken_listed_verified_and_restored() -> Result<()> {
    let (mut bench, store) = (Bench::new()?, ObjectStore::start(None)?);
    store.make_locked("bucket")?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(8))?;
    let credentials = CREDENTIALS.map(|(name, value)| (name.into(), value.into()));
    bench.store.restic.repository = format!("{}/a", store.location("bucket"));
    bench.store.restic.environment = credentials.into();
    let expected = tree::entries(&bench.path("state"))?;
    let (first, second) = (bench.create()?, bench.create()?);
    ensure!(bench.verify(&first.id)?.is_verified());
    let listed = bench.store.restic.snapshots(None, &Cancel::default())?;
    assert_eq!(listed.len(), 2);
    assert_eq!(first.tree, second.tree);
    bench.restore(&first.id, &bench.path("out"))?;
    super::assert_same(&expected, &tree::entries(&bench.path("out"))?, "from the object store");
    Ok(())
}

#[test]
fn what_root_removes_from_a_locked_bucket_is_hidden_and_comes_back_from_before() -> Result<()> {
    let (mut bench, store) = (Bench::new()?, ObjectStore::start(None)?);
    store.make_locked("bucket")?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(9))?;
    let credentials = CREDENTIALS.map(|(name, value)| (name.into(), value.into()));
    bench.store.restic.repository = format!("{}/a", store.location("bucket"));
    bench.store.restic.environment = credentials.into();
    let expected = tree::entries(&bench.path("state"))?;
    let record = bench.create()?;
    // The store tells seconds.
    std::thread::sleep(Duration::from_secs(2));
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    std::thread::sleep(Duration::from_secs(2));
    // Root, with key and credentials, forgets it and prunes everything. A bucket with versions only hides it.
    bench.store.restic.forget(std::slice::from_ref(&record.id), true, &Cancel::default())?;
    assert_eq!(bench.store.restic.snapshots(None, &Cancel::default())?, []);
    let gone = bench.restore(&record.id, &bench.path("out")).unwrap_err();
    assert_eq!(gone.kind, Kind::NoSnapshot, "{gone}");
    let (removed, versions) = store.removable("bucket")?;
    ensure!(removed == 0 && versions > 5, "{removed} of {versions} versions were removed for good");
    // As docs/recovery.md says: what was there at a time before is copied to a disk.
    let at = agentsec::core::time::rfc3339(u64::try_from(before)?);
    let (mut rclone, bucket) = store.rclone("bucket/a");
    let copied = bench.path("copied");
    let output = rclone.args(["--s3-version-at", &at, "copy", &bucket]).arg(&copied).output()?;
    ensure!(output.status.success(), "{output:?}");
    bench.store.restic.repository = copied.display().to_string();
    bench.restore(&record.id, &bench.path("out"))?;
    super::assert_same(&expected, &tree::entries(&bench.path("out"))?, "from before");
    Ok(())
}

#[test]
fn what_is_damaged_or_gone_is_read_from_memory_or_from_the_copy() -> Result<()> {
    let mut bench = Bench::new()?;
    tree::plant(&bench.path("state"), 40, &mut fastrand::Rng::with_seed(10))?;
    let memory = Memory::new(&bench.path("memory"), "a", 64 << 20);
    bench.store.memory = Some(memory.clone());
    bench.store.copy_to = Some(bench.path("copy").display().to_string());
    let expected = tree::entries(&bench.path("state"))?;
    let record = bench.verify(&bench.create()?.id)?;
    ensure!(memory.keep(&bench.store.restic, &record, &Cancel::default())?, "it fits");
    ensure!(bench.store.catalogue()?.find(&record.id)?.in_memory);
    let read_from = |bench: &Bench| -> Result<String> {
        let target = super::Target::of(&bench.path("out"))?;
        let laid_out = bench.store.lay_out(&record.id, &target, "test", &Cancel::default())?;
        super::assert_same(&expected, &tree::entries(&laid_out.directory)?, laid_out.tier);
        super::staging::clear(&laid_out.place)?;
        Ok(laid_out.read_from())
    };
    assert_eq!(read_from(&bench)?, MEMORY);
    fs::rename(&bench.store.restic.repository, bench.path("gone"))?;
    bench.store.compare(&Cancel::default()).unwrap_err();
    assert_eq!(read_from(&bench)?, MEMORY, "its own repository is gone");
    memory.clear()?;
    let nobody = bench.restore(&record.id, &bench.path("out")).unwrap_err();
    assert_eq!(nobody.kind, Kind::NoRepository, "{nobody}");
    fs::rename(bench.path("gone"), &bench.store.restic.repository)?;
    let copy_to = bench.store.copy_to.clone().unwrap_or_default();
    bench.store.restic.copy_to(&copy_to, std::slice::from_ref(&record.id), &Cancel::default())?;
    let mut catalogue = bench.store.catalogue()?;
    catalogue.update(&record.id, |record| (record.copied, record.missing) = (true, true));
    catalogue.save()?;
    ensure!(bench.store.catalogue()?.find(&record.id)?.is_verified(), "the copy will do");
    fs::rename(&bench.store.restic.repository, bench.path("gone"))?;
    let told = read_from(&bench)?;
    ensure!(told.starts_with(&format!("{COPY}; not from disk: ")), "{told}");
    Ok(())
}

#[test]
fn memory_is_bounded_and_holds_the_newest_or_nothing() -> Result<()> {
    let mut bench = Bench::new()?;
    let state = bench.path("state");
    fs::create_dir(&state)?;
    let content = |seed: u64, bytes: usize| {
        let mut content = vec![0; bytes];
        fastrand::Rng::with_seed(seed).fill(&mut content);
        content
    };
    let memory = Memory::new(&bench.path("memory"), "a", 1 << 20);
    bench.store.memory = Some(memory.clone());
    let mut kept = Vec::new();
    for (seed, bytes) in [(1, 400 << 10), (2, 400 << 10), (3, 400 << 10), (4, 2 << 20)] {
        fs::write(state.join("f"), content(seed, bytes))?;
        let record = bench.verify(&bench.create()?.id)?;
        memory.keep(&bench.store.restic, &record, &Cancel::default())?;
        ensure!(memory.used_bytes() <= 1 << 20, "{} bytes", memory.used_bytes());
        let records = bench.store.catalogue()?.records;
        kept.push(records.iter().map(|record| u8::from(record.in_memory)).collect::<Vec<_>>());
    }
    assert_eq!(kept, [vec![1], vec![1, 1], vec![0, 0, 1], vec![0, 0, 0, 0]]);
    ensure!(!memory.repository().exists(), "what does not fit leaves nothing behind");
    Ok(())
}
