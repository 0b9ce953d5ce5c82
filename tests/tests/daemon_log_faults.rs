//! The forensic log of a daemon whose disk or clock fails under it. Enforcement does not notice.

use std::fs;
use std::time::Duration;

use agentsec_tests::daemon::{Daemon, Launch};
use agentsec_tests::failing_disk::{BreakingDisk, Hanging, ThinDisk};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use agentsec_tests::wait;
use agentsec_tests::wall_clock::WallClock;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

fn verify(daemon: &Daemon) -> Result<(Option<i32>, Value)> {
    let output = daemon.cli(&["log", "verify", "--json"])?;
    let said = serde_json::from_slice(&output.stdout);
    Ok((output.status.code(), said.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?))
}

fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["event_type"] == kind).count()
}

/// What the daemon says of the events that it cannot write; empty while all is well.
fn alerts(daemon: &Daemon) -> Result<String> {
    let alerts = daemon.status()?["daemon"]["alerts"].clone();
    let alerts: Vec<String> = serde_json::from_value(alerts).context("alerts are texts")?;
    Ok(alerts.into_iter().filter(|alert| alert.starts_with("events:")).collect())
}

/// Reports so many interactions of the first agent; how many were taken.
fn report(scene: &Scene, wanted: usize) -> Result<usize> {
    let socket = scene.daemon.paths().run().join("agentsec.sock");
    let long = "x".repeat(120);
    let body = format!("{{\"id\":\"{long}\",\"peer\":\"{long}\",\"message_type\":\"queue publish\"}}");
    let url = format!("http://agentsec/v1/agents/{}/interactions?[1-{wanted}]", NAMES[0]);
    let output = scene
        .lab
        .host()
        .command("curl")
        .args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}\\n", "--data", &body])
        .args(["--header", "Content-Type: application/json", "--unix-socket"])
        .arg(socket)
        .arg(url)
        .output()?;
    let codes = String::from_utf8(output.stdout)?;
    Ok(codes.lines().filter(|code| code.starts_with('2')).count())
}

#[test]
fn what_was_acknowledged_outlives_a_disk_that_fails_for_a_while_and_a_machine_that_stops() -> Result<()> {
    let lab = Lab::routed(1)?;
    let behind = tempfile::tempdir()?;
    let mut daemon = Launch::new(lab.host(), &config(1)).prepare()?;
    let disk = ThinDisk::over(&daemon.paths().state(), behind.path())?;
    daemon.begin()?;
    daemon.wait_ready()?;
    // The disk goes before the directory that it lies over.
    let (mut scene, disk) = (Scene { daemon, lab }, disk);
    disk.fail()?;
    // Reports are not synced, and are more than the write-ahead file has room for. What an operator does is synced: that tells.
    let reports = report(&scene, 4000)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "the disk fails"])?;
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    let said = alerts(&scene.daemon)?;
    assert!(said.contains("they wait"), "{said}");
    disk.mend()?;
    wait::until("a log that is well", LONG, || alerts(&scene.daemon).ok()?.is_empty().then_some(()))?;
    scene.daemon.cli_ok(&["release", NAMES[0]])?;
    scene.daemon.kill9()?;
    disk.forget()?;
    let (code, report) = verify(&scene.daemon)?;
    assert_eq!((code, &report["findings"]), (Some(0), &Value::Array(Vec::new())), "{report}");
    let events = scene.daemon.events()?;
    assert_eq!(count(&events, "OPERATOR_COMMAND"), 2);
    assert_eq!(count(&events, "AGENT_INTERACTION"), reports);
    Ok(())
}

#[test]
fn a_second_path_that_is_missing_keeps_no_daemon_from_starting_and_is_told() -> Result<()> {
    let scene = Scene::routed(1, &config(1).set("log.dead_letters", "/nonexistent/second"))?;
    scene.wait_for_event("the alert", |event| event["event_data"]["what"] == "dead_letters_missing")?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "a turn of the loop later"])?;
    let alerts = scene.daemon.status()?["daemon"]["alerts"].to_string();
    assert!(alerts.contains("log.dead_letters is not used"), "{alerts}");
    Ok(())
}

#[test]
fn a_disk_that_breaks_hinders_no_enforcement_and_events_go_the_second_way() -> Result<()> {
    let lab = Lab::routed(1)?;
    let second = tempfile::tempdir()?;
    let directory = second.path().to_str().context("a path")?;
    let mut daemon = Launch::new(lab.host(), &config(1).set("log.dead_letters", directory)).prepare()?;
    let disk = BreakingDisk::over(&daemon.paths().state())?;
    daemon.begin()?;
    daemon.wait_ready()?;
    let (mut scene, disk) = (Scene { daemon, lab }, disk);
    scene.daemon.cli_ok(&["shadow", NAMES[0]])?;
    disk.fail()?;
    scene.daemon.cli_ok(&["shadow", NAMES[0], "--off"])?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "the disk is broken"])?;
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    let said = alerts(&scene.daemon)?;
    assert!(said.contains("Input/output error"), "{said}");
    let letters = second.path().join("agentsec-dead-letters.jsonl");
    let kept = wait::until("the command on the second path", LONG, || {
        let kept = fs::read_to_string(&letters).ok()?;
        kept.contains("the disk is broken").then_some(kept)
    })?;
    assert!(kept.contains("log_refuses"), "{kept}");
    scene.daemon.kill9()?;
    let _good = disk.rescue()?;
    scene.daemon.restart()?;
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    scene.daemon.terminate()?;
    let (code, report) = verify(&scene.daemon)?;
    assert_eq!(code, Some(0), "{report}");
    let events = scene.daemon.events()?;
    assert_eq!(count(&events, "OPERATOR_COMMAND"), 3, "each that was answered is in the log, once");
    let losses: Vec<&Value> = events.iter().filter(|event| event["event_type"] == "LOSS").collect();
    assert!(losses.iter().any(|loss| loss["event_data"]["what"] == "log_gap"), "{losses:?}");
    assert_eq!(fs::metadata(&letters)?.len(), 0);
    Ok(())
}

#[test]
fn a_disk_that_hangs_keeps_no_operator_waiting_and_nothing_is_lost() -> Result<()> {
    let lab = Lab::routed(1)?;
    let mut daemon = Launch::new(lab.host(), &config(1)).prepare()?;
    let disk = BreakingDisk::over(&daemon.paths().state())?;
    daemon.begin()?;
    daemon.wait_ready()?;
    let (mut scene, _disk) = (Scene { daemon, lab }, disk);
    let hanging = Hanging::at(&scene.daemon.paths().state())?;
    // Each of these would end after 15 s with an error.
    for _ in 0..2 {
        scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "the disk hangs"])?;
        assert_eq!(scene.agent(0)?["state"], "OPEN");
        scene.daemon.cli_ok(&["release", NAMES[0]])?;
    }
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "the last"])?;
    let is_silent =
        |status: &Value| status["daemon"]["alerts"].to_string().contains("the disk does not answer");
    scene.daemon.wait_until("status says so", LONG, is_silent)?;
    drop(hanging);
    scene.daemon.wait_until("a disk that answers", LONG, |status| {
        !is_silent(status) && status["daemon"]["events"]["queued"] == 0
    })?;
    scene.daemon.kill9()?;
    scene.daemon.restart()?;
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    scene.daemon.terminate()?;
    assert_eq!(count(&scene.daemon.events()?, "OPERATOR_COMMAND"), 5);
    let (code, report) = verify(&scene.daemon)?;
    assert_eq!(code, Some(0), "{report}");
    Ok(())
}

#[test]
fn a_wall_clock_that_steps_changes_no_circuit_and_no_order_of_the_log() -> Result<()> {
    let lab = Lab::routed(1)?;
    let clock = WallClock::new()?;
    let probing = config(1).set("breaker.auto_probe", true);
    let probing = probing.set("breaker.cooldown", "50m").set("breaker.max_cooldown", "50m");
    let daemon = clock.of(Launch::new(lab.host(), &probing))?.start()?;
    let mut scene = Scene { daemon, lab };
    let (mut told, mut steps) = (Vec::new(), 0);
    for offset in ["-10d", "+400d", "-30d", "+0"] {
        clock.step(offset)?;
        let reason = format!("at {offset}");
        scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", &reason])?;
        steps += 1;
        told.push(reason);
        clock.step("+30d")?;
        // Longer than a tick, and in the clock's eyes longer than any cool-down.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(scene.agent(0)?["state"], "OPEN", "{offset}");
        clock.step(offset)?;
        scene.daemon.cli_ok(&["release", NAMES[0]])?;
    }
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    // Wherever the clock was in between, the steps that are told add up to where it is.
    for (offset, hours) in [("+0", 0), ("+3h", 3), ("+0", 0)] {
        clock.step(offset)?;
        wait::until("the steps are told", LONG, || {
            let events = scene.daemon.events().ok()?;
            let steps = events.iter().filter_map(|event| event["event_data"]["step_ms"].as_i64());
            (steps.sum::<i64>() - hours * 3_600_000).abs().lt(&1000).then_some(())
        })?;
    }
    let late = scene.daemon.cli_ok(&["events", "--since", "1h", "--type", "operator_command", "--json"])?;
    let late: Vec<Value> = late.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let late: Vec<String> = late.iter().map(|event| text(&event["event_data"], "reason")).collect();
    assert_eq!(late, ["at +400d", "", "at +0", ""], "by the times that they had then");
    scene.daemon.terminate()?;
    let events = scene.daemon.events()?;
    assert_eq!(count(&events, "OPERATOR_COMMAND"), 2 * steps);
    let mut ids: Vec<String> = events.iter().map(|event| text(event, "event_id")).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "no id twice");
    let commands: Vec<&Value> =
        events.iter().filter(|event| event["event_data"]["command"] == "quarantine").collect();
    let reasons: Vec<String> = commands.iter().map(|event| text(&event["event_data"], "reason")).collect();
    assert_eq!(reasons, told, "in the order in which they were given");
    let mono: Vec<u64> = commands.iter().filter_map(|event| event["monotonic_ns"].as_u64()).collect();
    ensure!(mono.len() == steps && mono.is_sorted(), "{mono:?}");
    let times: Vec<String> = commands.iter().map(|event| text(event, "timestamp")).collect();
    ensure!(times[0] < times[1] && times[1] > times[2] && times[2] < times[3], "{times:?}");
    let (code, report) = verify(&scene.daemon)?;
    assert_eq!(code, Some(0), "{report}");
    // The index answers the same as the log.
    let all = ["events", "--offline", "--agent", NAMES[0]];
    let before = scene.daemon.cli_ok(&all)?;
    scene.daemon.cli_ok(&["log", "reindex"])?;
    assert_eq!(scene.daemon.cli_ok(&all)?, before);
    Ok(())
}
