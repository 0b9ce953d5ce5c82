//! A full disk, damaged files, and callers who may not.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};

use agentsec::record::verify;
use agentsec_tests::daemon::{Daemon, Launch};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, is_trip, number};
use agentsec_tests::small_disk::SmallDisk;
use agentsec_tests::traffic::sweep::{self, Knock};
use agentsec_tests::traffic::udp::UdpReceiver;
use agentsec_tests::wait;
use anyhow::{Context, Result};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Makes events until one finds no room: a file's last page has some when the disk has none.
fn use_up_the_last_page(scene: &Scene) -> Result<()> {
    let queued = |status: &Value| number(&status["daemon"]["events"]["queued"]) > 0;
    scene.daemon.wait_until("events that wait", LONG, |status| {
        queued(status) || scene.daemon.cli_ok(&["release", NAMES[1]]).is_err()
    })?;
    Ok(())
}

/// Runs `agentsec run` to its end, which must come by itself: its exit code and what it said.
fn run(daemon: &Daemon) -> Result<(Option<i32>, String)> {
    let config = daemon.paths().config();
    let output = daemon.cli(&["run".as_ref(), "--config".as_ref(), config.as_os_str()])?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn a_full_disk_stops_neither_the_trip_nor_its_record() -> Result<()> {
    let config = config(2)
        .set("profiles.default.limits.max_volume", "50kB")
        .set("breaker.auto_probe", true)
        .set("breaker.cooldown", "100ms")
        .set("breaker.probe", "10m");
    let lab = Lab::routed(2)?;
    let mut daemon = Launch::new(lab.host(), &config).prepare()?;
    let disk = SmallDisk::over(&daemon.paths().state())?;
    daemon.begin()?;
    daemon.wait_ready()?;
    // The disk goes first, or the daemon's directory could not be removed.
    let (scene, disk) = (Scene { daemon, lab }, disk);
    let filler = disk.fill()?;
    use_up_the_last_page(&scene)?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    scene.shoot(0, 9, 1000)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let waits = |status: &Value| {
        let alerts = status["daemon"]["alerts"].to_string();
        number(&status["daemon"]["events"]["queued"]) > 0 && alerts.contains("events")
    };
    scene.daemon.wait_until("events wait, and status says so", LONG, waits)?;
    // An unrecorded trip has no cool-down, however short: the agent stays contained.
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    let passed = receiver.datagrams();
    assert!(passed * 142 <= 50_000);
    scene.shoot(0, 9, 100)?;
    assert_eq!(receiver.datagrams(), passed);
    scene.daemon.cli_ok(&["quarantine", NAMES[1], "--reason", "test", "--hold"])?;
    assert_eq!(scene.agent(1)?["state"], "OPEN", "operators need no disk either");
    let recorded = |scene: &Scene| -> Result<bool> {
        Ok(scene.daemon.events()?.iter().any(|event| is_trip(event, NAMES[0])))
    };
    assert!(!recorded(&scene)?, "there was room after all");

    fs::remove_file(filler)?;
    scene.wait_for_event("the trip, late", |event| is_trip(event, NAMES[0]))?;
    scene.daemon.wait_for_state(NAMES[0], "HALF_OPEN", LONG)?;
    assert!(scene.daemon.event_lines()?.iter().all(|line| verify(line).is_ok()), "no line is torn");
    let calm = |status: &Value| {
        status["daemon"]["events"]["queued"] == 0 && status["daemon"]["alerts"] == Value::Array(Vec::new())
    };
    scene.daemon.wait_until("nothing waits any more", LONG, calm)?;
    Ok(())
}

#[test]
fn a_trip_that_could_not_be_recorded_before_a_crash_is_recorded_after_it() -> Result<()> {
    let config = config(2).set("profiles.default.limits.max_volume", "50kB");
    let lab = Lab::routed(2)?;
    let mut daemon = Launch::new(lab.host(), &config).prepare()?;
    let disk = SmallDisk::over(&daemon.paths().state())?;
    daemon.begin()?;
    daemon.wait_ready()?;
    // The disk goes first, or the daemon's directory could not be removed.
    let (mut scene, disk) = (Scene { daemon, lab }, disk);
    let filler = disk.fill()?;
    use_up_the_last_page(&scene)?;
    scene.shoot(0, 9, 1000)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    scene.daemon.kill9()?;
    fs::remove_file(filler)?;
    scene.daemon.restart()?;
    let trip = scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
    assert_eq!(trip["event_data"]["found_at_start"], true);
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    Ok(())
}

#[test]
fn endpoints_and_notices_without_room_are_counted_and_told() -> Result<()> {
    const CAP: u64 = 50;
    let config = config(1).set("profiles.default.max_endpoints", CAP as i64);
    let scene = Scene::routed(1, &config)?;
    let crowd = (0..1000).map(|index| IpAddr::from(scene.lab.crowd_v4(index)));
    let targets = sweep::targets(crowd, &[7]);
    sweep::sweep(&scene.lab.agent(0).namespace, targets, Knock::Udp(20), 1, LONG)?.wait();
    let agent = scene.agent(0)?;
    assert_eq!(number(&agent["endpoints"]["opened"]), CAP);
    assert_eq!(number(&agent["endpoints"]["overflow"]), 1000 - CAP, "each is counted");
    assert_eq!(number(&agent["signals"]["unusual_endpoints"]), 1000, "and counts, with an entry or without");
    let told = || -> Option<u64> {
        let events = scene.daemon.events().ok()?;
        let losses = events.iter().filter(|event| event["event_type"] == "LOSS");
        let told = losses.map(|event| number(&event["event_data"]["packets_without_endpoint"])).sum();
        (told == 1000 - CAP).then_some(told)
    };
    wait::until("the loss, told in full", LONG, told)?;
    Ok(())
}

#[test]
fn commands_do_not_wait_for_ever_for_a_daemon_that_is_stopped() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    scene.daemon.stop()?;
    let output = scene.daemon.cli(&["status"]);
    scene.daemon.cont()?;
    let output = output?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.is_empty());
    Ok(())
}

#[test]
fn a_disk_that_hangs_stops_neither_operators_nor_the_breaker() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    let state = scene.daemon.paths().state().join("state.json");
    let beside = state.with_extension("json.new");
    // Opening it to write takes until somebody reads.
    nix::unistd::mkfifo(&beside, nix::sys::stat::Mode::S_IRWXU)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test", "--hold"])?;
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    let says_so = |status: &Value| status["daemon"]["alerts"].to_string().contains("state:");
    scene.daemon.wait_until("status says so", LONG, says_so)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[1], "--reason", "test", "--hold"])?;
    assert_eq!(scene.agent(1)?["state"], "OPEN");
    // The disk is well again.
    let reader = File::options().read(true).write(true).open(&beside)?;
    // Unless the daemon was quicker, which could not sync it.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => drop(reader),
    }
    scene.daemon.wait_until("status is content", LONG, |status| !says_so(status))?;
    let kept: Value = serde_json::from_slice(&fs::read(&state)?)?;
    let held = kept["agents"].as_array().context("agents")?.iter().filter(|agent| agent["hold"] == true);
    assert_eq!(held.count(), 2, "{kept}");
    Ok(())
}

#[test]
fn a_torn_batch_of_the_log_is_told_and_does_no_harm() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    scene.daemon.kill9()?;
    let wal = scene.daemon.paths().state().join("log/wal");
    let mut bytes = fs::read(&wal)?;
    let end = bytes.iter().rposition(|&byte| byte != 0).context("events wait there")? + 1;
    bytes[end + 3..end + 18].copy_from_slice(b"half of a batch");
    fs::write(&wal, bytes)?;
    scene.daemon.restart()?;
    scene.daemon.terminate()?;
    let events = scene.daemon.events()?;
    let told: Vec<_> = events.iter().filter(|event| event["event_data"]["what"] == "torn_batch").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(number(&told[0]["event_data"]["offset"]), end as u64);
    let said = scene.daemon.cli_ok(&["log", "verify"])?;
    assert!(said.contains("nothing is wrong"), "{said}");
    Ok(())
}

#[test]
fn a_state_file_that_cannot_be_understood_is_refused() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test", "--hold"])?;
    scene.daemon.terminate()?;
    let state = scene.daemon.paths().state().join("state.json");
    let world = scene.lab.world().counters()?;
    for damage in ["{\"format\":1,\"agents\":[{", "", "{\"format\":77,\"agents\":[]}"] {
        fs::write(&state, damage)?;
        let (code, said) = run(&scene.daemon)?;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("state.json") && said.contains("move it away"), "{said}");
        scene.shoot(0, 9, 10)?;
    }
    fs::remove_file(&state)?;
    scene.daemon.restart()?;
    assert_eq!(scene.agent(0)?["state"], "OPEN", "the pins know it without the file");
    scene.shoot(0, 9, 10)?;
    assert_eq!(scene.lab.world().counters()?, world);
    Ok(())
}

#[test]
fn root_in_an_agents_namespace_is_refused_and_told_on() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let program = scene.daemon.command(&[""; 0]).get_program().to_owned();
    let mut command = scene.lab.agent(0).namespace.command(program);
    command.arg("--run-dir").arg(scene.daemon.paths().run());
    let output = command.args(["release", NAMES[0], "--force", "--json"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("network namespace"), "{said}");
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    let event = scene.wait_for_event("the violation", |event| event["event_type"] == "SECURITY_VIOLATION")?;
    assert_eq!(event["event_data"]["violation_type"], "control_api_refused");
    assert_eq!(event["event_data"]["context"]["uid"], 0);
    Ok(())
}

#[test]
fn without_capabilities_the_daemon_says_which_and_leaves_nothing() -> Result<()> {
    let lab = Lab::routed(1)?;
    let daemon = Launch::new(lab.host(), &config(1)).prepare()?;
    let paths = daemon.paths();
    let run = daemon.command(&["run".as_ref(), "--config".as_ref(), paths.config().as_os_str()]);
    let mut bare = lab.host().command("setpriv");
    bare.args(["--bounding-set", "-all", "--inh-caps", "-all", "--"]);
    let output = bare.arg(run.get_program()).args(run.get_args()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("without CAP_NET_ADMIN") && said.contains("run as root"), "{said}");
    assert!(!paths.pins().join("v1").exists(), "nothing is half made");
    Ok(())
}
