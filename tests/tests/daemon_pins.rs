//! The pins: one daemon at a time, taken away whole, and nobody else's touched.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use agentsec_tests::daemon::{Daemon, Launch};
use agentsec_tests::foreign::{Counter, Hook, Place};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, number};
use agentsec_tests::traffic::http::HttpServer;
use agentsec_tests::traffic::udp::UdpReceiver;
use agentsec_tests::wait;
use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Runs `agentsec run` to its end, which must come by itself.
fn run(daemon: &Daemon) -> Result<(Option<i32>, String)> {
    let config = daemon.paths().config();
    let output = daemon.cli(&["run".as_ref(), "--config".as_ref(), config.as_os_str()])?;
    Ok((output.status.code(), said(&output)))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_second_daemon_on_the_same_pins_refuses_and_says_who_runs() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let pid = scene.daemon.pid().context("it runs")?.to_string();
    for _ in 0..2 {
        let (code, said) = run(&scene.daemon)?;
        assert_ne!(code, Some(0));
        assert!(said.contains(&pid) && said.contains("in use"), "{said}");
    }
    let unload = scene.daemon.cli(&["unload"])?;
    assert_eq!(unload.status.code(), Some(5), "{}", said(&unload));
    assert_eq!(scene.agent(0)?["attachments"][0]["status"], "attached", "the first one is not hurt");
    Ok(())
}

#[test]
fn of_two_that_start_at_once_one_runs() -> Result<()> {
    let lab = Lab::routed(1)?;
    let mut daemon = Launch::new(lab.host(), &config(1)).prepare()?;
    for _ in 0..3 {
        let mut rival = daemon.command(&["run", "--config"]);
        let rival = rival.arg(daemon.paths().config()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut rival = rival.spawn()?;
        daemon.begin()?;
        let one_has_given_up = || {
            let gone = rival.try_wait().ok()?.is_some();
            (gone || !daemon.is_running()).then_some(gone)
        };
        let ours_runs = wait::until("one that gives up", LONG, one_has_given_up);
        if ours_runs.as_ref().is_ok_and(|ours| *ours) {
            daemon.wait_ready()?;
            daemon.kill9()?;
        } else {
            let answers = wait::until("the rival's answer", LONG, || daemon.status().ok());
            let both = rival.try_wait()?.is_some();
            rival.kill()?;
            rival.wait()?;
            let _ = daemon.kill9();
            ours_runs?;
            assert!(!both, "both gave up");
            assert_eq!(answers?["agents"][0]["attachments"][0]["status"], "attached");
        }
    }
    Ok(())
}

#[test]
fn pins_of_another_size_are_refused_and_stay_in_force() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    scene.daemon.terminate()?;
    scene.daemon.set_config(&config(1).set("daemon.max_agents", 32))?;
    let (code, said) = run(&scene.daemon)?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("max_agents") && said.contains("unload"), "what it is and what to do: {said}");
    let world = scene.lab.world().counters()?;
    scene.shoot(0, 9, 50)?;
    assert_eq!(scene.lab.world().counters()?, world);
    scene.daemon.set_config(&config(1))?;
    scene.daemon.restart()?;
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    Ok(())
}

/// A BPF file system of its own.
struct OwnBpffs(PathBuf);

impl OwnBpffs {
    fn mount(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at)?;
        mount(Some("bpf"), &at, Some("bpf"), MsFlags::empty(), None::<&str>).context("mounting a bpffs")?;
        Ok(Self(at))
    }

    fn unmount(&self) {
        // A destructor has nobody to tell; the test would notice that nothing has changed.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

impl Drop for OwnBpffs {
    fn drop(&mut self) {
        self.unmount();
    }
}

#[test]
fn enforcement_outlives_the_unmounting_of_its_bpffs_as_long_as_the_daemon_runs() -> Result<()> {
    let lab = Lab::routed(1)?;
    let own = tempfile::tempdir()?;
    let own = OwnBpffs::mount(own.path().join("bpf"))?;
    let launch = Launch::new(lab.host(), &config(1)).argument("--pin-path").argument(own.0.join("pins"));
    let scene = Scene { daemon: launch.start()?, lab };
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    own.unmount();
    assert!(!own.0.join("pins").exists(), "it is still mounted");
    let world = scene.lab.world().counters()?;
    scene.shoot(0, 9, 50)?;
    assert_eq!(scene.lab.world().counters()?, world);
    assert!(number(&scene.agent(0)?["outbound"]["dropped_packets"]) >= 50);
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    assert!(scene.is_served(0, &server), "it still decides");
    Ok(())
}

#[test]
fn unload_removes_what_is_ours_and_nothing_else() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    let host = scene.lab.host().clone();
    let pins = scene.daemon.paths().pins();
    fs::create_dir(pins.join("theirs"))?;
    let foreign_map = pins.join("theirs/map");
    let made = host
        .command("bpftool")
        .args(["map", "create"])
        .arg(&foreign_map)
        .args("type array key 4 value 4 entries 1 name theirs".split(' '))
        .status();
    let has_map = made.is_ok_and(|status| status.success());
    let theirs = Counter::attach(&host, "agent-0", Hook::Ingress, Place::Last)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    scene.daemon.terminate()?;
    scene.daemon.cli_ok(&["unload"])?;
    let left: Vec<_> = fs::read_dir(&pins)?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["theirs"], "all of ours is gone, and only that");
    assert!(!has_map || foreign_map.exists(), "their map is gone");
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let enforcement_ends = || scene.is_served(0, &server).then_some(());
    wait::until("the agent, whom nothing holds any more", LONG, enforcement_ends)?;
    assert!(theirs.packets()? > 0, "the other program still runs");
    scene.daemon.cli_ok(&["unload"])?;
    // Whoever starts next starts from nothing.
    scene.daemon.restart()?;
    assert_eq!(number(&scene.agent(0)?["outbound"]["packets"]), 0);
    Ok(())
}

#[test]
fn everybody_can_be_released_without_a_daemon() -> Result<()> {
    let mut scene = Scene::routed(2, &config(2))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test", "--hold"])?;
    scene.daemon.kill9()?;
    assert!(!scene.is_served(0, &server));
    let said = scene.daemon.cli_ok(&["release", "--all", "--json"])?;
    let said: Value = serde_json::from_str(&said)?;
    assert_eq!(said["released"], serde_json::json!([NAMES[0]]));
    assert!(scene.is_served(0, &server));
    scene.daemon.restart()?;
    let agent = scene.agent(0)?;
    let now = (&agent["state"], &agent["hold"], &agent["tripped"]);
    assert_eq!(now, (&"CLOSED".into(), &false.into(), &Value::Null), "the next daemon keeps it so");
    assert!(scene.is_served(0, &server));
    Ok(())
}

#[test]
fn programs_of_others_see_what_passes_wherever_they_stand() -> Result<()> {
    let lab = Lab::routed(1)?;
    let host = lab.host().clone();
    let before_us = Counter::attach(&host, "agent-0", Hook::Ingress, Place::First)?;
    let scene = Scene::around(lab, &config(1))?;
    let attach = |hook, place| Counter::attach(&host, "agent-0", hook, place);
    let (behind, back) = (attach(Hook::Ingress, Place::Last)?, attach(Hook::Egress, Place::Last)?);
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    scene.shoot(0, 9, 100)?;
    wait::until("all of them", LONG, || (receiver.datagrams() == 100).then_some(()))?;
    // We went to the front of the one that was there first: all three see everything that passes.
    assert_eq!((before_us.packets()?, behind.packets()?), (100, 100));
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    assert!(scene.is_served(0, &server));
    assert!(back.packets()? > 0, "nothing seen on the way back");
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let seen = (before_us.packets()?, behind.packets()?);
    scene.shoot(0, 9, 100)?;
    assert_eq!((before_us.packets()?, behind.packets()?), seen, "attached first, we drop before they see");
    Ok(())
}

#[test]
fn pins_of_another_layout_are_refused_and_left_alone() -> Result<()> {
    let lab = Lab::routed(1)?;
    let mut daemon = Launch::new(lab.host(), &config(1)).prepare()?;
    let other = daemon.paths().pins().join("v999");
    fs::create_dir_all(other.join("maps"))?;
    let (code, said) = run(&daemon)?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("v999") && said.contains("unload"), "what it is and what to do: {said}");
    assert!(other.is_dir());
    daemon.cli_ok(&["unload"])?;
    daemon.begin()?;
    daemon.wait_ready()
}

#[test]
fn a_pin_path_that_is_no_bpffs_is_refused_with_the_remedy() -> Result<()> {
    let lab = Lab::routed(1)?;
    let daemon = Launch::new(lab.host(), &config(1)).prepare()?;
    let elsewhere = daemon.paths().state().join("pins");
    let mut command = daemon.command(&["run", "--config"]);
    command.arg(daemon.paths().config()).arg("--pin-path").arg(&elsewhere);
    let output = command.output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("mount -t bpf"), "{}", said(&output));
    assert!(!elsewhere.exists());
    Ok(())
}
