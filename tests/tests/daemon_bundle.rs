//! Evidence bundles: what is collected at a trip, from the real machine, and what becomes of it when things go wrong.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agentsec_tests::cgroup::scene::CgroupScene;
use agentsec_tests::cgroup::{Cgroup, Member};
use agentsec_tests::daemon::{Config, Daemon, Launch};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, is_trip};
use agentsec_tests::traffic::tcp::TcpSink;
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn parsed(daemon: &Daemon, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&daemon.cli_ok(arguments)?)?)
}

/// How a command ended, and all that it said.
fn ends(daemon: &Daemon, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = daemon.cli(arguments)?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn is_evidence(event: &Value, agent: &str, action: &str) -> bool {
    event["event_type"] == "EVIDENCE"
        && event["agent_id"] == agent
        && event["event_data"]["action_type"] == action
}

fn evidence(daemon: &Daemon, agent: &str, action: &str) -> Result<Vec<Value>> {
    Ok(daemon.events()?.into_iter().filter(|event| is_evidence(event, agent, action)).collect())
}

/// Waits until so many bundles of an agent are in the log; the latest one's event.
fn wait_collected(daemon: &Daemon, agent: &str, count: usize) -> Result<Value> {
    let waited = wait::until("a bundle", LONG, || {
        let found = evidence(daemon, agent, "EVIDENCE_COLLECTED").ok()?;
        (found.len() >= count).then(|| found.last().cloned()).flatten()
    });
    waited.with_context(|| format!("{}\n{:#?}", daemon.said(), daemon.events()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn items(part: &Value) -> &[Value] {
    part["items"].as_array().map_or(&[], Vec::as_slice)
}

/// A part of a bundle.
fn part(daemon: &Daemon, bundle: &str, name: &str) -> Result<Value> {
    parsed(daemon, &["bundle", "show", bundle, "--part", name])
}

/// SHA-256 by a program of others.
fn sha256sum(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output()?;
    let said = String::from_utf8(output.stdout)?;
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

fn net_of(pid: u32) -> Result<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/net"))?;
    let link = link.to_string_lossy().into_owned();
    Ok(link.trim_start_matches("net:[").trim_end_matches(']').parse()?)
}

/// What is in the directory of bundles, below it included.
fn files(daemon: &Daemon) -> BTreeSet<PathBuf> {
    let root = daemon.paths().state().join("bundles");
    let directories = fs::read_dir(&root).into_iter().flatten().flatten();
    let below = directories.flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten());
    below.map(|entry| entry.path()).collect()
}

/// A process of agent 0's namespace that holds a connection to the world.
fn talker(scene: &Scene, cgroup: &Cgroup, sink: &TcpSink) -> Result<Member> {
    let to = scene.world(sink.address().port()).to_string();
    let member = cgroup
        .traffic(Some(&scene.lab.agent(0).namespace), &["hold", "tcp", "--to", &to, "--longest", "120"])?;
    member.ready()?;
    Ok(member)
}

#[test]
fn a_bundle_has_the_real_process_socket_and_route_of_the_agents_namespace() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_volume", "50kB");
    let scene = Scene::routed(1, &config)?;
    let (daemon, cgroup) = (&scene.daemon, Cgroup::new("bundle")?);
    let sink = TcpSink::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let member = talker(&scene, &cgroup, &sink)?;
    scene.shoot(0, 9, 1000)?;
    let event = wait_collected(daemon, NAMES[0], 1)?;
    let (data, trip) =
        (&event["event_data"], scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?);
    let bundle = text(&data["bundle"]);
    assert_eq!(event["correlation_id"], trip["correlation_id"], "one incident");
    assert_eq!((&data["status"], &data["late"]), (&"complete".into(), &Value::Null), "{data}");

    let processes = part(daemon, bundle, "processes.json")?;
    let process = items(&processes).iter().find(|one| one["pid"] == member.id()).context("the process")?;
    let exe = PathBuf::from(text(&process["exe"]));
    assert_eq!(text(&process["exe_sha256"]), sha256sum(&exe)?);
    assert_eq!(process["network_namespace"], net_of(member.id())?);
    assert_eq!((&process["parent_pid"], &process["uid"][0]), (&std::process::id().into(), &0.into()));
    assert_eq!(process["command_line"][1], "traffic");
    assert_eq!(text(&process["cgroup"]).trim_start_matches('/'), cgroup.path());
    let all_inside = items(&processes).iter().all(|one| one["in_network_namespace"] == true);
    assert!(all_inside, "nobody else's process: {processes}");

    let sockets = part(daemon, bundle, "sockets.json")?;
    let world = scene.lab.world().v4.to_string();
    let is_its = |one: &&Value| {
        one["pid"] == member.id()
            && one["remote_address"] == world.as_str()
            && one["remote_port"] == sink.address().port()
    };
    let socket = items(&sockets).iter().find(is_its).with_context(|| format!("its socket: {sockets}"))?;
    assert_eq!((&socket["table"], &socket["state"]), (&"tcp".into(), &"ESTABLISHED".into()));
    let routes = part(daemon, bundle, "routes.json")?;
    let default =
        items(&routes).iter().find(|one| one["destination"] == "0.0.0.0/0").context("a default route")?;
    assert!(default["gateway"].is_string(), "{default}");
    let gateway = &default["gateway"];
    let neighbours = part(daemon, bundle, "neighbours.json")?;
    assert!(items(&neighbours).iter().any(|one| one["address"] == *gateway), "{neighbours}");
    let interfaces = part(daemon, bundle, "interfaces.json")?;
    assert!(items(&interfaces).iter().any(|one| one["name"] == "eth0"), "{interfaces}");

    let flows = part(daemon, bundle, "flows.json")?;
    let flow =
        items(&flows).iter().find(|one| one["remote_port"] == sink.address().port()).context("its flow")?;
    assert_eq!((&flow["protocol"], &flow["opened_by"]), (&"tcp".into(), &"agent".into()));
    assert_eq!(flow["local_port"], socket["local_port"]);
    let endpoints = part(daemon, bundle, "endpoints.json")?;
    assert!(
        items(&endpoints).iter().any(|one| one["port"] == 9 && one["remote"] == world.as_str()),
        "{endpoints}"
    );
    let signals = part(daemon, bundle, "signals.json")?;
    assert_eq!(signals["at_trip"]["tripped"]["cause"], "max_volume");
    assert_eq!(signals["at_trip"]["packet"]["remote_port"], 9);
    assert!(
        signals["at_trip"]["contributions"].is_object() && signals["now"]["state"] == "OPEN",
        "{signals}"
    );
    assert_eq!(part(daemon, bundle, "profile.json")?["limits"]["max_volume_bytes"], 50_000);
    let configuration = part(daemon, bundle, "configuration.json")?;
    assert_eq!(text(&configuration["sources"][0]["sha256"]), sha256sum(&daemon.paths().config())?);

    let file = daemon.paths().state().join(text(&data["file"]));
    assert_eq!(text(&data["sha256"]), sha256sum(&file)?);
    let directory = file.parent().context("a directory")?;
    assert_eq!(
        (mode(&file)?, mode(directory)?, mode(directory.parent().context("its own")?)?),
        (0o600, 0o700, 0o700)
    );
    Ok(())
}

#[test]
fn a_bundle_of_an_agent_in_a_cgroup_has_its_processes_and_the_sockets_that_they_hold() -> Result<()> {
    let scene = CgroupScene::with_agents(1, |config| config)?;
    let sink = TcpSink::start(scene.lab.host(), (ANY4, 0), LONG)?;
    let to = format!("127.0.0.1:{}", sink.address().port());
    let arguments = ["hold", "tcp", "--to", &to, "--longest", "120"];
    let (mine, others) = (scene.traffic(&scene.agents[0], &arguments)?, Cgroup::new("other")?);
    let foreign = others.traffic(Some(scene.lab.host()), &arguments)?;
    let (mine_at, foreign_at) = (mine.ready()?, foreign.ready()?);
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "looks odd"])?;
    let event = wait_collected(&scene.daemon, NAMES[0], 1)?;
    let bundle = text(&event["event_data"]["bundle"]);
    let processes = part(&scene.daemon, bundle, "processes.json")?;
    let pids: Vec<_> = items(&processes).iter().map(|one| one["pid"].clone()).collect();
    assert_eq!(pids, [json!(mine.id())], "its own and nobody else's");
    assert_eq!(items(&processes)[0]["in_cgroup"], true);
    let sockets = part(&scene.daemon, bundle, "sockets.json")?;
    let has = |port: u16| items(&sockets).iter().any(|one| one["local_port"] == port);
    assert!(has(mine_at.port()) && !has(foreign_at.port()), "{sockets}");
    let signals = part(&scene.daemon, bundle, "signals.json")?;
    assert_eq!(signals["at_trip"]["tripped"]["by"], "operator");
    Ok(())
}

#[test]
fn a_bundle_that_was_altered_is_found_and_not_exported() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let event = wait_collected(&scene.daemon, NAMES[0], 1)?;
    let bundle = text(&event["event_data"]["bundle"]).to_owned();
    let file = scene.daemon.paths().state().join(text(&event["event_data"]["file"]));
    // It works without a daemon.
    scene.daemon.kill9()?;
    let daemon = &scene.daemon;
    let listed = parsed(daemon, &["bundle", "list", "--json"])?;
    assert_eq!(
        (&listed["bundles"][0]["log"], &listed["without"]),
        (&"matches".into(), &json!([])),
        "{listed}"
    );
    let out = tempfile::tempdir()?;
    let (good, bad) = (out.path().join("good.tar"), out.path().join("bad.tar"));
    let export = |to: &Path, more: &[&str]| {
        let to = to.display().to_string();
        ends(daemon, &[&["bundle", "export", &bundle[..35], "--to", &to], more].concat())
    };
    assert_eq!(export(&good, &[])?.0, Some(0));
    assert_eq!(fs::read(&good)?, fs::read(&file)?);
    assert_eq!(mode(&good)?, 0o600);
    let (code, said) = export(&good, &[])?;
    assert_eq!(code, Some(5), "what is there is not overwritten: {said}");
    let tar = Command::new("tar").arg("-tf").arg(&good).output()?;
    let names = String::from_utf8(tar.stdout)?;
    assert!(
        names.starts_with(&format!("{bundle}/manifest.json\n")) && names.contains("/signals.json\n"),
        "{names}"
    );

    let mut bytes = fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes)?;
    let (code, said) = ends(daemon, &["bundle", "list"])?;
    assert!(code == Some(7) && said.contains("DIFFERS"), "{said}");
    let (code, said) = export(&bad, &[])?;
    assert!(code == Some(5) && said.contains("is not what the log says") && !bad.exists(), "{said}");
    let (code, said) = export(&bad, &["--unverified"])?;
    assert!(code == Some(0) && said.contains("UNVERIFIED"), "{said}");
    assert_eq!(ends(daemon, &["bundle", "show", &bundle])?.0, Some(7));
    fs::remove_file(&file)?;
    let (code, said) = ends(daemon, &["bundle", "list"])?;
    assert!(code == Some(7) && said.contains("MISSING"), "{said}");
    assert_eq!(ends(daemon, &["bundle", "show", "0000"])?.0, Some(4));
    Ok(())
}

#[test]
fn a_quiet_agents_bundle_says_of_every_part_what_it_is() -> Result<()> {
    let config = config(2).set("profiles.still.recorder.mode", "off").of_agent("profile", "still");
    let scene = Scene::routed(2, &config)?;
    let bundle_of = |agent: &str| -> Result<String> {
        scene.daemon.cli_ok(&["quarantine", agent, "--reason", "test"])?;
        Ok(text(&wait_collected(&scene.daemon, agent, 1)?["event_data"]["bundle"]).to_owned())
    };
    let quiet = bundle_of(NAMES[0])?;
    assert_eq!(items(&part(&scene.daemon, &quiet, "flows.json")?), [] as [Value; 0]);
    let packets = scene.daemon.cli(&["bundle", "show", &quiet, "--part", "recorder.pcapng"])?.stdout;
    assert_eq!(packets[..4], [0x0a, 0x0d, 0x0d, 0x0a], "a file of no packets");
    let still = bundle_of(NAMES[1])?;
    let shown = parsed(&scene.daemon, &["bundle", "show", &still, "--json"])?;
    let parts = shown["manifest"]["parts"].as_array().context("parts")?;
    let recorder = parts.iter().find(|part| part["name"] == "recorder.pcapng").context("the recorder")?;
    assert_eq!(recorder["status"], "unavailable");
    assert!(text(&recorder["reasons"][0]).contains("no recorder"), "{recorder}");
    Ok(())
}

#[test]
fn a_bundle_is_found_without_its_note_and_without_the_log() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let event = wait_collected(&scene.daemon, NAMES[0], 1)?;
    let bundle = text(&event["event_data"]["bundle"]).to_owned();
    let state = scene.daemon.paths().state();
    let (file, log) = (state.join(text(&event["event_data"]["file"])), state.join("log"));
    scene.daemon.kill9()?;
    let (daemon, out) = (&scene.daemon, tempfile::tempdir()?);
    let export = |name: &str, more: &[&str]| {
        let to = out.path().join(name).display().to_string();
        ends(daemon, &[&["bundle", "export", &bundle, "--to", &to], more].concat())
    };
    // Nothing vouches for the log's absence, so it is said; the bundle is there all the same.
    fs::rename(&log, state.join("elsewhere"))?;
    let (code, said) = export("a.tar", &[])?;
    assert!(code == Some(5) && said.contains("there is no log"), "{said}");
    let (code, said) = export("a.tar", &["--unverified"])?;
    assert!(code == Some(0) && said.contains("UNVERIFIED"), "{said}");
    assert_eq!(ends(daemon, &["bundle", "show", &bundle])?.0, Some(7));
    fs::rename(state.join("elsewhere"), &log)?;
    // The log's hash covers the archive, and nothing the note.
    fs::write(file.with_file_name("about.json"), "{")?;
    let (code, said) = ends(daemon, &["bundle", "list"])?;
    assert!(code == Some(0) && said.contains("matches") && said.contains("about.json"), "{said}");
    assert_eq!(export("b.tar", &[])?.0, Some(0));
    assert_eq!(fs::read(out.path().join("b.tar"))?, fs::read(&file)?);
    Ok(())
}

/// Makes a key of age with a program of others: the file with it, and its public half.
fn age_key(directory: &Path, name: &str) -> Result<(PathBuf, String)> {
    let path = directory.join(name);
    let made = Command::new("age-keygen").arg("-o").arg(&path).output().context("age-keygen")?;
    ensure!(made.status.success(), "{made:?}");
    let shown = Command::new("age-keygen").arg("-y").arg(&path).output()?;
    Ok((path, String::from_utf8(shown.stdout)?.trim().to_owned()))
}

#[test]
fn an_encrypted_bundle_leaves_nothing_in_clear_and_opens_with_the_recipients_key_only() -> Result<()> {
    let keys = tempfile::tempdir()?;
    let ((identity, recipient), (other, _)) = (age_key(keys.path(), "key")?, age_key(keys.path(), "other")?);
    let config = config(1).set("bundles.recipients", vec![recipient]);
    let scene = Scene::routed(1, &config)?;
    let cgroup = Cgroup::new("sealed")?;
    let mut sleep = Command::new("/bin/sleep");
    sleep.arg0("marker-of-the-agent").arg("300");
    let member = cgroup.spawn(Some(&scene.lab.agent(0).namespace), sleep)?;
    wait::until("the process to be what it is", LONG, || {
        let line = fs::read(format!("/proc/{}/cmdline", member.id())).ok()?;
        line.starts_with(b"marker").then_some(())
    })?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let event = wait_collected(&scene.daemon, NAMES[0], 1)?;
    let bundle = text(&event["event_data"]["bundle"]);
    let file = scene.daemon.paths().state().join(text(&event["event_data"]["file"]));
    assert_eq!(
        (file.file_name(), &event["event_data"]["recipients"]),
        (Some(OsStr::new("bundle.tar.age")), &1.into())
    );
    for path in files(&scene.daemon) {
        let bytes = fs::read(&path)?;
        assert!(!bytes.windows(6).any(|window| window == b"marker"), "{} has it in clear", path.display());
    }
    let plain = keys.path().join("plain.tar");
    let arguments = |identity: &Path| {
        let (to, identity) = (plain.display().to_string(), identity.display().to_string());
        ["bundle", "export", bundle, "--to", &to, "--identity", &identity].map(str::to_owned)
    };
    let wrong = scene.daemon.cli(&arguments(&other))?;
    assert!(wrong.status.code() == Some(5) && !plain.exists(), "{wrong:?}");
    scene.daemon.cli_ok(&arguments(&identity))?;
    let decrypted = Command::new("age").arg("-d").arg("-i").arg(&identity).arg(&file).output()?;
    ensure!(decrypted.status.success(), "{decrypted:?}");
    assert_eq!(decrypted.stdout, fs::read(&plain)?, "age itself opens it, and it is the same");
    assert!(decrypted.stdout.windows(19).any(|window| window == b"marker-of-the-agent"));
    let (code, said) = ends(&scene.daemon, &["bundle", "show", bundle])?;
    assert!(code == Some(5) && said.contains("--identity"), "{said}");
    let key = identity.display().to_string();
    let shown = scene.daemon.cli_ok(&["bundle", "show", bundle, "--identity", &key])?;
    assert!(shown.contains("processes.json") && shown.contains("matches"), "{shown}");
    Ok(())
}

/// A small file system over a directory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn over(directory: &Path, kib: usize) -> Result<Self> {
        let size = format!("size={kib}k,mode=0700");
        mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .context("mounting a tmpfs")?;
        Ok(Self(directory.to_owned()))
    }

    /// Fills it but for so many bytes.
    fn fill(&self, but_for: usize) -> Result<PathBuf> {
        let path = self.0.join("filler");
        let mut file = File::create(&path)?;
        while file.write_all(&[0; 4096]).is_ok() {}
        file.set_len(file.metadata()?.len().saturating_sub(but_for as u64))?;
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A destructor has nobody to tell.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_bundle_that_finds_no_disk_is_told_waits_and_is_kept_once_there_is_room() -> Result<()> {
    let lab = Lab::routed(1)?;
    let mut daemon = Launch::new(lab.host(), &config(1)).prepare()?;
    let disk = SmallDisk::over(&daemon.paths().state(), 512)?;
    daemon.begin()?;
    daemon.wait_ready()?;
    let (scene, disk) = (Scene { daemon, lab }, disk);
    let cgroup = Cgroup::new("full")?;
    // Enough to say for a bundle that does not fit where an event does.
    let members: Vec<_> = (0..40)
        .map(|_| {
            let mut sleep = Command::new("/bin/sleep");
            sleep.arg0("x".repeat(2000)).arg("300");
            cgroup.spawn(Some(&scene.lab.agent(0).namespace), sleep)
        })
        .collect::<Result<_>>()?;
    let filler = disk.fill(32 * 1024)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    assert_eq!(scene.agent(0)?["state"], "OPEN", "enforcement needs no disk");
    let waits = |status: &Value| {
        status["daemon"]["bundles"]["waiting"] == 1
            && status["daemon"]["alerts"].to_string().contains("waits in memory")
    };
    scene.daemon.wait_until("the bundle to wait", LONG, waits)?;
    assert_eq!(evidence(&scene.daemon, NAMES[0], "EVIDENCE_COLLECTED")?, [] as [Value; 0]);
    fs::remove_file(filler)?;
    let event = wait_collected(&scene.daemon, NAMES[0], 1)?;
    let calm = |status: &Value| {
        status["daemon"]["bundles"]["waiting"] == 0 && status["daemon"]["alerts"] == Value::Array(Vec::new())
    };
    let status = scene.daemon.wait_until("nothing waits any more", LONG, calm)?;
    assert_eq!(
        (&status["daemon"]["bundles"]["collected"], &status["daemon"]["bundles"]["failed"]),
        (&1.into(), &0.into())
    );
    let processes = part(&scene.daemon, text(&event["event_data"]["bundle"]), "processes.json")?;
    assert_eq!(items(&processes).len(), members.len(), "as they were at the trip");
    Ok(())
}

/// Quarantines the first agent so often: an event each time.
fn quarantine_often(scene: &Scene, times: usize) -> Result<()> {
    let url = format!("http://agentsec/v1/agents/{}/quarantine?[1-{times}]", NAMES[0]);
    let mut curl = scene.lab.host().command("curl");
    curl.args(["--silent", "--output", "/dev/null", "--data", r#"{"reason":"again"}"#]);
    curl.args(["--header", "Content-Type: application/json", "--unix-socket"]);
    let status = curl.arg(scene.daemon.paths().run().join("agentsec.sock")).arg(url).status()?;
    ensure!(status.success(), "curl: {status}");
    Ok(())
}

#[test]
fn a_bundle_whose_event_finds_no_room_is_in_the_log_once_there_is_and_a_report_is_refused() -> Result<()> {
    let lab = Lab::routed(1)?;
    let mut daemon = Launch::new(lab.host(), &config(1)).prepare()?;
    let disk = SmallDisk::over(&daemon.paths().state(), 32 * 1024)?;
    daemon.begin()?;
    daemon.wait_ready()?;
    let (scene, disk) = (Scene { daemon, lab }, disk);
    let filler = disk.fill(0)?;
    let lost = |status: &Value| status["daemon"]["events"]["lost"].as_u64().unwrap_or_default();
    // What the write-ahead file still has room for, and what waits in memory.
    for _ in 0..10 {
        quarantine_often(&scene, 3000)?;
        if lost(&scene.daemon.status()?) > 0 {
            break;
        }
    }
    ensure!(lost(&scene.daemon.status()?) > 0, "there is still room in memory");
    let (code, said) = ends(&scene.daemon, &["report", NAMES[0], "--id", "late"])?;
    assert!(code == Some(1) && said.contains("nothing was recorded"), "{code:?} {said}");
    fs::remove_file(filler)?;
    let event = wait_collected(&scene.daemon, NAMES[0], 1)?;
    let listed = parsed(&scene.daemon, &["bundle", "list", "--json"])?;
    assert_eq!(listed["bundles"][0]["log"], "matches", "{listed}");
    scene.daemon.cli_ok(&["bundle", "show", text(&event["event_data"]["bundle"])])?;
    scene.daemon.cli_ok(&["report", NAMES[0], "--id", "late"])?;
    Ok(())
}

#[test]
fn a_daemon_killed_at_any_moment_of_collecting_leaves_no_half_bundle_and_no_trip_without_one() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    let cgroup = Cgroup::new("killed")?;
    let sink = TcpSink::start(&scene.lab.world().namespace, (ANY4, 0), 3 * LONG)?;
    let _member = talker(&scene, &cgroup, &sink)?;
    for wait_ms in [0, 2, 5, 10, 20, 40, 80, 160] {
        scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
        std::thread::sleep(Duration::from_millis(wait_ms));
        scene.daemon.kill9()?;
        scene.daemon.restart()?;
        let whole = || {
            let listed = parsed(&scene.daemon, &["bundle", "list", "--json"]).ok()?;
            let matches = |one: &Value| one["log"] == "matches";
            let all = listed["bundles"].as_array()?.iter().all(matches) && listed["without"] == json!([]);
            all.then_some(())
        };
        let waited = wait::until("every trip to have a bundle", LONG, whole);
        waited.with_context(|| {
            format!("killed after {wait_ms} ms: {:?}", ends(&scene.daemon, &["bundle", "list"]))
        })?;
        scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    }
    let names: BTreeSet<_> =
        files(&scene.daemon).iter().filter_map(|path| path.file_name().map(OsStr::to_owned)).collect();
    assert_eq!(names, ["about.json", "bundle.tar"].map(Into::into).into(), "nothing is left over");
    Ok(())
}

#[test]
fn a_trip_while_no_daemon_runs_gets_a_bundle_that_says_it_is_late() -> Result<()> {
    let config = config(2).set("profiles.default.limits.max_volume", "50kB");
    let mut scene = Scene::routed(2, &config)?;
    scene.daemon.kill9()?;
    scene.shoot(0, 9, 1000)?;
    scene.daemon.restart()?;
    let event = wait_collected(&scene.daemon, NAMES[0], 1)?;
    assert!(text(&event["event_data"]["late"]).contains("did not run"), "{event}");
    assert!(scene.daemon.cli_ok(&["bundle", "list"])?.contains("late"));
    assert_eq!(evidence(&scene.daemon, NAMES[1], "EVIDENCE_COLLECTED")?.len(), 0, "nobody else tripped");
    // It has its bundle: the next daemon makes no other.
    scene.daemon.restart()?;
    scene.daemon.cli_ok(&["quarantine", NAMES[1], "--reason", "test"])?;
    wait_collected(&scene.daemon, NAMES[1], 1)?;
    assert_eq!(evidence(&scene.daemon, NAMES[0], "EVIDENCE_COLLECTED")?.len(), 1);
    Ok(())
}

#[test]
fn hostile_processes_are_shown_as_they_are_bounded_and_without_their_secrets() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let cgroup = Cgroup::new("hostile")?;
    let namespace = &scene.lab.agent(0).namespace;
    let spawn = |command: Command| cgroup.spawn(Some(namespace), command);
    let directory = tempfile::tempdir()?;
    let program = directory.path().join(OsStr::from_bytes(b"a) R 1 \xff\n(x"));
    fs::copy("/bin/sleep", &program)?;
    let hash = sha256sum(Path::new("/bin/sleep"))?;
    let mut odd = Command::new(&program);
    odd.arg0(OsStr::from_bytes(b"\xfe\x1b[2Jname")).arg("300");
    let mut huge = Command::new("/bin/sleep");
    huge.arg0("y".repeat(100_000)).arg("300");
    let mut secret = Command::new("/bin/sh");
    secret.args([
        "-c",
        "sleep 300; :",
        "tool",
        "--password=hunter2-in-argv",
        "--api-key",
        "hunter2-after-flag",
    ]);
    secret.env("SECRET_OF_THE_AGENT", "hunter2-in-environment");
    let (odd, huge, secret) = (spawn(odd)?, spawn(huge)?, spawn(secret)?);
    // Processes that come and go while others are looked at.
    let mut fleeting = Command::new("/bin/sh");
    fleeting.args(["-c", "while :; do /bin/true; done"]);
    let _fleeting = spawn(fleeting)?;
    let running = |member: &Member, name: &[u8]| {
        let line = fs::read(format!("/proc/{}/cmdline", member.id())).ok()?;
        line.starts_with(name).then_some(())
    };
    wait::until("all of them", LONG, || {
        running(&odd, b"\xfe").and(running(&huge, b"yyy")).and(running(&secret, b"/bin/sh\0-c\0sleep"))
    })?;
    fs::remove_file(&program)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let event = wait_collected(&scene.daemon, NAMES[0], 1)?;
    let bundle = text(&event["event_data"]["bundle"]);
    let processes = part(&scene.daemon, bundle, "processes.json")?;
    let of = |member: &Member| {
        let found = items(&processes).iter().find(|one| one["pid"] == member.id());
        found.cloned().with_context(|| format!("{} in {processes}", member.id()))
    };
    let told = of(&odd)?;
    assert_eq!(
        (&told["exe_deleted"], text(&told["exe_sha256"])),
        (&true.into(), hash.as_str()),
        "deleted, and hashed"
    );
    assert!(text(&told["exe"]).ends_with("a) R 1 \\xff\\u{a}(x"), "{told}");
    assert!(text(&told["exe_hex"]).ends_with("ff0a2878"), "{told}");
    assert_eq!(told["command_line"][0], "\\xfe\\u{1b}[2Jname");
    assert_eq!(
        (&told["state"], &told["parent_pid"]),
        (&"S".into(), &std::process::id().into()),
        "no field is forged"
    );
    let told = of(&huge)?;
    assert!(told["command_line_cut"] == true && text(&told["command_line"][0]).len() == 4096, "{told}");
    let told = of(&secret)?;
    assert_eq!(told["secrets_redacted"], 2, "{told}");
    let file = fs::read(scene.daemon.paths().state().join(text(&event["event_data"]["file"])))?;
    assert!(!file.windows(7).any(|window| window == b"hunter2"), "a secret is in the bundle");
    assert!(!file.windows(14).any(|window| window == b"68756e74657232"), "a secret is in the bundle, in hex");
    Ok(())
}

#[test]
fn two_trips_at_once_have_a_bundle_each() -> Result<()> {
    let config = config(4).set("profiles.default.limits.max_volume", "20kB");
    let scene = Scene::routed(4, &config)?;
    std::thread::scope(|scope| {
        let shots: Vec<_> = (0..4)
            .map(|index| {
                scope.spawn({
                    let scene = &scene;
                    move || scene.shoot(index, 9, 400)
                })
            })
            .collect();
        shots.into_iter().try_for_each(|shot| shot.join().expect("a thread").map(drop))
    })?;
    let mut hashes = BTreeSet::new();
    for name in NAMES {
        let event = wait_collected(&scene.daemon, name, 1)?;
        let signals = part(&scene.daemon, text(&event["event_data"]["bundle"]), "signals.json")?;
        assert_eq!(signals["now"]["id"], name);
        hashes.insert(event["event_data"]["sha256"].to_string());
    }
    assert_eq!(hashes.len(), NAMES.len());
    Ok(())
}

#[test]
fn old_bundles_go_with_an_event_each_but_never_the_newest_of_an_open_incident() -> Result<()> {
    let config = config(2).set("bundles.max_count", 1);
    let scene = Scene::routed(2, &config)?;
    let quarantine = |name: &str| scene.daemon.cli_ok(&["quarantine", name, "--reason", "test"]);
    quarantine(NAMES[0])?;
    let first = wait_collected(&scene.daemon, NAMES[0], 1)?;
    quarantine(NAMES[1])?;
    let second = wait_collected(&scene.daemon, NAMES[1], 1)?;
    // Both incidents are open: both stay. Once the first is over, the third trip's bundle is one too many.
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    quarantine(NAMES[0])?;
    let removed =
        scene.wait_for_event("retention", |event| is_evidence(event, NAMES[0], "EVIDENCE_REMOVED"))?;
    assert_eq!(removed["event_data"]["bundle"], first["event_data"]["bundle"]);
    assert_eq!(removed["event_data"]["sha256"], first["event_data"]["sha256"]);
    let third = wait_collected(&scene.daemon, NAMES[0], 2)?;
    let expected: BTreeSet<_> =
        [second, third].iter().map(|event| text(&event["event_data"]["bundle"]).to_owned()).collect();
    let kept = || -> BTreeSet<String> {
        let found = files(&scene.daemon);
        found
            .iter()
            .filter_map(|path| Some(path.parent()?.file_name()?.to_string_lossy().into_owned()))
            .collect()
    };
    wait::until("the file to go", LONG, || (kept() == expected).then_some(()))?;
    Ok(())
}

#[test]
fn who_kills_an_agent_waits_for_its_evidence() -> Result<()> {
    const PROGRAMS: usize = 5;
    let home = tempfile::tempdir()?;
    let state = home.path().join("state");
    fs::create_dir(&state)?;
    fs::write(state.join("f"), "clean")?;
    let scene = CgroupScene::with_agents(1, |config: Config| {
        config
            .of_agent("recovery.directory", state.display().to_string())
            .of_agent("recovery.interval", "off")
            .set("bundles.part_timeout", "60s")
            .set("bundles.wait", "60s")
    })?;
    scene.daemon.cli_ok(&["snapshot", "create", NAMES[0]])?;
    // Programs whose hashes take longer than a recovery does: mostly holes.
    let start = |number: usize| -> Result<Member> {
        let program = home.path().join(format!("program-{number}"));
        fs::copy("/bin/sleep", &program)?;
        File::options().write(true).open(&program)?.set_len(600_000_000)?;
        let mut command = Command::new(&program);
        command.arg("300");
        scene.agents[0].spawn(None, command)
    };
    let members: Vec<_> = (0..PROGRAMS).map(start).collect::<Result<_>>()?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    scene.daemon.cli_ok(&["recover", NAMES[0], "--no-wait"])?;
    assert!(!scene.agents[0].holds(members[0].id())?, "recovery has killed them");
    let event = wait_collected(&scene.daemon, NAMES[0], 1)?;
    let processes = part(&scene.daemon, text(&event["event_data"]["bundle"]), "processes.json")?;
    let looked_into = items(&processes).iter().filter(|one| one["exe_bytes"] == 600_000_000).count();
    assert_eq!(looked_into, PROGRAMS, "each was there to the end: {processes}");
    let stopped_too_soon = |event: &Value| event["event_data"]["what"] == "stopped_before_evidence_was_kept";
    assert!(!scene.daemon.events()?.iter().any(stopped_too_soon));
    Ok(())
}
