//! Where snapshots lie, and what becomes of a recovery when one of those places fails: memory, disk, a server that only
//! appends, an object store, a copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use agentsec_tests::lab::Lab;
use agentsec_tests::quiet::{Quiet, ids, json};
use agentsec_tests::scene::{LONG, NAMES, Scene};
use agentsec_tests::stores::{AppendOnly, CREDENTIALS, ObjectStore};
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

/// A file system in memory on a directory; unmounted when dropped.
struct InMemory(PathBuf);

impl InMemory {
    fn on(directory: &Path) -> Result<Self> {
        mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some("size=64m,mode=0755"))?;
        Ok(Self(directory.to_owned()))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        // The daemon may still listen there.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// restic as root on the host runs it, with the daemon's key.
fn restic(scene: &Scene, repository: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = scene.lab.host().command("restic");
    command.args(["--no-cache", "--repo", repository, "--password-file"]);
    command.arg(scene.daemon.paths().state().join("snapshot.key")).args(arguments);
    command.envs(CREDENTIALS).output().context("restic")
}

fn tier(status: &Value, name: &str) -> Value {
    let tiers = status["snapshots"]["agents"][NAMES[0]].as_array().into_iter().flatten();
    tiers.into_iter().find(|tier| tier["tier"] == name).cloned().unwrap_or_default()
}

fn event(scene: &Scene, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let event = scene.wait_for_event(what, |event| wanted(&event["event_data"]))?;
    Ok(event["event_data"].clone())
}

fn count(scene: &Scene, wanted: impl Fn(&Value) -> bool) -> Result<usize> {
    Ok(scene.daemon.events()?.iter().filter(|event| wanted(&event["event_data"])).count())
}

#[test]
fn a_server_that_only_appends_keeps_what_root_wants_gone_and_brings_the_agent_back() -> Result<()> {
    let home = tempfile::tempdir()?;
    let lab = Lab::routed(1)?;
    let server = AppendOnly::start(Some(lab.host()), home.path())?;
    let location = server.location();
    let quiet = Quiet::within(lab, 1, "", "", |config| {
        let keep: toml::Table = "last = 2\nhourly = 0\ndaily = 0".parse().unwrap_or_default();
        config
            .set("recovery.repository", location.clone())
            .of_agent("recovery.interval", "1s")
            .of_agent("recovery.keep", keep)
    })?;
    let (scene, daemon) = (&quiet.scene, &quiet.scene.daemon);
    let refused = |data: &Value| data["work"] == "retention";
    let told = event(scene, "retention to be refused", refused)?;
    ensure!(told["error"].as_str().is_some_and(|why| why.contains("append-only")), "{told}");
    // Snapshots go on, and the store is not asked again and again.
    let list = || json(daemon, &["snapshot", "list", NAMES[0]]);
    let then = ids(&list()?).len();
    wait::until("more snapshots", LONG, || (ids(&list().ok()?).len() > then + 1).then_some(()))?;
    assert_eq!(count(scene, refused)?, 1, "it is told once");
    assert_eq!(count(scene, |data| data["action"] == "failed" && data["work"] == "create")?, 0);
    quiet.poison(1)?;
    let mine = wait::until("the last snapshot to end", LONG, || {
        let mine = ids(&list().ok()?);
        std::thread::sleep(Duration::from_secs(2));
        (ids(&list().ok()?) == mine).then_some(mine)
    })?;
    let repository = format!("{location}/{}", NAMES[0]);
    // restic itself would try for a quarter of an hour.
    let mut forget = scene.lab.host().command("timeout");
    forget.args(["10", "restic", "--no-cache", "--repo", &repository, "forget", &mine[0]]);
    forget.arg("--password-file").arg(daemon.paths().state().join("snapshot.key"));
    ensure!(!forget.output()?.status.success(), "root has made the server forget");
    let there = restic(scene, &repository, &["snapshots", "--json", "--no-lock"])?;
    let there: Value = serde_json::from_slice(&there.stdout)?;
    assert_eq!(there.as_array().map(Vec::len), Some(mine.len()), "all are still there");
    let status = json(daemon, &["status"])?;
    assert_eq!(tier(&status, "remote")["snapshots"], mine.len() as u64, "{status}");
    let clean = json(daemon, &["recover", NAMES[0], "--no-wait"])?;
    assert_eq!(quiet.content(NAMES[0]), "clean", "{clean}");
    let recovered = event(scene, "the recovery", |data| data["action_type"] == "EMERGENCY_RECOVERY")?;
    assert_eq!(recovered["read_from"][NAMES[0]], "remote");
    Ok(())
}

#[test]
fn an_agent_comes_back_from_an_object_store_with_locks() -> Result<()> {
    let lab = Lab::routed(1)?;
    let store = ObjectStore::start(Some(lab.host()))?;
    lab.host().run(|| store.make_locked("bucket"))?;
    let home = tempfile::tempdir()?;
    let environment = home.path().join("environment");
    let lines: Vec<String> = CREDENTIALS.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    fs::write(&environment, lines.concat())?;
    let mode = |mode| fs::set_permissions(&environment, std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(0o600)?;
    let quiet = Quiet::within(lab, 1, "", "", |config| {
        config
            .set("recovery.copy_to", store.location("bucket"))
            .set("recovery.environment_file", environment.display().to_string())
    })?;
    let daemon = &quiet.scene.daemon;
    let created = json(daemon, &["snapshot", "create", NAMES[0]])?;
    let status = json(daemon, &["status"])?;
    for (name, stored) in [("disk", true), ("copy", false)] {
        let tier = tier(&status, name);
        assert_eq!((&tier["snapshots"], tier["stored_bytes"].is_u64()), (&1.into(), stored), "{status}");
    }
    // The disk has lost it; the object store has not.
    fs::remove_dir_all(daemon.paths().state().join("snapshots"))?;
    quiet.poison(1)?;
    let recovered = json(daemon, &["recover", NAMES[0], "--no-wait"])?;
    assert_eq!(recovered["recovered"]["snapshots"][NAMES[0]], created["id"], "{recovered}");
    assert_eq!(quiet.content(NAMES[0]), "clean");
    let data = event(&quiet.scene, "the recovery", |data| data["action_type"] == "EMERGENCY_RECOVERY")?;
    let from = data["read_from"][NAMES[0]].as_str().unwrap_or_default();
    ensure!(from.starts_with("copy; not from disk: "), "{data}");
    Ok(())
}

#[test]
fn what_is_recent_is_in_memory_and_comes_back_from_there() -> Result<()> {
    let mut quiet = Quiet::new(1, "", "", |config| config)?;
    // What is below the run directory is memory only if that is, as /run is.
    quiet.scene.daemon.terminate()?;
    let _memory = InMemory::on(&quiet.scene.daemon.paths().run())?;
    quiet.scene.daemon.restart()?;
    let daemon = &quiet.scene.daemon;
    let created = json(daemon, &["snapshot", "create", NAMES[0]])?;
    let status = json(daemon, &["status"])?;
    for name in ["memory", "disk"] {
        let tier = tier(&status, name);
        ensure!(
            tier["snapshots"] == 1 && tier["stored_bytes"].as_u64().is_some_and(|bytes| bytes > 500),
            "{status}"
        );
    }
    let shown = daemon.cli_ok(&["status"])?;
    let row = |name: &str| shown.lines().any(|line| line.starts_with(name) && line.contains("1 of 1"));
    ensure!(row("memory") && row("disk"), "{shown}");
    let list = json(daemon, &["snapshot", "list", NAMES[0]])?;
    assert_eq!(list["snapshots"][0]["tiers"], serde_json::json!(["memory", "disk"]), "{list}");
    // The disk fails: every pack of the repository is spoilt.
    let packs = daemon.paths().state().join("snapshots").join(NAMES[0]).join("data");
    fs::remove_dir_all(&packs)?;
    quiet.poison(1)?;
    json(daemon, &["recover", NAMES[0], "--no-wait"])?;
    assert_eq!(quiet.content(NAMES[0]), "clean");
    let data = event(&quiet.scene, "the recovery", |data| data["action_type"] == "EMERGENCY_RECOVERY")?;
    assert_eq!(
        (&data["read_from"][NAMES[0]], &data["recovery_snapshot"]),
        (&"memory".into(), &created["id"]),
        "{data}"
    );
    Ok(())
}

/// The words of `snapshot restore`.
fn restore<'a>(id: &'a str, to: &'a str, config: &'a str) -> [&'a str; 7] {
    ["snapshot", "restore", id, "--to", to, "--config", config]
}

#[test]
fn a_restore_beside_the_daemon_is_in_the_log() -> Result<()> {
    let mut quiet = Quiet::new(1, "", "", |config| config)?;
    let created = json(&quiet.scene.daemon, &["snapshot", "create", NAMES[0]])?;
    let id = created["id"].as_str().context("an id")?;
    let (out, again) = (quiet.path("out").display().to_string(), quiet.path("again").display().to_string());
    let config = quiet.scene.daemon.paths().config().display().to_string();
    let answer = json(&quiet.scene.daemon, &restore(id, &out, &config))?;
    assert_eq!((&answer["logged"], &answer["read_from"]), (&true.into(), &"disk".into()));
    let restored = |data: &Value| data["action"] == "restored";
    let told = event(&quiet.scene, "the restore", restored)?;
    assert_eq!(
        (&told["snapshot"], &told["to"], &told["succeeded"]),
        (&id.into(), &out.as_str().into(), &true.into()),
        "{told}"
    );
    ensure!(told["by"].as_str().is_some_and(|by| by.contains("uid 0")), "{told}");
    // One that failed is told too.
    let packs = quiet.scene.daemon.paths().state().join("snapshots").join(NAMES[0]).join("data");
    fs::rename(&packs, packs.with_extension("away"))?;
    ensure!(!quiet.scene.daemon.cli(&restore(id, &again, &config))?.status.success());
    let failed = event(&quiet.scene, "the failure", |data| restored(data) && data["succeeded"] == false)?;
    ensure!(failed["error"].is_string() && !Path::new(&again).exists(), "{failed}");
    fs::rename(packs.with_extension("away"), &packs)?;
    quiet.scene.daemon.kill9()?;
    let said = quiet.scene.daemon.cli_ok(&restore(id, &again, &config))?;
    ensure!(said.contains("the log does not tell of it"), "{said}");
    Ok(())
}

#[test]
fn a_restore_that_is_killed_at_any_moment_leaves_all_or_nothing() -> Result<()> {
    let quiet = Quiet::new(1, "", "", |config| config)?;
    let state = quiet.path(NAMES[0]);
    let files = 400;
    for number in 0..files {
        fs::write(state.join(number.to_string()), [b'x'; 9000])?;
    }
    let daemon = &quiet.scene.daemon;
    let created = json(daemon, &["snapshot", "create", NAMES[0]])?;
    let id = created["id"].as_str().context("an id")?;
    let config = daemon.paths().config().display().to_string();
    let out = quiet.path("out");
    fs::create_dir(&out)?;
    fs::write(out.join("old"), "")?;
    let shown = out.display().to_string();
    let words = [restore(id, &shown, &config).as_slice(), &["--replace"]].concat();
    let whole = |directory: &Path| fs::read_dir(directory).map(Iterator::count).unwrap_or_default();
    let started = Instant::now();
    daemon.cli_ok(&words)?;
    let takes = started.elapsed();
    assert_eq!(whole(&out), files + 1);
    let (mut before, mut after) = (0, 0);
    for step in 0..16u32 {
        fs::remove_dir_all(&out)?;
        fs::create_dir(&out)?;
        fs::write(out.join("old"), "")?;
        let mut child = daemon.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // A few moments after the usual end, too: a machine that is busy takes longer.
        std::thread::sleep(takes * (step + 1) / 14);
        child.kill()?;
        child.wait()?;
        match whole(&out) {
            1 if out.join("old").exists() => before += 1,
            all if all == files + 1 => after += 1,
            some => panic!("{some} files are in the target after step {step}"),
        }
    }
    println!("{before} were killed before the exchange and {after} after it");
    ensure!(before > 0, "none was killed early");
    // The next one sweeps what they have left.
    daemon.cli_ok(&words)?;
    assert_eq!((whole(&out), quiet.staged()), (files + 1, 0));
    let mine = std::process::id().to_string();
    let orphans = wait::until("restic to be gone", LONG, || {
        let listed = Command::new("ps").args(["-eo", "args"]).output().ok()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let state = daemon.paths().state().display().to_string();
        let orphan = listed.lines().any(|line| line.contains("restic") && line.contains(&state));
        (!orphan).then_some(())
    });
    orphans.with_context(|| format!("seen by {mine}"))
}

#[test]
fn the_doctor_looks_at_restic_and_at_every_repository() -> Result<()> {
    let quiet = Quiet::new(2, "", "", |config| config)?;
    let daemon = &quiet.scene.daemon;
    let config = daemon.paths().config().display().to_string();
    let doctor = |name: &str| -> Result<(String, String)> {
        let output = daemon.cli(&["doctor", "--json", "--config", &config])?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let checks = report["checks"].as_array().into_iter().flatten();
        let check = checks.into_iter().find(|check| check["name"] == name).cloned();
        let check = check.with_context(|| format!("no check {name}: {report}"))?;
        let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
        Ok((text("status"), text("found")))
    };
    let (status, version) = doctor("restic")?;
    ensure!(status == "ok" && version.starts_with("0."), "{status} {version}");
    let (status, found) = doctor("repositories")?;
    ensure!(status == "ok" && found.contains("2 not made yet"), "{status} {found}");
    json(daemon, &["snapshot", "create", NAMES[1]])?;
    let (status, found) = doctor("repositories")?;
    assert_eq!((status.as_str(), found.as_str()), ("ok", "2 of 2 open with the key"));
    fs::write(daemon.paths().state().join("snapshots").join(NAMES[1]).join("config"), "x")?;
    let (status, found) = doctor("repositories")?;
    ensure!(status == "fail" && found.contains("1 of 2") && found.contains(NAMES[1]), "{status} {found}");
    Ok(())
}
