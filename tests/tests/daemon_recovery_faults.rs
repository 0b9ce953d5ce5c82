//! Recoveries that come to no good end of their own: a daemon that is told to end, commands that fail half way, what is
//! left over from earlier, and what can be known before anybody is stopped.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use agentsec_tests::cgroup::Cgroup;
use agentsec_tests::quiet::{Quiet, ids, json, words};
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_recovery(event: &Value) -> bool {
    event["event_data"]["action_type"] == "EMERGENCY_RECOVERY"
}

/// An agent whose state is what a command tells and another takes back.
struct Told {
    scene: Scene,
    home: tempfile::TempDir,
}

impl Told {
    /// `restore` runs when the state is half written; `$H` is the home.
    fn new(restore: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        fs::write(home.path().join("live"), "clean")?;
        let script =
            |script: &str| words(&["/bin/sh", "-c", &format!("H={}; {script}", home.path().display())]);
        let config = config(1)
            .of_agent("recovery.command", script("cat $H/live"))
            .of_agent("recovery.restore", script(&format!("echo half > $H/live; {restore}; cat > $H/live")))
            .of_agent("recovery.stop", script("echo stop >> $H/calls"))
            .of_agent("recovery.start", script("echo start >> $H/calls"))
            .of_agent("recovery.interval", "off");
        let told = Self { scene: Scene::routed(1, &config)?, home };
        json(&told.scene.daemon, &["snapshot", "create", NAMES[0]])?;
        fs::write(told.path("live"), "poisoned")?;
        told.scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
        Ok(told)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

#[test]
fn a_daemon_that_is_told_to_end_leaves_a_recovery_to_the_next() -> Result<()> {
    let mut told = Told::new("touch $H/at; while [ ! -e $H/go ]; do sleep 0.05; done")?;
    let mut recover = told.scene.daemon.command(&["recover", NAMES[0]]);
    let mut recover = recover.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait::until("the state to be half back", LONG, || told.path("at").exists().then_some(()))?;
    told.scene.daemon.terminate()?;
    recover.wait()?;
    assert_eq!(told.read("calls"), "stop\n", "nobody runs on half a state");
    fs::write(told.path("go"), "")?;
    told.scene.daemon.restart()?;
    let event = told.scene.wait_for_event("the recovery", is_recovery)?;
    assert_eq!(event["event_data"]["succeeded"], true, "{event}");
    assert_eq!(told.read("live"), "clean");
    assert_eq!(told.read("calls").lines().last(), Some("start"));
    told.scene.daemon.wait_for_state(NAMES[0], "HALF_OPEN", LONG).map(drop)
}

#[test]
fn a_recovery_that_ends_while_the_daemon_does_is_told_by_the_next() -> Result<()> {
    let gate = "touch $H/at; while [ ! -e $H/go ]; do sleep 0.05; done";
    let mut quiet = Quiet::new(1, "", gate, |config| config)?;
    json(&quiet.scene.daemon, &["snapshot", "create", NAMES[0]])?;
    quiet.poison(1)?;
    let mut recover = quiet.scene.daemon.command(&["recover", NAMES[0]]);
    let mut recover = recover.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait::until("it to be started", LONG, || quiet.path("at").exists().then_some(()))?;
    // As one that has ended and been told to nobody.
    let file = quiet.scene.daemon.paths().state().join("recovery/recovering/alice.json");
    quiet.scene.daemon.kill9()?;
    recover.wait()?;
    fs::write(quiet.path("go"), "")?;
    let mut progress: Value = serde_json::from_slice(&fs::read(&file)?)?;
    progress["ended"] = "Well".into();
    fs::write(&file, serde_json::to_vec(&progress)?)?;
    let calls = quiet.calls();
    quiet.scene.daemon.restart()?;
    let event = quiet.scene.wait_for_event("the recovery", is_recovery)?;
    assert_eq!(event["event_data"]["succeeded"], true, "{event}");
    quiet.scene.daemon.wait_for_state(NAMES[0], "HALF_OPEN", LONG)?;
    wait::until("the end", LONG, || (quiet.recovering() == 0).then_some(()))?;
    assert_eq!(quiet.calls(), calls, "nothing is done again");
    Ok(())
}

#[test]
fn an_agent_whose_restore_command_fails_is_left_stopped_and_that_is_told() -> Result<()> {
    let told = Told::new("exit 3")?;
    let failed = told.scene.daemon.cli(&["recover", NAMES[0]])?;
    ensure!(failed.status.code() == Some(1) && said(&failed).contains("left stopped"), "{failed:?}");
    assert_eq!((told.read("live").as_str(), told.read("calls").as_str()), ("half\n", "stop\n"));
    let event = told.scene.wait_for_event("the failure", is_recovery)?;
    let error = event["event_data"]["error"].as_str().context("an error")?;
    ensure!(error.contains("left stopped"), "{event}");
    assert_eq!(told.scene.daemon.agent(NAMES[0])?["state"], "OPEN");
    Ok(())
}

#[test]
fn everybody_is_started_whatever_an_earlier_recovery_has_left() -> Result<()> {
    let quiet = Quiet::new(2, "", "", |config| config)?;
    let daemon = &quiet.scene.daemon;
    let id = json(daemon, &["snapshot", "create", NAMES[1]])?["depends"][NAMES[0]].clone();
    let short = id.as_str().and_then(|id| id.get(..8)).context("an id")?;
    let recovery = daemon.paths().state().join("recovery");
    // As a crash leaves it between keeping the old state and noting where.
    let left = recovery.join(format!("staging/{}-{short}-replaced/state", NAMES[0]));
    fs::create_dir_all(&left)?;
    fs::write(left.join("f"), "older")?;
    fs::write(recovery.join("agents").join(NAMES[0]).join("replaced.json"), "[spoilt")?;
    quiet.poison(2)?;
    json(daemon, &["recover", NAMES[1], "--no-wait"])?;
    assert_eq!(quiet.calls(), ["stop bob", "stop alice", "start alice", "start bob"]);
    assert_eq!((quiet.content(NAMES[0]), quiet.content(NAMES[1])), ("clean".into(), "clean".into()));
    let kept = fs::read_to_string(recovery.join("agents").join(NAMES[0]).join("replaced.json"))?;
    let kept: PathBuf = serde_json::from_str(&kept)?;
    assert_eq!(fs::read_to_string(kept.join(NAMES[0]).join("f"))?, "poisoned", "the latest is kept");
    Ok(())
}

#[test]
fn a_recovery_that_can_no_longer_be_taken_up_is_told() -> Result<()> {
    let gate = "touch $H/at; while [ ! -e $H/go ]; do sleep 0.05; done";
    let mut quiet = Quiet::new(1, gate, "", |config| config)?;
    json(&quiet.scene.daemon, &["snapshot", "create", NAMES[0]])?;
    quiet.poison(1)?;
    let mut recover = quiet.scene.daemon.command(&["recover", NAMES[0]]);
    let mut recover = recover.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait::until("the command to be called", LONG, || quiet.path("at").exists().then_some(()))?;
    quiet.scene.daemon.kill9()?;
    recover.wait()?;
    fs::write(quiet.path("go"), "")?;
    quiet.scene.daemon.set_config(&config(1))?;
    quiet.scene.daemon.restart()?;
    let event = quiet.scene.wait_for_event("the failure", is_recovery)?;
    assert_eq!(event["event_data"]["succeeded"], false, "{event}");
    ensure!(event["event_data"]["error"].as_str().is_some_and(|why| why.contains("recovery")), "{event}");
    Ok(())
}

#[test]
fn what_was_taken_of_a_group_is_in_the_log_although_the_rest_failed() -> Result<()> {
    let quiet = Quiet::new(2, "", "", |config| config)?;
    let daemon = &quiet.scene.daemon;
    fs::remove_dir_all(quiet.path(NAMES[1]))?;
    let failed = daemon.cli(&["snapshot", "create", NAMES[1]])?;
    ensure!(!failed.status.success(), "{failed:?}");
    let taken = ids(&json(daemon, &["snapshot", "list", NAMES[0]])?);
    let created = quiet.scene.wait_for_event("the snapshot", |event| {
        event["agent_id"] == NAMES[0] && event["event_data"]["action"] == "created"
    })?;
    assert_eq!(taken, [created["event_data"]["snapshot"].as_str().unwrap_or_default()]);
    ensure!(created["event_data"]["tree"].is_string(), "{created}");
    Ok(())
}

#[test]
fn what_somebody_else_has_frozen_stays_frozen() -> Result<()> {
    let cgroup = Cgroup::new("held")?;
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let _member = cgroup.spawn(None, sleep)?;
    let quiet = Quiet::new(1, "", "", |config| config.of_agent("recovery.freeze", cgroup.path()))?;
    let freeze = cgroup.directory().join("cgroup.freeze");
    for before in ["0", "1"] {
        fs::write(&freeze, before)?;
        let created = json(&quiet.scene.daemon, &["snapshot", "create", NAMES[0]])?;
        assert_eq!((&created["frozen"], fs::read_to_string(&freeze)?.trim()), (&true.into(), before));
    }
    Ok(())
}

#[test]
fn what_would_fail_later_is_told_before_anybody_is_stopped() -> Result<()> {
    let quiet = Quiet::new(1, "", "", |config| config)?;
    let daemon = &quiet.scene.daemon;
    json(daemon, &["snapshot", "create", NAMES[0]])?;
    let state = quiet.path(NAMES[0]);
    let mount = |arguments: &[&str]| Command::new("mount").args(arguments).arg(&state).status();
    ensure!(mount(&["-t", "tmpfs", "none"])?.success());
    quiet.poison(1)?;
    let planned = daemon.cli(&["recover", NAMES[0], "--dry-run"]);
    let recovered = daemon.cli(&["recover", NAMES[0]]);
    ensure!(Command::new("umount").arg(&state).status()?.success());
    for refused in [planned?, recovered?] {
        ensure!(refused.status.code() == Some(5) && said(&refused).contains("mount point"), "{refused:?}");
    }
    assert_eq!(quiet.calls(), Vec::<String>::new());
    Ok(())
}

#[test]
fn who_was_not_contained_is_not_said_to_have_been_probed() -> Result<()> {
    let quiet = Quiet::new(1, "", "", |config| config)?;
    let daemon = &quiet.scene.daemon;
    json(daemon, &["snapshot", "create", NAMES[0]])?;
    let told = daemon.cli_ok(&["recover", NAMES[0]])?;
    ensure!(told.contains("it was CLOSED") && !told.contains("probation was"), "{told}");
    assert_eq!(json(daemon, &["recover", NAMES[0]])?["probe_ended"], Value::Null);
    Ok(())
}

#[test]
fn agents_of_one_group_that_trip_together_all_come_back() -> Result<()> {
    let quiet = Quiet::new(2, "sleep 2", "", |config| config.of_agent("recovery.automatic", true))?;
    let daemon = &quiet.scene.daemon;
    json(daemon, &["snapshot", "create", NAMES[1]])?;
    // The second is of a group that is busy with the first.
    for name in &NAMES[..2] {
        daemon.cli_ok(&["quarantine", name, "--reason", "test"])?;
    }
    for name in &NAMES[..2] {
        daemon.wait_for_state(name, "HALF_OPEN", LONG)?;
    }
    Ok(())
}

#[test]
fn what_an_incident_has_left_is_no_state_to_come_back_to_from_the_next() -> Result<()> {
    let quiet = Quiet::new(1, "", "", |config| config.set("breaker.probe", "1s"))?;
    let daemon = &quiet.scene.daemon;
    let clean = json(daemon, &["snapshot", "create", NAMES[0]])?["id"].clone();
    quiet.poison(1)?;
    let poisoned = json(daemon, &["snapshot", "create", NAMES[0]])?["id"].clone();
    assert_eq!(json(daemon, &["recover", NAMES[0]])?["probe_ended"], "CLOSED");
    let list = json(daemon, &["snapshot", "list", NAMES[0]])?;
    let suspect = |index: usize| list["snapshots"][index]["suspect"].is_string();
    assert_eq!((&list["snapshots"][0]["snapshot_id"], suspect(0), suspect(1)), (&poisoned, true, false));
    // Before there is another snapshot.
    quiet.poison(1)?;
    let plan = json(daemon, &["recover", NAMES[0], "--dry-run"])?;
    assert_eq!(plan["plan"]["steps"][0]["snapshot"], clean, "{plan}");
    Ok(())
}
