//! Agents behind a shared link, dropped before the host's stack sees their frames.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use agentsec_tests::foreign::{Counter, Hook, Place};
use agentsec_tests::lab::Lab;
use agentsec_tests::lab::shared::{LINK, Shared};
use agentsec_tests::neighbours::{
    FRAME, arriving, by, config, dropped, quarantine, scene_with, wait_attached,
};
use agentsec_tests::scene::{LONG, NAMES, Scene, number, talk};
use agentsec_tests::traffic::udp::{self, UdpPlan, UdpReceiver};
use agentsec_tests::wait;
use anyhow::Result;
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Whether XDP drops before the stack, and TCX or clsact filters see the rest.
fn is_before_stack(attachment: &Value) -> bool {
    attachment["hook"].as_str().is_some_and(|hook| hook.starts_with("xdp+"))
}

#[test]
fn an_open_agents_frames_are_dropped_by_xdp_before_anything_else_sees_them() -> Result<()> {
    let (scene, shared) = scene_with(2, 2, |config| by(config, 2, "xdp"))?;
    let [alice, bob] = [0, 1].map(|index| &shared.agents()[index]);
    for attachment in wait_attached(&scene.daemon, NAMES[0], "attached")?.as_array().into_iter().flatten() {
        assert!(is_before_stack(attachment), "{attachment}");
        assert_eq!(attachment["remark"], Value::Null, "{attachment}");
    }
    let seen = Counter::attach(scene.lab.host(), LINK, Hook::Ingress, Place::First)?;
    talk(&scene.lab, bob)?;
    assert_eq!(arriving(&scene, alice, 10, 10)?, 10);
    let before = seen.packets()?;
    assert!(before > 1000, "TCX sees what passes");
    quarantine(&scene, NAMES[0])?;
    assert_eq!(arriving(&scene, alice, 500, 0)?, 0);
    let [packets, bytes] = ["dropped_packets", "dropped_bytes"];
    let now = scene.agent(0)?;
    assert_eq!((number(&now["outbound"][packets]), number(&now["outbound"][bytes])), (500, 500 * FRAME));
    assert_eq!(seen.packets()?, before, "a dropped frame has come as far as TCX");
    talk(&scene.lab, bob)?;
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    assert_eq!(arriving(&scene, alice, 10, 10)?, 10);
    Ok(())
}

#[test]
fn xdp_takes_and_drops_jumbo_frames() -> Result<()> {
    let lab = Lab::routed(0)?;
    let shared = Shared::jumbo(&lab, 1)?;
    let config = by(config(&shared, 1), 1, "xdp");
    let scene = Scene::around(lab, &config)?;
    let hooks = wait_attached(&scene.daemon, NAMES[0], "attached")?;
    assert!(is_before_stack(&hooks[0]), "{hooks}");
    let alice = &shared.agents()[0];
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let plan = UdpPlan { datagrams: 50, payload_bytes: 8_900, interval: Duration::ZERO, longest: LONG };
    let send = || udp::numbered(&alice.namespace, scene.world(receiver.address().port()), plan);
    assert_eq!(send()?.wait().errors, 0);
    wait::until("jumbo frames", LONG, || (receiver.datagrams() == 50).then_some(()))?;
    let whole = 50 * (8_900 + 42);
    assert_eq!(number(&scene.agent(0)?["outbound"]["bytes"]), whole);
    quarantine(&scene, NAMES[0])?;
    send()?.wait();
    scene.daemon.wait_until("they are dropped", LONG, |status| {
        number(&status["agents"][0]["outbound"]["dropped_bytes"]) == whole
    })?;
    assert_eq!(receiver.stop().datagrams, 50);
    Ok(())
}

#[test]
fn another_xdp_program_stays_and_ours_drops_at_tcx() -> Result<()> {
    let lab = Lab::routed(0)?;
    let shared = Shared::behind(&lab, 1)?;
    let theirs = Counter::attach_xdp(lab.host(), LINK)?;
    let config = by(config(&shared, 1), 1, "xdp");
    let mut scene = Scene::around(lab, &config)?;
    let attachments = wait_attached(&scene.daemon, NAMES[0], "attached")?;
    assert_eq!(attachments[0]["hook"], "tcx", "{attachments}");
    let remark = attachments[0]["remark"].as_str().unwrap_or_default();
    assert!(remark.contains(LINK) && remark.contains("another XDP program"), "{attachments}");
    let alice = &shared.agents()[0];
    assert_eq!(arriving(&scene, alice, 10, 10)?, 10);
    quarantine(&scene, NAMES[0])?;
    assert_eq!(arriving(&scene, alice, 10, 0)?, 0);
    assert_eq!(dropped(&scene.agent(0)?, "outbound"), 10);
    assert_eq!(theirs.packets()?, 20, "theirs still sees everything");
    scene.daemon.restart()?;
    let again = wait_attached(&scene.daemon, NAMES[0], "attached")?;
    assert_eq!(again[0]["remark"], remark, "{again}");
    drop(theirs);
    scene.daemon.restart()?;
    let again = wait_attached(&scene.daemon, NAMES[0], "attached")?;
    assert_eq!(again[0]["hook"], "xdp+tcx", "once there is room: {again}");
    Ok(())
}

#[test]
fn another_datapath_is_in_force_with_the_next_daemon() -> Result<()> {
    let (mut scene, shared) = scene_with(1, 1, |config| by(config, 1, "tc"))?;
    let alice = &shared.agents()[0];
    quarantine(&scene, NAMES[0])?;
    for (datapath, hook) in [("xdp", "xdp+tcx"), ("tc", "tcx")] {
        scene.daemon.set_config(&by(config(&shared, 1), 1, datapath))?;
        scene.daemon.restart()?;
        let attachments = wait_attached(&scene.daemon, NAMES[0], "attached")?;
        assert_eq!(attachments[0]["hook"], hook, "{attachments}");
        assert_eq!(arriving(&scene, alice, 10, 0)?, 0, "{datapath}");
        let theirs = Counter::attach_xdp(scene.lab.host(), LINK);
        assert_eq!(theirs.is_err(), datapath == "xdp", "whether somebody else's program finds room");
    }
    assert_eq!(dropped(&scene.agent(0)?, "outbound"), 20);
    Ok(())
}
