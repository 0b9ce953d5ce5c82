//! Interfaces come, go, change their names and places; their agents stay who they are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::{Lab, Node};
use agentsec_tests::link::{self, End, Noise, ip, mac_text, veth_pairs};
use agentsec_tests::netns::Namespace;
use agentsec_tests::scene::{self, LONG, NAMES, Scene, config, number};
use agentsec_tests::traffic::http::HttpServer;
use agentsec_tests::traffic::packet::{PacketSocket, Way};
use agentsec_tests::traffic::udp::{self, UdpPlan};
use anyhow::{Context, Result};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Makes a namespace whose `eth0` is the other end of a new interface of the host; neither says anything by itself.
fn newcomer(host: &Namespace, name: &str) -> Result<Namespace> {
    let peer = Namespace::new(name)?;
    link::prepare(&peer, Noise::Quiet)?;
    let end = |namespace, name: &str, last| End {
        namespace,
        name: name.to_owned(),
        mac: [2, 0, 0, 0, 0, last],
        addresses: Vec::new(),
        noise: Noise::Quiet,
    };
    veth_pairs(&[(end(host, name, 1), end(&peer, "eth0", 2))])?;
    Ok(peer)
}

/// Sends raw frames into `eth0` of a namespace.
fn send(from: &Namespace, count: u64) -> Result<()> {
    let socket = PacketSocket::open(from, "eth0", Way::Bypass)?;
    for _ in 0..count {
        socket.send(&[0xff; 60])?;
    }
    Ok(())
}

/// Waits until the agent's only attachment has this status; `None` is an agent that is not known.
fn wait_attached(scene: &Scene, id: &str, status: &str) -> Result<Value> {
    let agent_of = |all: &Value| {
        let agents = all["agents"].as_array()?;
        agents.iter().find(|agent| agent["id"] == id).cloned()
    };
    let is_so = |all: &Value| agent_of(all).is_some_and(|agent| agent["attachments"][0]["status"] == status);
    let all = scene.daemon.wait_until(&format!("{id} is {status}"), LONG, is_so)?;
    agent_of(&all).context("it was there")
}

/// Deletes an agent's link and makes it again as the lab did.
fn recreate(host: &Namespace, node: &Node) -> Result<()> {
    let end = |namespace, name: &str, mac, v4: Ipv4Addr| End {
        namespace,
        name: name.to_owned(),
        mac,
        addresses: vec![format!("{v4}/24")],
        noise: Noise::Quiet,
    };
    veth_pairs(&[(
        end(host, &node.host_interface, node.host_mac, node.host_v4),
        end(&node.namespace, "eth0", node.mac, node.v4),
    )])?;
    let tell = |to: &Namespace, address: Ipv4Addr, mac, interface: &str| {
        let mac = mac_text(mac);
        ip(to, &format!("neighbour replace {address} lladdr {mac} dev {interface} nud permanent"))
    };
    tell(host, node.v4, node.mac, &node.host_interface)?;
    tell(&node.namespace, node.host_v4, node.host_mac, "eth0")?;
    ip(&node.namespace, &format!("route replace default via {}", node.host_v4))?;
    Ok(())
}

#[test]
fn a_profile_that_nobody_has_is_there_for_the_next_agent() -> Result<()> {
    let config = config(1)
        .agent("pool", "late-*")
        .of_agent("profile", "pooled")
        .set("profiles.pooled.limits.max_volume", "1MB");
    let scene = Scene::routed(1, &config)?;
    // Rows that nobody refers to are free after a second or two.
    scene.daemon.wait_until("the time to clear rows", LONG, |status| {
        status["daemon"]["uptime_s"].as_u64() >= Some(4)
    })?;
    let late = newcomer(scene.lab.host(), "late-1")?;
    wait_attached(&scene, "late-1", "attached")?;
    send(&late, 3)?;
    let agent = scene.daemon.agent("late-1")?;
    assert_eq!(
        (number(&agent["outbound"]["packets"]), number(&agent["outbound"]["dropped_packets"])),
        (3, 0)
    );
    Ok(())
}

#[test]
fn an_interface_that_appears_later_is_attached_then() -> Result<()> {
    let scene = Scene::routed(1, &config(1).agent("late", "late0"))?;
    wait_attached(&scene, "late", "missing")?;
    let peer = newcomer(scene.lab.host(), "late0")?;
    wait_attached(&scene, "late", "attached")?;
    send(&peer, 7)?;
    scene.daemon.wait_until("its packets", LONG, |status| {
        status["agents"][1]["id"] == "late" && status["agents"][1]["outbound"]["packets"] == 7
    })?;
    scene.wait_for_event("the attachment's event", |event| {
        event["event_type"] == "AGENT_ATTACHED" && event["event_data"]["interface"] == "late0"
    })?;
    Ok(())
}

#[test]
fn a_contained_agent_stays_so_when_its_interface_is_made_anew() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let world = scene.lab.world().counters()?;
    for daemon_runs in [true, false] {
        if !daemon_runs {
            scene.daemon.kill9()?;
        }
        ip(scene.lab.host(), "link delete agent-0")?;
        if daemon_runs {
            wait_attached(&scene, NAMES[0], "missing")?;
        }
        recreate(scene.lab.host(), scene.lab.agent(0))?;
        if !daemon_runs {
            scene.daemon.restart()?;
        }
        wait_attached(&scene, NAMES[0], "attached")?;
        assert_eq!(scene.agent(0)?["state"], "OPEN");
        let dropped = number(&scene.agent(0)?["outbound"]["dropped_packets"]);
        scene.shoot(0, 9, 50)?;
        assert_eq!(scene.lab.world().counters()?, world, "daemon running: {daemon_runs}");
        assert!(number(&scene.agent(0)?["outbound"]["dropped_packets"]) >= dropped + 50);
    }
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    assert!(scene.is_served(0, &server));
    Ok(())
}

#[test]
fn a_pattern_adopts_interfaces_as_they_appear_in_the_state_for_newcomers() -> Result<()> {
    let config = config(0).agent("fleet", "box-*").of_agent("newcomer", "open");
    let scene = Scene::routed(1, &config)?;
    let peer = newcomer(scene.lab.host(), "box-7")?;
    let adopted = wait_attached(&scene, "box-7", "attached")?;
    assert_eq!(adopted["state"], "OPEN");
    send(&peer, 5)?;
    let dropped = |status: &Value| status["agents"][0]["outbound"]["dropped_packets"] == 5;
    scene.daemon.wait_until("its packets are dropped", LONG, dropped)?;
    let status = scene.daemon.status()?;
    assert_eq!(status["agents"].as_array().map(Vec::len), Some(1), "agent-0 matches nothing: {status}");
    Ok(())
}

#[test]
fn an_interface_keeps_its_agent_when_it_is_renamed() -> Result<()> {
    let mut scene = Scene::routed(2, &config(2))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    ip(scene.lab.host(), "link set dev agent-0 name renamed0")?;
    let renamed = |status: &Value| {
        let attachments = status["agents"][0]["attachments"].as_array();
        attachments.is_some_and(|all| all.iter().any(|one| one["interface"] == "renamed0"))
    };
    scene.daemon.wait_until("the new name", LONG, renamed)?;
    let world = scene.lab.world().counters()?;
    scene.shoot(0, 9, 50)?;
    scene.daemon.restart()?;
    scene.shoot(0, 9, 50)?;
    assert_eq!(scene.lab.world().counters()?, world, "renamed and out");
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    assert!(scene.is_served(0, &server));
    assert!(number(&scene.agent(0)?["outbound"]["packets"]) > 0, "still counted");
    Ok(())
}

#[test]
fn an_interface_in_another_namespace_is_still_held() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let elsewhere = Namespace::new("elsewhere")?;
    ip(scene.lab.host(), &format!("link set dev agent-0 netns {}", elsewhere.path()))?;
    ip(&elsewhere, "link set dev agent-0 up")?;
    ip(&elsewhere, &format!("address add {}/24 dev agent-0", scene.lab.agent(0).host_v4))?;
    let agent = scene.lab.agent(0);
    for _ in 0..2 {
        link::wait_active(&agent.namespace, &["eth0"].into())?;
        let received = agent.counters()?.rx_packets;
        let dropped = number(&scene.agent(0)?["outbound"]["dropped_packets"]);
        send(&agent.namespace, 20)?;
        scene.daemon.wait_until("its packets are dropped there", LONG, |status| {
            number(&status["agents"][0]["outbound"]["dropped_packets"]) >= dropped + 20
        })?;
        let to = SocketAddr::new(agent.v4.into(), 9);
        let plan = UdpPlan { datagrams: 20, payload_bytes: 100, interval: Duration::ZERO, longest: LONG };
        let mac = mac_text(agent.mac);
        ip(&elsewhere, &format!("neighbour replace {} lladdr {mac} dev agent-0 nud permanent", agent.v4))?;
        assert_eq!(udp::numbered(&elsewhere, to, plan)?.wait().datagrams, 20);
        assert_eq!(agent.counters()?.rx_packets, received, "reached from its new place");
        scene.daemon.restart()?;
        assert_eq!(scene.agent(0)?["state"], "OPEN");
    }
    Ok(())
}

#[test]
fn one_interface_has_one_agent() -> Result<()> {
    let lab = Lab::routed(1)?;
    let config = config(1).agent("twin", "agent-0");
    let daemon = agentsec_tests::daemon::Launch::new(lab.host(), &config).prepare()?;
    let path = daemon.paths().config();
    for verb in ["check-config", "run"] {
        let output = daemon.cli(&[verb.as_ref(), "--config".as_ref(), path.as_os_str()])?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{said}");
        assert!(said.contains("agent-0") && said.contains("alice") && said.contains("twin"), "{said}");
    }
    Ok(())
}

#[test]
fn an_agent_that_nobody_configures_any_more_stays_contained() -> Result<()> {
    let mut scene = Scene::routed(2, &config(2))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[1], "--reason", "test"])?;
    scene.daemon.set_config(&config(1))?;
    scene.daemon.restart()?;
    let bob = scene.agent(1)?;
    assert_eq!(bob["state"], "OPEN");
    let world = scene.lab.world().counters()?;
    scene::shoot(scene.lab.agent(1), scene.world(9), 50)?;
    assert_eq!(scene.lab.world().counters()?, world);
    scene.daemon.cli_ok(&["release", NAMES[1], "--force"])?;
    // Nobody contains it and nobody configures it: it is soon forgotten.
    scene.daemon.wait_until("nothing of it is left", LONG, |status| {
        status["agents"].as_array().is_some_and(|agents| agents.iter().all(|agent| agent["id"] != NAMES[1]))
    })?;
    assert_eq!(scene.states_entered(1)?.last().map(String::as_str), Some("CLOSED"));
    Ok(())
}
