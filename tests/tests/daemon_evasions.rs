//! What an agent tries with its own interface, against a daemon: `docs/evasions.md` lists it all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::{Lab, Node};
use agentsec_tests::link::{Counters, Mac, counters};
use agentsec_tests::scene::{self, LONG, NAMES, Scene, config, number};
use agentsec_tests::traffic::frames::{ARP, BROADCAST, IPV4, IPV6, Path, ipv4, ipv6, tcp4, udp4, udp6};
use agentsec_tests::traffic::icmp::ping;
use agentsec_tests::traffic::packet::{PacketSocket, Way};
use agentsec_tests::traffic::udp::{self, UdpPlan, UdpReceiver};
use agentsec_tests::traffic::xsk::XskSocket;
use agentsec_tests::wait;
use anyhow::{Context, Result};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

type Frames = Vec<(&'static str, Vec<u8>)>;

/// An ICMPv6 packet to all nodes, with hop limit 255, as neighbours want it.
fn to_all_nodes(from: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut packet = ipv6(from, ALL_NODES, 58, message);
    packet[7] = 255;
    packet
}

/// What a neighbour says to everybody: lies about who the router is, and cries.
fn frames_to_everybody(agent: &Node, victim: &Node) -> Frames {
    let path = Path { from: agent.mac, to: BROADCAST };
    let nodes = Path { to: ALL_NODES_MAC, ..path };
    let routers = [&[134, 0, 0, 0, 64, 0, 0xff, 0xff][..], &[0; 8]].concat();
    let claim = [&[136, 0, 0, 0, 0xa0, 0, 0, 0][..], &agent.host_v6.octets(), &[2, 1], &agent.mac].concat();
    let asks = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &victim.v6.octets()].concat();
    let mut gratuitous = path.arp_request(agent.host_v4, agent.host_v4);
    gratuitous[21] = 2;
    let cry = |to: Ipv4Addr| udp4((agent.v4, 5353), (to, 5353), b"is anybody there?");
    let cry6 = udp6((agent.v6, 5353), (ALL_NODES, 5353), b"is anybody there?");
    let igmp = [0x16, 0, 0, 0, 224, 0, 0, 251];
    vec![
        ("a router advertisement", nodes.frame(IPV6, &to_all_nodes(agent.v6, &routers))),
        ("a neighbour advertisement for the router", nodes.frame(IPV6, &to_all_nodes(agent.v6, &claim))),
        ("a neighbour solicitation", nodes.frame(IPV6, &to_all_nodes(agent.v6, &asks))),
        ("an ARP request", path.arp_request(agent.v4, victim.v4)),
        ("an ARP announcement of the router's address", gratuitous),
        ("an ARP frame of nonsense", path.frame(ARP, &[7; 46])),
        ("IPv4 to everybody", path.frame(IPV4, &cry(Ipv4Addr::BROADCAST))),
        ("IPv4 to the subnet", path.frame(IPV4, &cry(Ipv4Addr::new(10, 79, 255, 255)))),
        (
            "IPv4 multicast",
            Path { to: [1, 0, 0x5e, 0, 0, 251], ..path }.frame(IPV4, &cry(Ipv4Addr::new(224, 0, 0, 251))),
        ),
        ("IPv6 multicast", nodes.frame(IPV6, &cry6)),
        ("an IGMP report", path.frame(IPV4, &ipv4(agent.v4, Ipv4Addr::new(224, 0, 0, 22), 2, &igmp))),
        ("an unknown Ethernet type", path.frame(0x88b5, b"hello, all of you")),
        ("straight to its neighbour", Path { to: victim.mac, ..path }.frame(IPV4, &cry(victim.v4))),
    ]
}

/// Pieces of packets, chains of headers and tunnels, all to the world.
fn pieces_and_tunnels(agent: &Node, world: &Node) -> Frames {
    let path = Path { from: agent.mac, to: agent.host_mac };
    let fragment = |word: [u8; 2], payload: &[u8]| {
        let mut packet = ipv4(agent.v4, world.v4, 17, payload);
        packet[6..8].copy_from_slice(&word);
        packet[10..12].fill(0);
        let sum = agentsec_tests::traffic::frames::checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        path.frame(IPV4, &packet)
    };
    let datagram = &udp4((agent.v4, 5), (world.v4, 9), &[0x5a; 32])[20..];
    let chain = |headers: usize| {
        let next = |at: usize| if at + 1 == headers { 17 } else { 60 };
        let mut payload: Vec<u8> = (0..headers).flat_map(|at| [next(at), 0, 1, 4, 0, 0, 0, 0]).collect();
        payload.extend(&udp6((agent.v6, 5), (world.v6, 9), b"out")[40..]);
        path.frame(IPV6, &ipv6(agent.v6, world.v6, 60, &payload))
    };
    let inner = path.frame(IPV4, &tcp4((agent.v4, 5), (Ipv4Addr::new(203, 0, 113, 9), 443), 2, b""));
    let vxlan = [&[8, 0, 0, 0, 0, 0, 7, 0][..], &inner].concat();
    let gre = [&[0, 0, 8, 0][..], &inner[14..]].concat();
    vec![
        ("a first fragment", fragment([0x20, 0], &datagram[..24])),
        ("one that overlaps it", fragment([0x20, 1], &datagram[8..32])),
        ("one that overlaps it at its end", fragment([0, 2], &datagram[16..])),
        ("a tiny first fragment", fragment([0x20, 0], &datagram[..8])),
        ("one extension header", chain(1)),
        ("nine extension headers", chain(9)),
        ("VXLAN", path.frame(IPV4, &udp4((agent.v4, 5), (world.v4, 4789), &vxlan))),
        ("GRE", path.frame(IPV4, &ipv4(agent.v4, world.v4, 47, &gre))),
        ("IP in IP", path.frame(IPV4, &ipv4(agent.v4, world.v4, 4, &inner[14..]))),
        ("an echo with a payload", path.frame(IPV4, &ipv4(agent.v4, world.v4, 1, &[8; 900]))),
    ]
}

/// What interfaces have received.
fn received(of: &[Counters]) -> Vec<u64> {
    of.iter().map(|counters| counters.rx_packets).collect()
}

/// Sends frames past the traffic control of the first agent and waits until the host's end has them.
fn send(scene: &Scene, frames: &Frames) -> Result<()> {
    let before = counters(scene.lab.host(), "agent-0")?;
    let socket = PacketSocket::open(&scene.lab.agent(0).namespace, "eth0", Way::Bypass)?;
    for (what, frame) in frames {
        socket.send(frame).with_context(|| (*what).to_owned())?;
    }
    let arrived = || Some((counters(scene.lab.host(), "agent-0").ok()? - before).rx_packets);
    wait::until("the frames at the host", LONG, || (arrived()? == frames.len() as u64).then_some(()))
}

/// The agent's endpoints, as `agentsec endpoints --json` tells them.
fn endpoints(scene: &Scene, id: &str) -> Result<Vec<Value>> {
    let told: Value = serde_json::from_str(&scene.daemon.cli_ok(&["endpoints", id, "--json"])?)?;
    Ok(told["endpoints"].as_array().context("a list of endpoints")?.clone())
}

#[test]
fn what_a_neighbour_says_to_everybody_reaches_nobody_while_it_is_open() -> Result<()> {
    let scene = Scene::around(Lab::bridged(3)?, &config(3))?;
    let [alice, bob, carol] = [0, 1, 2].map(|index| scene.lab.agent(index));
    let far = || -> Result<Vec<u64>> {
        let bridge = counters(scene.lab.host(), "br0")?;
        Ok(received(&[bob.counters()?, carol.counters()?, scene.lab.world().counters()?, bridge]))
    };
    let frames = frames_to_everybody(alice, bob);
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let before = far()?;
    send(&scene, &frames)?;
    let dropped = number(&scene.agent(0)?["outbound"]["dropped_packets"]);
    assert_eq!(dropped, frames.len() as u64, "each is dropped and counted");
    assert_eq!(far()?, before, "bob, carol, the world and the bridge hear nothing");
    // And it is the verdict that has held them: the same frames reach bob, every one, once it is CLOSED.
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    send(&scene, &frames)?;
    let heard = || Some(far().ok()?[0] - before[0] >= frames.len() as u64);
    wait::until("bob to hear all of it", LONG, || heard()?.then_some(()))?;
    assert_eq!(number(&scene.agent(0)?["outbound"]["dropped_packets"]), dropped);
    Ok(())
}

#[test]
fn pieces_and_tunnels_reach_nobody_while_it_is_open_and_are_its_own_while_closed() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let (alice, world) = (scene.lab.agent(0), scene.lab.world());
    let frames = pieces_and_tunnels(alice, world);
    let bytes: u64 = frames.iter().map(|(_, frame)| frame.len() as u64).sum();
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let before = world.counters()?;
    send(&scene, &frames)?;
    assert_eq!(world.counters()?, before);
    let held = scene.agent(0)?["outbound"].clone();
    let dropped = [&held["packets"], &held["dropped_packets"], &held["dropped_bytes"]].map(number);
    assert_eq!(dropped, [0, frames.len() as u64, bytes]);

    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    send(&scene, &frames)?;
    let passed = scene.agent(0)?["outbound"].clone();
    assert_eq!([&passed["packets"], &passed["bytes"]].map(number), [frames.len() as u64, bytes]);
    wait::until("the tunnels at the world", LONG, || {
        ((world.counters().ok()? - before).rx_packets >= 4).then_some(())
    })?;
    let all = endpoints(&scene, NAMES[0])?;
    let has = |protocol: &str, port: u16| {
        all.iter().any(|one| one["protocol"] == protocol && one["port"] == port && one["typical"] == false)
    };
    for (protocol, port) in [("udp", 9), ("udp", 0), ("udp", 4789), ("gre", 0), ("ipip", 0), ("icmp", 0)] {
        assert!(has(protocol, port), "{protocol}/{port} in {all:?}");
    }
    let of_inner = all.iter().filter(|one| one["remote"] == "203.0.113.9");
    assert_eq!(of_inner.count(), 0, "what is inside a tunnel is nobody's endpoint");
    Ok(())
}

#[test]
fn a_tunnel_through_the_resolver_or_echoes_is_volume_and_ends_at_the_limit() -> Result<()> {
    const LIMIT: u64 = 60_000;
    let limits = config(2).set("profiles.default.limits.max_volume", format!("{LIMIT}B"));
    let typical = vec![toml_rule("10.78.0.2", "udp", "53"), toml_rule("10.78.0.2", "icmp", "")];
    let scene = Scene::routed(2, &limits.set("profiles.default.typical", typical))?;
    let world = scene.lab.world();
    let _resolver = UdpReceiver::start(&world.namespace, (ANY4, 53), LONG)?;
    let before = world.counters()?;
    let plan = UdpPlan { datagrams: 1000, payload_bytes: 220, interval: Duration::ZERO, longest: LONG };
    udp::flood(&scene.lab.agent(0).namespace, scene.world(53), plan)?.wait();
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let out = (world.counters()? - before).rx_bytes;
    assert!(out <= LIMIT && out > LIMIT - 1000, "{out} bytes through the resolver");
    let told = endpoints(&scene, NAMES[0])?;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["protocol"], &told[0]["port"], &told[0]["typical"]),
        (&"udp".into(), &53.into(), &true.into(),)
    );
    assert_eq!(number(&told[0]["outbound"]["bytes"]), out, "all of it at the resolver's endpoint");

    let soon = Duration::from_millis(200);
    let report = ping(&scene.lab.agent(1).namespace, world.v4.into(), 40, 1200, soon)?;
    scene.daemon.wait_for_state(NAMES[1], "OPEN", LONG)?;
    // An echo and its reply are 1,242 bytes each.
    assert!((20..=24).contains(&report.round_trips.len()), "{} echoes", report.round_trips.len());
    let told = endpoints(&scene, NAMES[1])?;
    assert_eq!((told.len(), &told[0]["protocol"]), (1, &"icmp".into()), "{told:?}");
    let bob = scene.agent(1)?;
    assert!(number(&bob["outbound"]["bytes"]) + number(&bob["inbound"]["bytes"]) <= LIMIT, "{bob}");
    Ok(())
}

/// A rule of typical endpoints, as a table of the configuration.
fn toml_rule(to: &str, protocol: &str, ports: &str) -> toml::Table {
    let mut rule = toml::Table::new();
    for (key, value) in [("to", to), ("protocol", protocol), ("ports", ports)] {
        if !value.is_empty() {
            rule.insert(key.to_owned(), value.into());
        }
    }
    rule
}

#[test]
fn frames_of_an_af_xdp_socket_meet_the_same_verdict() -> Result<()> {
    const FRAMES: u64 = 100;
    let scene = Scene::routed(1, &config(1))?;
    let (alice, world) = (scene.lab.agent(0), scene.lab.world());
    let frame = Path { from: alice.mac, to: alice.host_mac }
        .frame(IPV4, &udp4((alice.v4, 5), (world.v4, 9), b"past the stack"));
    let _receiver = UdpReceiver::start(&world.namespace, (ANY4, 9), LONG)?;
    let mut socket = XskSocket::open(&alice.namespace, "eth0")?;
    let mut send = || -> Result<()> {
        let before = counters(scene.lab.host(), "agent-0")?;
        for _ in 0..FRAMES {
            socket.send(&frame)?;
        }
        let arrived = || Some((counters(scene.lab.host(), "agent-0").ok()? - before).rx_packets);
        wait::until("the frames at the host", LONG, || (arrived()? == FRAMES).then_some(()))
    };
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let before = world.counters()?;
    send()?;
    assert_eq!(world.counters()?, before);
    assert_eq!(number(&scene.agent(0)?["outbound"]["dropped_packets"]), FRAMES);
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    send()?;
    let out = &scene.agent(0)?["outbound"];
    assert_eq!(number(&out["packets"]), FRAMES);
    assert_eq!(number(&out["bytes"]), FRAMES * frame.len() as u64);
    Ok(())
}

#[test]
fn what_an_agent_says_to_itself_stays_in_its_namespace_and_no_address_of_loopback_leads_out() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let (alice, bob) = (scene.lab.agent(0), scene.lab.agent(1));
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let own = UdpReceiver::start(&alice.namespace, (ANY4, 7), LONG)?;
    let bobs = UdpReceiver::start(&bob.namespace, (ANY4, 7), LONG)?;
    let hosts = UdpReceiver::start(scene.lab.host(), (ANY4, 7), LONG)?;
    let before = counters(scene.lab.host(), "agent-0")?;
    scene::shoot(alice, at(7), 30)?;
    wait::until("its own datagrams", LONG, || (own.datagrams() == 30).then_some(()))?;
    assert_eq!(counters(scene.lab.host(), "agent-0")?, before, "nothing crosses its interface");
    assert_eq!(number(&scene.agent(0)?["outbound"]["dropped_packets"]), 0, "nor is any of it counted");
    assert_eq!((bobs.stop().datagrams, hosts.stop().datagrams), (0, 0), "bob's loopback is another one");
    Ok(())
}
