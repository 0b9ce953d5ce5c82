//! Agents behind one interface, known by their addresses there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::shared::{HOST_V4, LINK, Shared};
use agentsec_tests::lab::{Lab, Node};
use agentsec_tests::link::ip;
use agentsec_tests::neighbours::{
    FRAME, arriving, by, config, dropped, quarantine, scene_with, wait_attached,
};
use agentsec_tests::scene::{LONG, NAMES, Scene, number, passed, shoot, talk};
use agentsec_tests::traffic::capture::{Capture, Keep};
use agentsec_tests::traffic::http::{HttpClient, HttpServer};
use agentsec_tests::traffic::udp::{self, UdpPlan, UdpReceiver};
use agentsec_tests::wait;
use anyhow::{Context, Result};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[test]
fn each_agent_behind_a_shared_link_is_counted_to_the_byte() -> Result<()> {
    let (scene, shared) = scene_with(2, 3, |config| config)?;
    let mut captures = Vec::new();
    for node in &shared.agents()[..2] {
        captures.push(Capture::start(&node.namespace, &node.interface, LONG, Keep::default())?);
    }
    for node in shared.agents() {
        talk(&scene.lab, node)?;
    }
    scene.lab.settle()?;
    for (index, capture) in captures.into_iter().enumerate() {
        let seen = capture.stop()?;
        assert_eq!(seen.lost, 0, "the capture missed frames");
        let captured =
            [seen.departing.bytes, seen.departing.frames, seen.arriving.bytes, seen.arriving.frames];
        assert_eq!(passed(&scene.agent(index)?), captured, "{}", NAMES[index]);
    }
    let strays = &scene.daemon.status()?["daemon"]["strays"];
    assert_eq!(number(&strays["unidentified_packets"]), 0, "the third is nobody's, and no stray either");
    Ok(())
}

#[test]
fn an_agent_over_its_volume_is_cut_off_and_its_neighbours_go_on() -> Result<()> {
    const LIMIT: u64 = 50_000;
    let (scene, shared) =
        scene_with(2, 3, |config| config.set("profiles.default.limits.max_volume", format!("{LIMIT}B")))?;
    let [alice, bob, guest] = [0, 1, 2].map(|index| &shared.agents()[index]);
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(server.address().port());
    let client = |node: &Node| HttpClient::new(&node.namespace, to).timeout(Duration::from_millis(500));
    let (mut of_alice, mut of_bob) = (client(alice), client(bob));
    wait::until("established connections", LONG, || of_alice.get("/").ok().zip(of_bob.get("/").ok()))?;
    scene.lab.settle()?;
    let [out, _, inbound, _] = passed(&scene.agent(0)?);
    let most = (LIMIT - out - inbound) / FRAME;
    assert_eq!(arriving(&scene, alice, 1000, most)?, most, "up to the exact packet");
    let tripped = scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    assert_eq!(dropped(&tripped["agents"][0], "outbound"), 1000 - most);

    assert!(of_alice.get("/").is_err(), "on the established connection");
    assert!(of_alice.get("/").is_err(), "on a new one");
    let six = SocketAddr::new(scene.lab.world().v6.into(), 9);
    let before = dropped(&scene.agent(0)?, "outbound");
    shoot(alice, six, 20)?;
    scene.daemon.wait_until("IPv6 is dropped as well", LONG, |status| {
        dropped(&status["agents"][0], "outbound") >= before + 20
    })?;
    assert_eq!(of_bob.get("/")?.status, 200, "bob's established connection is hurt");
    assert_eq!(scene.agent(1)?["state"], "CLOSED");
    talk(&scene.lab, guest)?;

    let seen = alice.counters()?;
    let plan = UdpPlan { datagrams: 20, payload_bytes: 100, interval: Duration::ZERO, longest: LONG };
    for own in [IpAddr::from(alice.v4), alice.v6.into()] {
        let to = SocketAddr::new(own, 9);
        assert_eq!(udp::numbered(&scene.lab.world().namespace, to, plan)?.wait().datagrams, 20);
    }
    scene
        .daemon
        .wait_until("nobody reaches it", LONG, |status| dropped(&status["agents"][0], "inbound") >= 40)?;
    assert_eq!(alice.counters()?.rx_packets, seen.rx_packets);
    Ok(())
}

#[test]
fn a_prefix_is_one_agent_and_what_is_beside_it_is_not() -> Result<()> {
    let lab = Lab::routed(0)?;
    let shared = Shared::behind(&lab, 4)?;
    // Of the nodes from .16 and ::10 on, the third and the fourth.
    let fleet = vec!["10.90.0.18/31", "fd90::12/127"];
    let config = config(&shared, 1).agent_by("fleet", "address", fleet).of_agent("link", LINK);
    let scene = Scene::around(lab, &config)?;
    wait_attached(&scene.daemon, "fleet", "attached")?;
    for (round, node) in shared.agents().iter().enumerate() {
        talk(&scene.lab, node).with_context(|| format!("node {round}"))?;
    }
    scene.lab.settle()?;
    let of_both = shared.agents()[2..].iter().map(|node| {
        node.counters().map(|seen| [seen.tx_bytes, seen.tx_packets, seen.rx_bytes, seen.rx_packets])
    });
    let of_both = of_both.collect::<Result<Vec<_>>>()?;
    let together = std::array::from_fn(|index| of_both[0][index] + of_both[1][index]);
    assert_eq!(passed(&scene.daemon.agent("fleet")?), together);
    quarantine(&scene, "fleet")?;
    for (index, expected) in [10, 10, 0, 0].into_iter().enumerate() {
        assert_eq!(arriving(&scene, &shared.agents()[index], 10, expected)?, expected, "node {index}");
    }
    Ok(())
}

/// An address is what a packet says of itself. Whoever may set its own addresses is held by its interface or its cgroup,
/// not by its address: here it is somebody else as soon as it has another one.
#[test]
fn an_agent_with_another_address_is_not_that_agent_any_more() -> Result<()> {
    let (scene, shared) = scene_with(1, 1, |config| config)?;
    let alice = &shared.agents()[0];
    quarantine(&scene, NAMES[0])?;
    assert_eq!(arriving(&scene, alice, 10, 0)?, 0);
    assert_eq!(dropped(&scene.agent(0)?, "outbound"), 10);
    ip(&alice.namespace, "address add 10.90.0.99/24 dev eth0")?;
    ip(&alice.namespace, &format!("route replace default via {HOST_V4} src 10.90.0.99"))?;
    assert_eq!(arriving(&scene, alice, 10, 10)?, 10);
    assert_eq!(dropped(&scene.agent(0)?, "outbound"), 10, "not alice's");
    Ok(())
}

#[test]
fn the_next_daemon_takes_a_link_over_without_a_gap() -> Result<()> {
    for datapath in ["tc", "xdp"] {
        let (mut scene, shared) = scene_with(2, 2, |config| by(config, 2, datapath))?;
        let [alice, bob] = [0, 1].map(|index| &shared.agents()[index]);
        quarantine(&scene, NAMES[0])?;
        let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 0), 2 * LONG)?;
        let plan = UdpPlan {
            datagrams: u64::MAX,
            payload_bytes: 100,
            interval: Duration::from_micros(200),
            longest: 2 * LONG,
        };
        let stream = udp::numbered(&alice.namespace, scene.world(receiver.address().port()), plan)?;
        for kill in [true, false] {
            if kill {
                scene.daemon.kill9()?;
            } else {
                scene.daemon.terminate()?;
            }
            assert_eq!(arriving(&scene, bob, 10, 10)?, 10);
            scene.daemon.restart()?;
            let attachments = wait_attached(&scene.daemon, NAMES[0], "attached")?;
            let expected = if datapath == "xdp" { "xdp+tcx" } else { "tcx" };
            assert_eq!(attachments[0]["hook"], expected, "{attachments}");
            assert_eq!(scene.agent(0)?["state"], "OPEN");
        }
        let sent = stream.stop().datagrams;
        scene.daemon.wait_until("all of it is dropped and counted", LONG, |status| {
            dropped(&status["agents"][0], "outbound") == sent
        })?;
        assert_eq!(receiver.stop().datagrams, 0);
        assert_eq!(passed(&scene.agent(1)?)[1], 20, "counted with and without a daemon");
    }
    Ok(())
}

#[test]
fn a_link_that_comes_late_or_again_is_attached_then() -> Result<()> {
    let lab = Lab::routed(0)?;
    let shared = Shared::unplugged(&lab, 2, 1500)?;
    let config = config(&shared, 2);
    let mut scene = Scene::around(lab, &config)?;
    let alice = &shared.agents()[0];
    wait_attached(&scene.daemon, NAMES[0], "missing")?;
    shared.plug()?;
    wait_attached(&scene.daemon, NAMES[0], "attached")?;
    assert_eq!(arriving(&scene, alice, 10, 10)?, 10);
    assert_eq!(passed(&scene.agent(0)?)[1], 10);
    quarantine(&scene, NAMES[0])?;
    for daemon_runs in [true, false] {
        if !daemon_runs {
            scene.daemon.kill9()?;
        }
        shared.unplug()?;
        if daemon_runs {
            wait_attached(&scene.daemon, NAMES[0], "missing")?;
        }
        shared.plug()?;
        if !daemon_runs {
            scene.daemon.restart()?;
        }
        wait_attached(&scene.daemon, NAMES[0], "attached")?;
        wait_attached(&scene.daemon, NAMES[1], "attached")?;
        assert_eq!(arriving(&scene, alice, 10, 0)?, 0, "daemon running: {daemon_runs}");
        assert_eq!(arriving(&scene, &shared.agents()[1], 10, 10)?, 10);
    }
    assert_eq!(dropped(&scene.agent(0)?, "outbound"), 20);
    Ok(())
}

#[test]
fn an_address_of_the_host_itself_is_refused_by_name() -> Result<()> {
    let lab = Lab::routed(0)?;
    let shared = Shared::behind(&lab, 1)?;
    let own = HOST_V4.to_string();
    let config = config(&shared, 1).agent_by("self", "address", own.as_str()).of_agent("link", LINK);
    let scene = Scene::around(lab, &config)?;
    let attachments = wait_attached(&scene.daemon, "self", "failed")?;
    let error = attachments[0]["error"].as_str().unwrap_or_default();
    assert!(error.contains(&own) && error.contains("cgroup"), "{attachments}");
    assert_eq!(scene.daemon.cli(&["status", "--check"])?.status.code(), Some(7), "unhealthy");
    wait_attached(&scene.daemon, NAMES[0], "attached")?;
    assert_eq!(arriving(&scene, &shared.agents()[0], 10, 10)?, 10);
    Ok(())
}
