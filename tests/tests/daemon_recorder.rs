//! What is kept of an agent's packets when its circuit opens, read with another's code.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentsec::core::community_id::{DEFAULT_SEED, FlowTuple};
use agentsec_tests::cgroup::scene::CgroupScene;
use agentsec_tests::daemon::{Config, Daemon};
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use agentsec_tests::traffic::http::HttpServer;
use agentsec_tests::traffic::sweep::{self, Knock};
use agentsec_tests::traffic::udp::UdpReceiver;
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn always() -> Config {
    config(1).set("recorder.mode", "always").set("recorder.max_agents", 4)
}

/// The files of kept recordings, the oldest first.
fn kept(daemon: &Daemon) -> Vec<PathBuf> {
    let found = fs::read_dir(daemon.paths().state().join("recordings"));
    let mut files: Vec<PathBuf> = found.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "pcapng"));
    files.sort_by_key(|path| fs::metadata(path).and_then(|file| file.modified()).ok());
    files
}

fn wait_for_kept(daemon: &Daemon, count: usize) -> Result<PathBuf> {
    let what = format!("{count} kept recordings");
    let files = wait::until(&what, LONG, || Some(kept(daemon)).filter(|files| files.len() == count))
        .with_context(|| daemon.said())?;
    files.last().cloned().context("one at least")
}

/// Some fields of every packet of a file, as tshark reads it.
fn tshark(file: &Path, fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["--enable-protocol", "communityid", "-T", "fields"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().context("starting tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn view(daemon: &Daemon, agent: &str) -> Result<Value> {
    Ok(serde_json::from_str(&daemon.cli_ok(&["recorder", agent, "--json"])?)?)
}

fn wait_for_rate(daemon: &Daemon, agent: &str, one_in: Value) -> Result<()> {
    let what = format!("one in {one_in} of {agent}");
    wait::until(&what, LONG, || (view(daemon, agent).ok()?["one_in"] == one_in).then_some(()))
}

#[test]
fn a_trip_keeps_what_came_before_it_and_tshark_reads_it() -> Result<()> {
    let scene = Scene::routed(1, &always().set("profiles.default.limits.max_volume", "100kB"))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    assert!(scene.is_served(0, &server));
    wait_for_rate(&scene.daemon, NAMES[0], 1.into())?;
    // Taken, so that no ICMP error is under way on the other CPU when the circuit opens.
    let _receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    scene.shoot(0, 9, 2000)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let file = wait_for_kept(&scene.daemon, 1)?;
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);

    let rows = tshark(
        &file,
        &[
            "frame.comment",
            "frame.packet_flags_direction",
            "frame.len",
            "frame.cap_len",
            "frame.interface_name",
            "communityid",
        ],
    )?;
    assert_eq!(rows.len(), 256, "as many as a recorder keeps");
    let (last, before) = rows.split_last().context("packets")?;
    assert!(
        last[0].starts_with("agent=alice direction=outbound verdict=dropped state=CLOSED mode=enforce"),
        "{}",
        last[0]
    );
    assert!(last[0].contains(" tripped=yes"), "{}", last[0]);
    assert!(before.iter().all(|row| !row[0].contains("tripped") && row[0].contains("verdict=passed")));
    // Outbound is two in the flags; a datagram of 100 bytes, of which only headers are recorded.
    assert_eq!(last[1..5], ["0x00000002", "142", "42", "alice"].map(str::to_owned));
    let trip = scene.agent(0)?;
    let explained: Value = serde_json::from_str(&scene.daemon.cli_ok(&["explain", NAMES[0], "--json"])?)?;
    let local_port = explained["packet"]["local_port"].as_u64().context("a port")? as u16;
    let flow = FlowTuple {
        protocol: 17,
        source: scene.lab.agent(0).v4.into(),
        destination: scene.lab.world().v4.into(),
        source_port: local_port,
        destination_port: 9,
    };
    assert_eq!(last[5], flow.community_id(DEFAULT_SEED), "{trip}");
    Ok(())
}

#[test]
fn the_command_shows_the_packets_and_writes_them_where_they_belong() -> Result<()> {
    let scene = Scene::routed(1, &always())?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    wait_for_rate(&scene.daemon, NAMES[0], 1.into())?;
    assert!(scene.is_served(0, &server));
    let port = server.address().port();
    let shown = view(&scene.daemon, NAMES[0])?;
    let packets = shown["packets"].as_array().context("packets")?;
    let syn =
        packets.iter().find(|packet| packet["destination_port"] == port).context("the first segment")?;
    assert_eq!(
        (&syn["direction"], &syn["verdict"], &syn["protocol"]),
        (&"outbound".into(), &"passed".into(), &"tcp".into())
    );
    assert_eq!(syn["destination"], scene.lab.world().v4.to_string());
    assert!(packets.iter().any(|packet| packet["direction"] == "inbound" && packet["source_port"] == port));
    let text = scene.daemon.cli_ok(&["recorder", NAMES[0]])?;
    assert!(
        text.contains("every packet is recorded (headers;") && text.contains(&format!(":{port}")),
        "{text}"
    );

    let directory = tempfile::tempdir()?;
    let file = directory.path().join("alice.pcapng");
    let out = file.to_str().context("a path")?;
    scene.daemon.cli_ok(&["recorder", NAMES[0], "--out", out])?;
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let times = tshark(&file, &["frame.time_epoch", "tcp.dstport"])?;
    assert!(times.iter().any(|row| row[1] == port.to_string()));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    let first: f64 = times[0][0].parse()?;
    assert!((now - 120.0..=now).contains(&first), "{first} is not the wall clock's {now}");
    let again = scene.daemon.cli(&["recorder", NAMES[0], "--out", out])?;
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("File exists"));
    let piped = scene.daemon.cli(&["recorder", NAMES[0], "--out", "-"])?;
    assert!(piped.status.success() && piped.stdout.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
    assert!(!scene.daemon.cli(&["recorder", "nobody"])?.status.success());
    Ok(())
}

#[test]
fn pcapng_is_not_written_to_a_terminal() -> Result<()> {
    let scene = Scene::routed(1, &always())?;
    let command = scene.daemon.command(&["recorder", NAMES[0], "--out", "-"]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    // A terminal of its own for whatever it runs.
    let output = Command::new("script").args(["-qec", &quoted.join(" "), "/dev/null"]).output()?;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("pcapng is not for a terminal"), "{said}");
    Ok(())
}

#[test]
fn a_trip_without_a_daemon_is_kept_by_the_next_one_and_so_is_one_that_it_had_no_time_for() -> Result<()> {
    let mut scene = Scene::routed(1, &always().set("profiles.default.limits.max_volume", "100kB"))?;
    let _receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    wait_for_rate(&scene.daemon, NAMES[0], 1.into())?;
    scene.daemon.kill9()?;
    scene.shoot(0, 9, 2000)?;
    scene.daemon.restart()?;
    let file = wait_for_kept(&scene.daemon, 1)?;
    let comments = tshark(&file, &["frame.comment"])?;
    assert!(
        comments
            .last()
            .is_some_and(|row| row[0].contains("verdict=dropped") && row[0].contains("tripped=yes"))
    );
    let before = fs::read(&file)?;

    // As after a crash between the event and the file; what was left half-written goes.
    fs::remove_file(&file)?;
    let half = file.with_extension("pcapng.new");
    fs::write(&half, "half")?;
    scene.daemon.kill9()?;
    scene.shoot(0, 9, 100)?;
    scene.daemon.restart()?;
    let again = wait_for_kept(&scene.daemon, 1)?;
    assert_eq!(again, file, "one recording has one name");
    assert!(!half.exists());
    assert_eq!(tshark(&again, &["frame.comment"])?, comments, "the kernel has kept it meanwhile");
    assert_eq!(fs::read(&again)?.len(), before.len());
    Ok(())
}

#[test]
fn an_operators_quarantine_keeps_it_too_and_after_the_release_it_goes_on() -> Result<()> {
    let scene = Scene::routed(1, &always().set("breaker.probe", "300ms").set("recorder.keep", 1))?;
    let _receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    wait_for_rate(&scene.daemon, NAMES[0], 1.into())?;
    scene.shoot(0, 9, 30)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let first = wait_for_kept(&scene.daemon, 1)?;
    let frozen = view(&scene.daemon, NAMES[0])?;
    assert_eq!((&frozen["frozen"], frozen["kept"].as_str()), (&true.into(), first.to_str()));
    scene.shoot(0, 9, 30)?;
    assert_eq!(
        view(&scene.daemon, NAMES[0])?["recorded"],
        frozen["recorded"],
        "while OPEN nothing is recorded"
    );
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    scene.shoot(0, 9, 30)?;
    let after = view(&scene.daemon, NAMES[0])?;
    assert!(after["recorded"].as_u64() >= frozen["recorded"].as_u64().map(|count| count + 30), "{after}");
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "again"])?;
    wait::until("the next recording in place of the first", LONG, || {
        (kept(&scene.daemon).len() == 1 && !first.exists()).then_some(())
    })?;
    Ok(())
}

#[test]
fn credentials_reach_no_disk_and_no_operator() -> Result<()> {
    const SECRET: &str = "c3VwZXJzZWNyZXQ";
    let scene = Scene::routed(1, &always().set("recorder.payload", true))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    wait_for_rate(&scene.daemon, NAMES[0], 1.into())?;
    let to = scene.world(server.address().port());
    let mut stream = scene.lab.agent(0).namespace.run(|| TcpStream::connect_timeout(&to, LONG))?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("GET /shown HTTP/1.1\r\nAuthorization: {SECRET}\r\n").as_bytes())?;
    let sent = || {
        let shown = view(&scene.daemon, NAMES[0]).ok()?;
        let out = shown["packets"].as_array()?.iter().filter(|packet| packet["direction"] == "outbound");
        (out.filter(|packet| packet["length"].as_u64() > Some(90)).count() > 0).then_some(())
    };
    wait::until("the request", LONG, sent)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let file = wait_for_kept(&scene.daemon, 1)?;
    let piped = scene.daemon.cli(&["recorder", NAMES[0], "--out", "-"])?.stdout;
    for bytes in [fs::read(&file)?, piped] {
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("GET /shown HTTP/1.1\r\nAuthorization: *"), "payload is recorded");
        assert!(!text.contains(&SECRET[..4]), "the secret is there");
    }
    Ok(())
}

#[test]
fn a_risky_agent_is_recorded_whole_and_a_reload_changes_what_is_recorded() -> Result<()> {
    let mut scene = Scene::routed(2, &config(2))?;
    wait_for_rate(&scene.daemon, NAMES[0], 16.into())?;
    wait_for_rate(&scene.daemon, NAMES[1], 16.into())?;
    let crowd = (0..5).map(|index| IpAddr::from(scene.lab.crowd_v4(index)));
    let targets = sweep::targets(crowd, &[9]);
    sweep::sweep(&scene.lab.agent(0).namespace, targets, Knock::Udp(9), 1, LONG)?.wait();
    wait_for_rate(&scene.daemon, NAMES[0], 1.into())?;
    wait_for_rate(&scene.daemon, NAMES[1], 16.into())?;

    scene.daemon.set_config(
        &config(2)
            .set("recorder.mode", "off")
            .set("profiles.web.recorder.mode", "always")
            .set("agents.bob.profile", "web"),
    )?;
    scene.daemon.cli_ok(&["reload"])?;
    wait_for_rate(&scene.daemon, NAMES[0], Value::Null)?;
    wait_for_rate(&scene.daemon, NAMES[1], 1.into())?;

    scene.daemon.set_config(&config(2).set("recorder.packets", 512))?;
    let refused = scene.daemon.cli(&["reload"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("recorder.packets") && said.contains("256"), "{said}");
    Ok(())
}

#[test]
fn packets_of_a_cgroup_are_kept_without_a_link_layer() -> Result<()> {
    let scene = CgroupScene::with_agents(1, |config| {
        config.set("recorder.mode", "always").set("profiles.default.limits.max_volume", "2kB")
    })?;
    wait_for_rate(&scene.daemon, NAMES[0], 1.into())?;
    scene.wait_attached(NAMES[0], "attached")?;
    scene.shoot(&scene.agents[0], 100)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let file = wait_for_kept(&scene.daemon, 1)?;
    let rows =
        tshark(&file, &["frame.protocols", "frame.len", "frame.cap_len", "udp.dstport", "frame.comment"])?;
    let last = rows.last().context("packets")?;
    assert!(last[0].starts_with("raw:ip:udp"), "{}", last[0]);
    assert_eq!(last[1..4], ["128".to_owned(), "28".to_owned(), scene.sink().address().port().to_string()]);
    assert!(last[4].contains("tripped=yes"), "{}", last[4]);
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_holds_nobody_up() -> Result<()> {
    let scene = Scene::routed(1, &always().set("profiles.default.limits.max_volume", "100kB"))?;
    wait_for_rate(&scene.daemon, NAMES[0], 1.into())?;
    let directory = scene.daemon.paths().state().join("recordings");
    mount(Some("tmpfs"), &directory, Some("tmpfs"), MsFlags::empty(), Some("size=4k,mode=0700"))?;
    let told = || -> Result<()> {
        scene.shoot(0, 9, 2000)?;
        scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
        let loss = scene.wait_for_event("the loss", |event| event["event_data"]["what"] == "recording")?;
        ensure!(loss["event_type"] == "LOSS" && loss["event_data"]["agent"] == NAMES[0], "{loss}");
        let status = scene.daemon.status()?;
        let alerts = status["daemon"]["alerts"].as_array().context("alerts")?;
        ensure!(
            alerts.iter().any(|alert| alert.as_str().is_some_and(|text| text.starts_with("recorder:"))),
            "{status}"
        );
        ensure!(fs::read_dir(&directory)?.count() == 0, "something is left");
        Ok(())
    };
    let outcome = told();
    umount2(&directory, MntFlags::MNT_DETACH)?;
    outcome
}
