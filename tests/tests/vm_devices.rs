//! Devices that many a host's kernel does not have: real VLANs, and interfaces that an agent makes on top of its own.
//!
//! The ignored ones are run by `cargo xtask vm`, whose guests have all of them.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};

use agentsec_tests::lab::{Lab, Node, Plan};
use agentsec_tests::link::{self, Counters, Noise, ip, ip_batch, mac_text};
use agentsec_tests::netns::Namespace;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, number};
use agentsec_tests::traffic::capture::{Capture, Captured, Keep};
use agentsec_tests::traffic::frames::{IPV4, Path, udp4};
use agentsec_tests::traffic::packet::PacketSocket;
use agentsec_tests::traffic::udp::{UdpPlan, UdpReceiver, numbered};
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The host's address behind a tag, or for an interface that the agent has made; and whom it talks to there.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const CHILD: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const PORT: u16 = 4242;
const DATAGRAMS: u64 = 40;

/// Sends numbered datagrams to the host's address.
fn send(from: &Namespace, datagrams: u64) -> Result<()> {
    let plan = UdpPlan { datagrams, payload_bytes: 100, interval: std::time::Duration::ZERO, longest: LONG };
    let sent = numbered(from, SocketAddr::from((HOST, PORT)), plan)?.wait();
    ensure!(sent.datagrams == datagrams, "{sent:?}");
    Ok(())
}

/// Packets and bytes that passed and packets that were dropped, outbound.
fn outbound(agent: &Value) -> [u64; 3] {
    ["packets", "bytes", "dropped_packets"].map(|name| number(&agent["outbound"][name]))
}

/// One thing that an agent sent: what the host's interface counted, and what a capture there has kept.
struct Seen {
    link: Counters,
    captured: Captured,
}

/// Sends datagrams that must arrive, and then some that must not, since the agent is contained.
fn pass_and_contain(scene: &Scene, from: &Namespace) -> Result<Seen> {
    let host = scene.lab.host();
    let receiver = UdpReceiver::start(host, (HOST, PORT), LONG)?;
    let before = link::counters(host, "agent-0")?;
    let capture = Capture::start(host, "agent-0", LONG, Keep { frames: 1, bytes: 64 })?;
    send(from, DATAGRAMS)?;
    wait::until("all datagrams", LONG, || (receiver.datagrams() == DATAGRAMS).then_some(()))?;
    let link = link::counters(host, "agent-0")? - before;
    let captured = capture.stop()?;
    ensure!(captured.lost == 0, "the capture missed frames");
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    send(from, DATAGRAMS)?;
    scene.daemon.wait_until("its drops", LONG, |status| outbound(&status["agents"][0])[2] == DATAGRAMS)?;
    ensure!(receiver.stop().datagrams == DATAGRAMS, "a contained agent's datagrams arrived");
    Ok(Seen { link, captured })
}

/// Gives an interface its address and the other side's, and brings it up; it says nothing by itself.
fn bring_up(namespace: &Namespace, interface: &str, own: Ipv4Addr, other: (Ipv4Addr, [u8; 6])) -> Result<()> {
    ip_batch(
        namespace,
        &format!(
            "link set dev {interface} arp off multicast off up\naddress add {own}/24 dev {interface}\n\
             neighbour replace {} lladdr {} dev {interface} nud permanent\n",
            other.0,
            mac_text(other.1)
        ),
    )
}

/// Puts VLAN devices with these tags, the outer one first, on both ends of an agent's link.
fn tag_both_ends(lab: &Lab, tags: &[(&str, u16)]) -> Result<()> {
    let Node { namespace, mac, host_mac, .. } = lab.agent(0);
    let sides = [(namespace, "eth0", CHILD, (HOST, *host_mac)), (lab.host(), "agent-0", HOST, (CHILD, *mac))];
    for (namespace, interface, own, other) in sides {
        let mut below = interface.to_owned();
        for (level, (protocol, id)) in tags.iter().enumerate() {
            let name = format!("tag{level}");
            let add = format!("link add link {below} name {name} type vlan protocol {protocol} id {id}");
            ip(namespace, &add).context("a VLAN device cannot be made: is 8021q in this kernel?")?;
            ip(namespace, &format!("link set dev {name} arp off multicast off up"))?;
            below = name;
        }
        bring_up(namespace, &below, own, other)?;
    }
    Ok(())
}

/// Whether the agent's interface takes the tag beside the packet instead of in it.
fn set_tag_offload(agent: &Node, on: bool) -> Result<()> {
    let word = if on { "on" } else { "off" };
    let mut ethtool = agent.namespace.command("ethtool");
    ethtool.args(["-K", "eth0", "txvlan", word, "tx-vlan-stag-hw-insert", word]);
    let output = ethtool.output().context("starting ethtool")?;
    ensure!(output.status.success(), "ethtool: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
#[ignore = "needs 8021q, run by cargo xtask vm"]
fn tagged_frames_of_real_devices_are_counted_to_the_byte_and_dropped_while_open() -> Result<()> {
    const SINGLE: &[(&str, u16)] = &[("802.1Q", 7)];
    const DOUBLE: &[(&str, u16)] = &[("802.1ad", 9), ("802.1Q", 7)];
    for (tags, beside) in [(SINGLE, false), (SINGLE, true), (DOUBLE, true)] {
        let what =
            format!("{tags:?}, the outer one {}", if beside { "beside the packet" } else { "in the frame" });
        let lab = Lab::routed(1)?;
        set_tag_offload(lab.agent(0), beside)?;
        tag_both_ends(&lab, tags)?;
        let scene = Scene::around(lab, &config(1))?;
        let from = scene.lab.agent(0).namespace.clone();
        let seen = pass_and_contain(&scene, &from).with_context(|| what.clone())?;
        let tag = seen.captured.frames[0].vlan_tci.map(|tci| tci & 0xfff);
        assert_eq!(tag, Some(tags[0].1), "{what}: the tag is beside the packet where we look");
        let agent = scene.agent(0)?;
        let [packets, bytes, _] = outbound(&agent);
        // The interface does not count a tag that it never had in the frame; a wire would carry it.
        let untold = if beside { 4 * DATAGRAMS } else { 0 };
        let expected = (seen.link.rx_packets, seen.link.rx_bytes + untold);
        assert_eq!((packets, bytes), expected, "{what}: agentsec against the interface");
        let captured = (seen.captured.arriving.frames, seen.captured.arriving.bytes);
        assert_eq!((packets, bytes), captured, "{what}: agentsec against a capture");
        assert_eq!(number(&agent["classes"]["ipv4"]), packets, "{what}: read through the tags: {agent}");
    }
    Ok(())
}

/// Makes an interface on top of the agent's, in a namespace of its own, as root in a container can.
fn child_of(lab: &Lab, kind: &str) -> Result<Namespace> {
    let agent = lab.agent(0);
    let namespace = Namespace::new("child")?;
    link::prepare(&namespace, Noise::Quiet)?;
    let add = format!("link add link eth0 name child0 netns {} type {kind}", namespace.path());
    ip(&agent.namespace, &add).with_context(|| format!("no {kind} can be made: is it in this kernel?"))?;
    bring_up(&namespace, "child0", CHILD, (HOST, agent.host_mac))?;
    ip(lab.host(), &format!("address add {HOST}/24 dev agent-0"))?;
    Ok(namespace)
}

#[test]
#[ignore = "needs macvlan and ipvlan, run by cargo xtask vm"]
fn an_interface_that_an_agent_makes_on_its_own_does_not_escape() -> Result<()> {
    for (kind, has_own_mac) in [("macvlan mode private", true), ("ipvlan mode l2", false)] {
        let lab = Lab::routed(1)?;
        let child = child_of(&lab, kind)?;
        let scene = Scene::around(lab, &config(1))?;
        let seen = pass_and_contain(&scene, &child).with_context(|| kind.to_owned())?;
        let frame = &seen.captured.frames[0].bytes;
        assert_eq!(frame[6..12] != scene.lab.agent(0).mac, has_own_mac, "{kind}: whose Ethernet address");
        assert_eq!(frame[26..30], CHILD.octets(), "{kind}: an address that nobody gave to the agent");
        let [packets, bytes, _] = outbound(&scene.agent(0)?);
        assert_eq!(
            (packets, bytes),
            (seen.link.rx_packets, seen.link.rx_bytes),
            "{kind}: counted as the agent's"
        );
    }
    Ok(())
}

#[test]
fn a_packet_whose_headers_lie_in_fragments_of_the_buffer_is_read() -> Result<()> {
    let lab = Plan::new(1).build()?;
    ip(lab.host(), "link set dev agent-0 mtu 9000")?;
    ip(&lab.agent(0).namespace, "link set dev eth0 mtu 9000")?;
    let scene = Scene::around(lab, &config(1))?;
    let (agent, host) = (scene.lab.agent(0), scene.lab.host());
    let receiver = UdpReceiver::start(host, (agent.host_v4, PORT), LONG)?;
    let packet = udp4((agent.v4, 1000), (agent.host_v4, PORT), &[7; 7000]);
    let frame = Path { from: agent.mac, to: agent.host_mac }.frame(IPV4, &packet);
    let before = link::counters(host, "agent-0")?;
    let socket = PacketSocket::scattering(&agent.namespace, "eth0")?;
    for _ in 0..DATAGRAMS {
        socket.send(&frame)?;
    }
    wait::until("all datagrams", LONG, || (receiver.datagrams() == DATAGRAMS).then_some(()))?;
    let link = link::counters(host, "agent-0")? - before;
    let told = scene.agent(0)?;
    let [packets, bytes, _] = outbound(&told);
    assert_eq!((packets, bytes), (link.rx_packets, link.rx_bytes));
    assert_eq!(number(&told["classes"]["malformed"]), 0, "{told}");
    let endpoints = scene.daemon.cli_ok(&["endpoints", NAMES[0], "--json"])?;
    let endpoints: Value = serde_json::from_str(&endpoints)?;
    let first = &endpoints["endpoints"][0];
    assert_eq!((&first["port"], &first["protocol"]), (&PORT.into(), &"udp".into()), "{endpoints}");
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    socket.send(&frame)?;
    scene.daemon.wait_until("its drop", LONG, |status| outbound(&status["agents"][0])[2] == 1)?;
    assert_eq!(receiver.stop().datagrams, DATAGRAMS);
    Ok(())
}

/// So that a guest without the devices fails here and says why, and not in the midst of something else.
#[test]
#[ignore = "needs a guest, run by cargo xtask vm"]
fn the_guest_is_what_it_says() -> Result<()> {
    let modules = std::fs::read_to_string("/proc/modules").context("no modules at all")?;
    for wanted in ["8021q", "ipvlan", "macvlan", "veth", "cls_bpf", "sch_ingress"] {
        ensure!(
            modules.lines().any(|line| line.starts_with(&format!("{wanted} "))),
            "{wanted} is not loaded"
        );
    }
    File::open("/sys/kernel/btf/vmlinux").context("this kernel does not tell its types")?;
    Ok(())
}
