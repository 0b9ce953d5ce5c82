//! An agent with a state is poisoned, contained and brought back; and everything that may go wrong on the way.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use agentsec_tests::cgroup::Cgroup;
use agentsec_tests::daemon::Daemon;
use agentsec_tests::lab::Lab;
use agentsec_tests::quiet::{Quiet, ids, json, words};
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use agentsec_tests::traffic::http::HttpServer;
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What the agent does: it asks for every address in its state, and notes in its state that it did.
const AGENT: &str = r#"
cd "$1"
while :; do
  sqlite3 agent.db 'SELECT url FROM tasks' | while read -r url; do
    curl --silent --max-time 2 --output /dev/null "$url"
  done
  sqlite3 agent.db "INSERT INTO memory VALUES ('was here')"
  sleep 0.1
done
"#;

fn sqlite(state: &Path, statement: &str) -> Result<String> {
    let output = Command::new("sqlite3")
        .arg("-cmd")
        .arg(".timeout 5000")
        .arg(state.join("agent.db"))
        .arg(statement)
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn a_poisoned_agent_comes_back_with_its_clean_state_and_closes() -> Result<()> {
    let home = tempfile::tempdir()?;
    let state = home.path().join("state");
    fs::create_dir(&state)?;
    let lab = Lab::routed(1)?;
    let server = HttpServer::start(&lab.world().namespace, (ANY4, 0), LONG)?;
    let world = lab.world().v4;
    let url = |path: &str| format!("http://{world}:{}{path}", server.address().port());
    sqlite(
        &state,
        &format!(
            "CREATE TABLE tasks(url); CREATE TABLE memory(text); INSERT INTO tasks VALUES('{}')",
            url("/")
        ),
    )?;
    let cgroup = Cgroup::new("recovered")?;
    fs::write(home.path().join("agent.sh"), AGENT)?;
    let start = format!(
        "echo $$ > {}/cgroup.procs\nnsenter --net={} setsid sh {h}/agent.sh {h}/state </dev/null >/dev/null 2>&1 &\n",
        cgroup.directory().display(),
        lab.agent(0).namespace.path(),
        h = home.path().display(),
    );
    let start_path = home.path().join("start.sh");
    fs::write(&start_path, start)?;
    let config = config(1)
        .set("breaker.probe", "1500ms")
        .set("profiles.default.typical", vec![format!("{}/32", lab.world().v4)])
        .set("profiles.default.limits.max_volume", "1MB")
        .of_agent("recovery.directory", state.display().to_string())
        .of_agent("recovery.freeze", cgroup.path())
        .of_agent("recovery.interval", "off")
        .of_agent("recovery.start", words(&["/bin/sh", &start_path.display().to_string()]));
    let scene = Scene::around(lab, &config)?;
    let daemon = &scene.daemon;
    ensure!(Command::new("sh").arg(&start_path).status()?.success());
    let memories = || sqlite(&state, "SELECT count(*) FROM memory").ok()?.parse::<u64>().ok();
    wait::until("the agent to have done something", LONG, || memories().filter(|count| *count >= 3))?;

    let created = json(daemon, &["snapshot", "create", NAMES[0]])?;
    let clean = created["id"].as_str().context("an id")?.to_owned();
    ensure!(created["frozen"] == true && created["verified_ns"].is_u64(), "{created}");
    ensure!(fs::read_to_string(cgroup.directory().join("cgroup.freeze"))?.trim() == "0", "it is thawed");
    let mut curl = scene.lab.host().command("curl");
    curl.args(["--silent", "--fail", "--unix-socket"]).arg(daemon.paths().run().join("agentsec.sock"));
    let metrics = String::from_utf8(curl.arg("http://agentsec/metrics").output()?.stdout)?;
    for (metric, labels) in [("snapshots", ""), ("snapshot_timestamp_seconds", r#",which="newest_verified""#)]
    {
        let sample = format!("\nagentsec_{metric}{{agent=\"{}\"{labels}}} ", NAMES[0]);
        ensure!(metrics.contains(&sample), "no {sample} in {metrics}");
    }

    // What it was tricked into remembering makes it fetch far too much, again and again.
    sqlite(&state, &format!("INSERT INTO tasks VALUES('{}')", url("/bytes/600000")))?;
    daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let poisoned = json(daemon, &["snapshot", "create", NAMES[0]])?;
    let list = json(daemon, &["snapshot", "list", NAMES[0]])?;
    assert_eq!(ids(&list), [poisoned["id"].as_str().unwrap_or_default(), &clean], "newest first");
    let before = |index: usize| list["snapshots"][index]["before_incident"].as_bool();
    assert_eq!((before(0), before(1)), (Some(false), Some(true)), "{list}");
    let shown = daemon.cli_ok(&["snapshot", "list", NAMES[0]])?;
    ensure!(
        shown.contains("after") && shown.contains("before") && shown.contains("suspicious since"),
        "{shown}"
    );

    let plan = json(daemon, &["recover", NAMES[0], "--dry-run"])?;
    assert_eq!(plan["plan"]["steps"][0]["snapshot"], clean.as_str(), "{plan}");
    assert_eq!(daemon.agent(NAMES[0])?["state"], "OPEN", "a dry run changes nothing");
    let recovered = json(daemon, &["recover", NAMES[0]])?;
    assert_eq!(recovered["probe_ended"], "CLOSED", "{recovered}");
    assert_eq!(sqlite(&state, "PRAGMA integrity_check")?, "ok");
    assert_eq!(sqlite(&state, "SELECT count(*) FROM tasks")?, "1", "the poison is gone");
    let then = memories().context("a count")?;
    wait::until("the agent to go on", LONG, || memories().filter(|count| *count > then))?;
    assert_eq!(daemon.agent(NAMES[0])?["state"], "CLOSED");

    let events = daemon.events()?;
    let recovery = events.iter().find(|event| event["event_data"]["action_type"] == "EMERGENCY_RECOVERY");
    let recovery = recovery.context("an event")?;
    let data = &recovery["event_data"];
    assert_eq!(
        (&data["recovery_snapshot"], &data["automated"], &data["succeeded"]),
        (&clean.as_str().into(), &false.into(), &true.into())
    );
    assert!(data["by"].as_str().is_some_and(|by| by.contains("uid 0")), "{recovery}");
    let tripped =
        events.iter().find(|event| event["event_data"]["action_type"] == "QUARANTINE").context("a trip")?;
    assert_eq!(recovery["correlation_id"], tripped["correlation_id"], "one incident");
    let taken = events
        .iter()
        .find(|event| event["event_type"] == "SNAPSHOT" && event["event_data"]["action"] == "created");
    let taken = &taken.context("a snapshot's event")?["event_data"];
    assert_eq!((&taken["snapshot"], &taken["tree"]), (&clean.as_str().into(), &created["tree"]));
    assert_eq!(scene.states_entered(0)?, ["OPEN", "HALF_OPEN", "CLOSED"]);

    let places = json(daemon, &["snapshot", "list"])?;
    let tier = |name: &str| {
        let tiers = places["agents"][NAMES[0]].as_array().into_iter().flatten();
        tiers.into_iter().find(|tier| tier["tier"] == name).cloned().unwrap_or_default()
    };
    assert_eq!(tier("disk")["snapshots"], 2, "{places}");
    ensure!(tier("disk")["stored_bytes"].as_u64().is_some_and(|bytes| bytes > 1000), "{places}");
    let status = daemon.cli_ok(&["status"])?;
    ensure!(
        status.lines().any(|line| line.starts_with("disk") && line.contains("1 of 1       2")),
        "in the status: {status}"
    );

    // What was there before is kept as evidence, and restic finds nothing wrong with what we made.
    let kept = fs::read_to_string(daemon.paths().state().join("recovery/agents/alice/replaced.json"))?;
    let kept: PathBuf = serde_json::from_str(&kept)?;
    assert_eq!(sqlite(&kept.join("state"), "SELECT count(*) FROM tasks")?, "2");
    let check = Command::new("restic")
        .args(["--no-cache", "check", "--read-data", "--repo"])
        .arg(daemon.paths().state().join("snapshots/alice"))
        .arg("--password-file")
        .arg(daemon.paths().state().join("snapshot.key"))
        .output()?;
    ensure!(check.status.success(), "{check:?}");
    Ok(())
}

#[test]
fn a_group_comes_back_to_one_point_in_the_order_of_its_dependencies() -> Result<()> {
    let quiet = Quiet::new(2, "", "", |config| config)?;
    let daemon = &quiet.scene.daemon;
    let created = json(daemon, &["snapshot", "create", NAMES[1]])?;
    // The dependency goes on by itself; its newer snapshot does not fit.
    fs::write(quiet.path(NAMES[0]).join("f"), "later")?;
    json(daemon, &["snapshot", "create", NAMES[0]])?;
    quiet.poison(2)?;
    let told = json(daemon, &["recover", NAMES[1], "--no-wait"])?;
    assert_eq!(told["recovered"]["snapshots"][NAMES[0]], created["depends"][NAMES[0]], "{told}");
    assert_eq!((quiet.content(NAMES[0]), quiet.content(NAMES[1])), ("clean".into(), "clean".into()));
    assert_eq!(quiet.calls(), ["stop bob", "stop alice", "start alice", "start bob"]);
    assert_eq!((quiet.staged(), quiet.recovering()), (0, 0));
    Ok(())
}

#[test]
fn a_command_that_hangs_or_fails_leaves_everything_as_it_was() -> Result<()> {
    for (stop, why) in [("sleep 300", "took longer than 1 s"), ("echo no >&2; exit 3", "no")] {
        let quiet = Quiet::new(1, stop, "", |config| config.of_agent("recovery.command_timeout", "1s"))?;
        let daemon = &quiet.scene.daemon;
        json(daemon, &["snapshot", "create", NAMES[0]])?;
        quiet.poison(1)?;
        let output = daemon.cli(&["recover", NAMES[0]])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && said.contains(why), "{said}");
        assert_eq!(quiet.content(NAMES[0]), "poisoned");
        assert_eq!(quiet.calls(), ["stop alice", "start alice"], "it may have been stopped");
        assert_eq!((quiet.staged(), quiet.recovering()), (0, 0));
        assert_eq!(daemon.agent(NAMES[0])?["state"], "OPEN", "nobody is let out");
        let failed = quiet.scene.wait_for_event("the failure's event", |event| {
            event["event_data"]["action_type"] == "EMERGENCY_RECOVERY"
        })?;
        assert_eq!(failed["event_data"]["succeeded"], false);
    }
    Ok(())
}

#[test]
fn a_recovery_that_is_killed_is_undone_or_finished() -> Result<()> {
    let gate = |name: &str| format!("touch $H/at-{name}; while [ ! -e $H/go ]; do sleep 0.05; done");
    for (at, expected) in [("stop", "poisoned"), ("start", "clean")] {
        let (stop, start) = if at == "stop" { (gate(at), String::new()) } else { (String::new(), gate(at)) };
        let mut quiet = Quiet::new(1, &stop, &start, |config| config)?;
        json(&quiet.scene.daemon, &["snapshot", "create", NAMES[0]])?;
        quiet.poison(1)?;
        let mut recover =
            quiet.scene.daemon.command(&["recover", NAMES[0]]).stderr(std::process::Stdio::null()).spawn()?;
        wait::until("the command to be called", LONG, || {
            quiet.path(&format!("at-{at}")).exists().then_some(())
        })?;
        quiet.scene.daemon.kill9()?;
        recover.wait()?;
        fs::write(quiet.path("go"), "")?;
        quiet.scene.daemon.restart()?;
        wait::until("it to be taken up", LONG, || (quiet.recovering() == 0).then_some(()))?;
        assert_eq!((at, quiet.content(NAMES[0]).as_str(), quiet.staged()), (at, expected, 0));
        let state = if at == "stop" { "OPEN" } else { "HALF_OPEN" };
        quiet.scene.daemon.wait_for_state(NAMES[0], state, LONG)?;
        assert_eq!(quiet.calls().last().map(String::as_str), Some("start alice"), "it runs again");
    }
    Ok(())
}

#[test]
fn a_recovery_that_is_killed_while_it_reads_has_touched_nothing() -> Result<()> {
    let home = tempfile::tempdir()?;
    let program = home.path().join("restic");
    let script = format!(
        "#!/bin/sh\nH={}\ncase \" $* \" in *' restore '*) touch $H/at; while [ ! -e $H/go ]; do sleep 0.05; done;; \
         esac\nexec /usr/bin/restic \"$@\"\n",
        home.path().display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let mut quiet =
        Quiet::new(1, "", "", |config| config.set("recovery.program", program.display().to_string()))?;
    json(&quiet.scene.daemon, &["snapshot", "create", NAMES[0]])?;
    quiet.poison(1)?;
    let mut recover =
        quiet.scene.daemon.command(&["recover", NAMES[0]]).stderr(std::process::Stdio::null()).spawn()?;
    wait::until("the snapshot to be read", LONG, || home.path().join("at").exists().then_some(()))?;
    ensure!(quiet.staged() == 1 && quiet.recovering() == 1, "it has begun");
    quiet.scene.daemon.kill9()?;
    recover.wait()?;
    fs::write(home.path().join("go"), "")?;
    quiet.scene.daemon.restart()?;
    let failed = quiet
        .scene
        .wait_for_event("the event", |event| event["event_data"]["action_type"] == "EMERGENCY_RECOVERY")?;
    assert_eq!(failed["event_data"]["succeeded"], false, "{failed}");
    wait::until("what was laid out to be removed", LONG, || {
        (quiet.staged() + quiet.recovering() == 0).then_some(())
    })?;
    // Nobody was stopped, so nobody is started.
    assert_eq!((quiet.content(NAMES[0]).as_str(), quiet.calls()), ("poisoned", Vec::new()));
    assert_eq!(quiet.scene.daemon.agent(NAMES[0])?["state"], "OPEN");
    json(&quiet.scene.daemon, &["recover", NAMES[0], "--no-wait"])?;
    assert_eq!(quiet.content(NAMES[0]), "clean");
    Ok(())
}

#[test]
fn a_daemon_killed_at_any_moment_of_a_snapshot_leaves_a_sound_repository() -> Result<()> {
    let mut quiet = Quiet::new(1, "", "", |config| config)?;
    let mut content = vec![0; 4 << 20];
    for (round, wait_ms) in [0u64, 300, 700, 1100, 1600].into_iter().enumerate() {
        fastrand::Rng::with_seed(round as u64).fill(&mut content);
        fs::write(quiet.path(NAMES[0]).join("big"), &content)?;
        let mut create = quiet
            .scene
            .daemon
            .command(&["snapshot", "create", NAMES[0]])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(wait_ms));
        quiet.scene.daemon.kill9()?;
        create.wait()?;
        quiet.scene.daemon.restart()?;
    }
    let created = json(&quiet.scene.daemon, &["snapshot", "create", NAMES[0]])?;
    let id = created["id"].as_str().context("an id")?;
    for snapshot in ids(&json(&quiet.scene.daemon, &["snapshot", "list", NAMES[0]])?) {
        json(&quiet.scene.daemon, &["snapshot", "verify", NAMES[0], &snapshot])?;
    }
    let out = quiet.path("out");
    let config = quiet.scene.daemon.paths().config().display().to_string();
    let arguments = ["snapshot", "restore", id, "--to", &out.display().to_string(), "--config", &config];
    // It works without a daemon.
    quiet.scene.daemon.kill9()?;
    quiet.scene.daemon.cli_ok(&arguments)?;
    assert_eq!(fs::read(out.join("big"))?, content);
    let again = quiet.scene.daemon.cli(&arguments)?;
    assert_eq!(again.status.code(), Some(5), "what is there is not overwritten: {again:?}");
    Ok(())
}

#[test]
fn snapshots_are_taken_by_themselves_while_an_agent_is_closed_and_old_ones_go() -> Result<()> {
    let quiet = Quiet::new(1, "", "", |config| {
        let keep: toml::Table = "last = 2\nhourly = 0\ndaily = 0".parse().unwrap_or_default();
        config.of_agent("recovery.interval", "1s").of_agent("recovery.keep", keep)
    })?;
    let daemon = &quiet.scene.daemon;
    let removed =
        |event: &Value| event["event_type"] == "SNAPSHOT" && event["event_data"]["action"] == "removed";
    quiet.scene.wait_for_event("retention", removed)?;
    let list = json(daemon, &["snapshot", "list", NAMES[0]])?;
    ensure!((2..=3).contains(&ids(&list).len()), "{list}");
    daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let settled = wait::until("the last snapshot to end", LONG, || {
        let count = || daemon.events().ok().map(|events| events.len());
        let (before, started) = (count(), Instant::now());
        while started.elapsed() < Duration::from_secs(4) {
            std::thread::sleep(Duration::from_millis(100));
        }
        (before == count()).then(|| json(daemon, &["snapshot", "list", NAMES[0]]).ok()).flatten()
    })?;
    ensure!(settled["snapshots"][0]["before_incident"].is_boolean(), "{settled}");
    json(daemon, &["recover", NAMES[0], "--no-wait"])?;
    Ok(())
}

#[test]
fn a_daemon_killed_during_retention_lets_the_same_snapshots_go_afterwards() -> Result<()> {
    let restic = "/usr/bin/restic";
    let gate = "while [ ! -e $H/go ]; do sleep 0.05; done";
    let at = "touch $H/at";
    // Before anything is forgotten, somewhere in the middle, and when the repository has forgotten but the catalogue not.
    for (moment, steps) in [
        ("before", format!("{at}; {gate}")),
        ("during", at.to_owned()),
        ("after", format!("{restic} \"$@\"; {at}; {gate}")),
    ] {
        let home = tempfile::tempdir()?;
        let program = home.path().join("restic");
        let script = format!(
            "#!/bin/sh\nH={}\ncase \" $* \" in *' forget '*) [ -e $H/at ] || {{ {steps}; }};; esac\nexec {restic} \"$@\"\n",
            home.path().display()
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let mut quiet = Quiet::new(1, "", "", |config| {
            let keep: toml::Table = "last = 2\nhourly = 0\ndaily = 0".parse().unwrap_or_default();
            let config = config.set("recovery.program", program.display().to_string());
            config.of_agent("recovery.interval", "1s").of_agent("recovery.keep", keep)
        })?;
        wait::until("retention", LONG, || home.path().join("at").exists().then_some(()))?;
        quiet.scene.daemon.kill9()?;
        fs::write(home.path().join("go"), "")?;
        quiet.scene.daemon.restart()?;
        let removed =
            |event: &Value| event["event_type"] == "SNAPSHOT" && event["event_data"]["action"] == "removed";
        quiet.scene.wait_for_event("retention after the crash", removed)?;
        let daemon = &quiet.scene.daemon;
        daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "no more snapshots"])?;
        let verified = wait::until("the newest to be verified", LONG, || {
            let list = json(daemon, &["snapshot", "list", NAMES[0]]).ok()?;
            let newest = ids(&list).first()?.clone();
            json(daemon, &["snapshot", "verify", NAMES[0], &newest]).ok().map(|_| ids(&list).len())
        })?;
        ensure!((2..=4).contains(&verified), "{moment}: {verified} are kept");
        let state = daemon.paths().state();
        let mut check = Command::new(restic);
        check.args(["--no-cache", "check", "--read-data", "--no-lock", "--repo"]);
        check.arg(state.join("snapshots/alice")).arg("--password-file").arg(state.join("snapshot.key"));
        let check = check.output()?;
        ensure!(check.status.success(), "{moment}: {check:?}");
    }
    Ok(())
}

#[test]
fn an_agent_that_was_frozen_when_the_daemon_was_killed_is_thawed_by_the_next() -> Result<()> {
    let home = tempfile::tempdir()?;
    let cgroup = Cgroup::new("frozen")?;
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let _member = cgroup.spawn(None, sleep)?;
    let reading = home.path().join("reading");
    let script = format!("touch {}; exec sleep 300", reading.display());
    let config = config(1)
        .of_agent("recovery.command", words(&["/bin/sh", "-c", &script]))
        .of_agent("recovery.restore", words(&["/bin/true"]))
        .of_agent("recovery.command_timeout", "5m")
        .of_agent("recovery.freeze", cgroup.path())
        .of_agent("recovery.interval", "off");
    let mut scene = Scene::routed(1, &config)?;
    let quiet = std::process::Stdio::null;
    let mut create = scene.daemon.command(&["snapshot", "create", NAMES[0]]).stderr(quiet()).spawn()?;
    wait::until("the state to be read", LONG, || reading.exists().then_some(()))?;
    let frozen = || fs::read_to_string(cgroup.directory().join("cgroup.freeze")).unwrap_or_default();
    assert_eq!(frozen().trim(), "1");
    scene.daemon.kill9()?;
    create.wait()?;
    assert_eq!(frozen().trim(), "1", "nobody was there to thaw it");
    scene.daemon.restart()?;
    wait::until("it to be thawed", LONG, || (frozen().trim() == "0").then_some(()))
}

/// restic, as who has the host uses it on alice's repository.
fn restic(daemon: &Daemon, arguments: &[&str]) -> Result<String> {
    let state = daemon.paths().state();
    let mut command = Command::new("restic");
    command.args(["--no-cache", "--repo"]).arg(state.join("snapshots/alice"));
    command.arg("--password-file").arg(state.join("snapshot.key")).args(arguments);
    let output = command.output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_snapshot_swapped_together_with_the_catalogue_is_not_in_the_log() -> Result<()> {
    let quiet = Quiet::new(1, "", "", |config| config)?;
    let daemon = &quiet.scene.daemon;
    let ours = json(daemon, &["snapshot", "create", NAMES[0]])?;
    assert_eq!(json(daemon, &["snapshot", "list", NAMES[0]])?["snapshots"][0]["attested"], true);
    json(daemon, &["snapshot", "verify", NAMES[0], ours["id"].as_str().context("an id")?])?;

    fs::write(quiet.path(NAMES[0]).join("f"), "poison")?;
    restic(daemon, &["backup", &quiet.path(NAMES[0]).display().to_string()])?;
    let stored: Value = serde_json::from_str(&restic(daemon, &["snapshots", "--json"])?)?;
    let theirs = stored.as_array().and_then(|all| all.last()).context("their snapshot")?;
    let catalogue = daemon.paths().state().join("recovery/agents/alice/catalogue.json");
    let mut records: Value = serde_json::from_slice(&fs::read(&catalogue)?)?;
    (records[0]["id"], records[0]["tree"]) = (theirs["id"].clone(), theirs["tree"].clone());
    fs::write(&catalogue, serde_json::to_vec(&records)?)?;

    // Every byte of it is right. That the log is silent says something once the log has gone on.
    let id = theirs["id"].as_str().context("an id")?;
    let verify = || daemon.cli(&["snapshot", "verify", NAMES[0], id]);
    let refused = wait::until("the snapshot to be refused", LONG, || {
        verify().ok().filter(|run| !run.status.success())
    })?;
    assert!(said(&refused).contains("does not tell of its creation"), "{refused:?}");
    let list = json(daemon, &["snapshot", "list", NAMES[0]])?;
    assert_eq!(
        (ids(&list), &list["snapshots"][0]["attested"]),
        (vec![id.to_owned()], &false.into()),
        "{list}"
    );
    let plan = daemon.cli(&["recover", NAMES[0], "--dry-run"])?;
    assert!(!plan.status.success() && said(&plan).contains("may not be ours"), "{plan:?}");
    let insisted = json(daemon, &["recover", NAMES[0], "--dry-run", "--snapshot", id])?;
    assert!(insisted["plan"]["warnings"][0].to_string().contains("may not be ours"), "{insisted}");
    Ok(())
}

#[test]
fn what_changes_in_a_repository_without_our_doing_is_told() -> Result<()> {
    let quiet = Quiet::new(1, "", "", |config| config)?;
    let daemon = &quiet.scene.daemon;
    let first = json(daemon, &["snapshot", "create", NAMES[0]])?;
    let id = first["id"].as_str().context("an id")?;
    restic(daemon, &["backup", &quiet.path(NAMES[0]).display().to_string()])?;
    restic(daemon, &["forget", id])?;
    json(daemon, &["snapshot", "create", NAMES[0]])?;
    let alert = quiet
        .scene
        .wait_for_event("the alert", |event| event["event_data"]["what"] == "repository_changed")?;
    let data = &alert["event_data"];
    assert_eq!(
        (&data["gone"][0], data["not_ours"].as_array().map(Vec::len)),
        (&id.into(), Some(1)),
        "{alert}"
    );
    let list = json(daemon, &["snapshot", "list", NAMES[0]])?;
    assert_eq!(list["snapshots"][1]["integrity_verified"], false, "{list}");
    assert_eq!(ids(&list).len(), 2, "what is not ours is no option");
    Ok(())
}

#[test]
fn an_agent_that_is_configured_so_is_brought_back_without_being_asked_for_once_an_incident() -> Result<()> {
    let quiet = Quiet::new(1, "", "", |config| {
        config.of_agent("recovery.automatic", true).set("breaker.probe", "60s")
    })?;
    json(&quiet.scene.daemon, &["snapshot", "create", NAMES[0]])?;
    quiet.poison(1)?;
    quiet.scene.daemon.wait_for_state(NAMES[0], "HALF_OPEN", LONG)?;
    assert_eq!(quiet.content(NAMES[0]), "clean");
    let event = quiet.scene.wait_for_event("the recovery's event", |event| {
        event["event_data"]["action_type"] == "EMERGENCY_RECOVERY"
    })?;
    assert_eq!(event["event_data"]["automated"], true);
    Ok(())
}
