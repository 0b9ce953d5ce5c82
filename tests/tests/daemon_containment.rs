//! OPEN drops everything, whatever an agent tries.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::Node;
use agentsec_tests::link::{Counters, counters, ip_batch};
use agentsec_tests::scene::{self, LONG, NAMES, Scene, config, number};
use agentsec_tests::traffic::frames::{self, Path};
use agentsec_tests::traffic::http::{HttpClient, HttpServer};
use agentsec_tests::traffic::icmp::ping;
use agentsec_tests::traffic::packet::{PacketSocket, Way};
use agentsec_tests::wait;
use anyhow::{Context, Result};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const SOON: Duration = Duration::from_millis(200);

/// What the far sides of an agent's link have received: the world from it, and it from anybody.
fn far_sides(scene: &Scene) -> Result<[Counters; 2]> {
    let received = |node: &Node| -> Result<Counters> {
        let counters = node.counters()?;
        Ok(Counters { rx_packets: counters.rx_packets, rx_bytes: counters.rx_bytes, ..Counters::default() })
    };
    Ok([received(scene.lab.world())?, received(scene.lab.agent(0))?])
}

/// Frames of every kind: tags, ARP, raw Ethernet types, broken headers, somebody else's addresses.
fn strange_frames(scene: &Scene) -> Vec<(&'static str, Vec<u8>)> {
    let (agent, world) = (scene.lab.agent(0), scene.lab.world());
    let path = Path { from: agent.mac, to: agent.host_mac };
    let foreign = Path { from: [2, 9, 9, 9, 9, 9], to: agent.host_mac };
    let datagram = |from| frames::udp4((from, 5), (world.v4, 9), b"out");
    let good = path.frame(frames::IPV4, &datagram(agent.v4));
    let mut all = frames::broken(path, (agent.v4, agent.v6), (world.v4, world.v6));
    all.push(("ARP", path.arp_request(agent.v4, agent.host_v4)));
    all.push(("LLDP", path.frame(0x88cc, &[0; 46])));
    all.push(("an unknown Ethernet type", path.frame(0x4242, &[7; 100])));
    all.push(("a VLAN", frames::tagged(&good, frames::VLAN, 7)));
    all.push(("QinQ", frames::tagged(&frames::tagged(&good, frames::VLAN, 7), frames::QINQ, 9)));
    all.push(("the world's own address", path.frame(frames::IPV4, &datagram(world.v4))));
    all.push(("bob's address", path.frame(frames::IPV4, &datagram(scene.lab.agent(1).v4))));
    all.push(("a foreign Ethernet address", foreign.frame(frames::IPV4, &datagram(agent.v4))));
    let six = frames::udp6((agent.v6, 5), (world.v6, 9), b"out");
    all.push(("IPv6", path.frame(frames::IPV6, &six)));
    all.push(("ordinary", good));
    all
}

#[test]
fn an_open_agent_gets_no_frame_out_of_packet_sockets() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let (agent, host) = (scene.lab.agent(0), scene.lab.host());
    let (before, link) = (far_sides(&scene)?, counters(host, "agent-0")?);
    let frames = strange_frames(&scene);
    for way in [Way::TrafficControl, Way::Bypass] {
        let socket = PacketSocket::open(&agent.namespace, "eth0", way)?;
        for (what, frame) in &frames {
            socket.send(frame).with_context(|| format!("{what} by {way:?}"))?;
        }
    }
    let sent = 2 * frames.len() as u64;
    let arrived = || Some((counters(host, "agent-0").ok()? - link).rx_packets == sent);
    wait::until("the frames at the host", LONG, || arrived()?.then_some(()))?;
    let link = counters(host, "agent-0")? - link;
    let view = scene.agent(0)?;
    assert_eq!(number(&view["outbound"]["dropped_packets"]), sent, "each is dropped and counted");
    assert_eq!(number(&view["outbound"]["dropped_bytes"]), link.rx_bytes);
    assert_eq!(number(&view["outbound"]["packets"]), 0);
    assert_eq!(far_sides(&scene)?, before);
    Ok(())
}

#[test]
fn an_open_agent_is_reached_by_nobody_and_its_connections_are_dead() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    let (agent, world) = (scene.lab.agent(0), scene.lab.world());
    let server = HttpServer::start(&world.namespace, (ANY4, 0), LONG)?;
    let theirs = HttpServer::start(&agent.namespace, (ANY4, 0), LONG)?;
    let at_agent = SocketAddr::new(agent.v4.into(), theirs.address().port());
    let mut out = HttpClient::new(&agent.namespace, scene.world(server.address().port())).timeout(SOON);
    let mut inward = HttpClient::new(&world.namespace, at_agent).timeout(SOON);
    wait::until("established connections", LONG, || out.get("/").ok().zip(inward.get("/").ok()))?;

    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let before = far_sides(&scene)?;
    for _ in 0..2 {
        assert!(out.get("/").is_err(), "outwards, first on the established connection");
        assert!(inward.get("/").is_err(), "inwards, first on the established connection");
    }
    for (from, to) in [
        (&world.namespace, IpAddr::from(agent.v4)),
        (&world.namespace, agent.v6.into()),
        (&scene.lab.agent(1).namespace, agent.v4.into()),
        (scene.lab.host(), agent.v4.into()),
        (&agent.namespace, agent.host_v4.into()),
        (&agent.namespace, scene.lab.agent(1).v4.into()),
    ] {
        assert!(ping(from, to, 1, 56, SOON)?.round_trips.is_empty(), "{to} answers");
    }
    assert_eq!(far_sides(&scene)?, before);
    assert!(scene.is_served(1, &server), "the other agent is hurt");
    let view = scene.agent(0)?;
    assert!(number(&view["inbound"]["dropped_packets"]) >= 4, "{view}");
    Ok(())
}

#[test]
fn another_address_inside_the_namespace_does_not_help() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let agent = scene.lab.agent(0);
    let before = far_sides(&scene)?;
    // Addresses go with the link's down, as does the route.
    let disguise = format!(
        "link set eth0 down\nlink set eth0 address 02:00:00:00:00:99\nlink set eth0 up\n\
         address del {}/24 dev eth0\naddress add 10.77.0.99/24 dev eth0\n\
         neighbour replace {} lladdr {} dev eth0 nud permanent\nroute replace default via {}\n",
        agent.v4,
        agent.host_v4,
        agentsec_tests::link::mac_text(agent.host_mac),
        agent.host_v4
    );
    ip_batch(&agent.namespace, &disguise)?;
    let dropped = number(&scene.agent(0)?["outbound"]["dropped_packets"]);
    agentsec_tests::link::wait_active(&agent.namespace, &["eth0"].into())?;
    let sent = scene::shoot(agent, scene.world(9), 100)?;
    assert_eq!(sent.datagrams, 100, "the disguise works: {sent:?}");
    scene.daemon.wait_until("the drops are counted", LONG, |status| {
        number(&status["agents"][0]["outbound"]["dropped_packets"]) >= dropped + 100
    })?;
    assert_eq!(far_sides(&scene)?, before);
    Ok(())
}

#[test]
fn what_an_agent_forges_while_closed_is_its_own() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    let host = scene.lab.host();
    let before = counters(host, "agent-0")?;
    let socket = PacketSocket::open(&scene.lab.agent(0).namespace, "eth0", Way::Bypass)?;
    let frames = strange_frames(&scene);
    for (what, frame) in &frames {
        socket.send(frame).with_context(|| (*what).to_owned())?;
    }
    scene.lab.settle()?;
    let link = counters(host, "agent-0")? - before;
    let (alice, bob) = (scene.agent(0)?, scene.agent(1)?);
    assert_eq!(number(&alice["outbound"]["packets"]), frames.len() as u64);
    assert_eq!(number(&alice["outbound"]["bytes"]), link.rx_bytes);
    assert_eq!(number(&bob["outbound"]["packets"]), 0, "not the one whose address it used");
    assert!(number(&alice["classes"]["malformed"]) > 0, "{}", alice["classes"]);
    assert!(number(&alice["classes"]["arp"]) > 0, "{}", alice["classes"]);
    Ok(())
}
