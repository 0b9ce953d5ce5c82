//! A firewall on the host beside us: each does its own work, and the two agree on what passed.
//!
//! On an interface of the host, our program sees an arriving packet before nftables does, and a departing one after
//! it. Programs of others on our own hooks are in `daemon_pins.rs`.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Output, Stdio};

use agentsec_tests::netns::Namespace;
use agentsec_tests::scene::{self, LONG, NAMES, Scene, config, number};
use agentsec_tests::traffic::udp::UdpReceiver;
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The port that the firewall does not let through.
const FORBIDDEN: u16 = 4444;

/// Counters on both sides of the agent's interface, and a filter where the host forwards.
const RULES: &str = "
table netdev beside {
    counter arriving { }
    counter departing { }
    chain ingress {
        type filter hook ingress device \"agent-0\" priority 0; policy accept;
        counter name \"arriving\"
    }
    chain egress {
        type filter hook egress device \"agent-0\" priority 0; policy accept;
        counter name \"departing\"
    }
}
table inet firewall {
    counter forwarded { }
    counter refused { }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname \"agent-0\" counter name \"forwarded\"
        iifname \"agent-0\" udp dport 4444 counter name \"refused\" drop
    }
}
";

fn nft(host: &Namespace, arguments: &[&str], rules: &str) -> Result<String> {
    let mut command = host.command("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting nft (the package nftables)")?;
    child.stdin.take().context("a pipe")?.write_all(rules.as_bytes())?;
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    ensure!(status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    Ok(String::from_utf8(stdout)?)
}

/// Packets and bytes of one of the firewall's counters.
fn counter(host: &Namespace, name: &str) -> Result<[u64; 2]> {
    let told: Value = serde_json::from_str(&nft(host, &["-j", "list", "counters"], "")?)?;
    let all = told["nftables"].as_array().context("a list")?;
    let found = all.iter().map(|one| &one["counter"]).find(|one| one["name"] == name);
    let found = found.with_context(|| format!("no counter {name} in {told}"))?;
    Ok([&found["packets"], &found["bytes"]].map(number))
}

/// A lab with two agents, a firewall and a daemon.
fn scene() -> Result<Scene> {
    let scene = Scene::routed(2, &config(2))?;
    nft(scene.lab.host(), &["-f", "-"], RULES)?;
    Ok(scene)
}

/// Packets of an agent that we passed and dropped in one direction.
fn ours(scene: &Scene, direction: &str) -> Result<[u64; 2]> {
    let counted = scene.agent(0)?[direction].clone();
    Ok([&counted["packets"], &counted["dropped_packets"]].map(number))
}

#[test]
fn a_firewall_counts_exactly_what_passed_us_and_nothing_of_an_open_agent() -> Result<()> {
    let scene = scene()?;
    let (host, alice) = (scene.lab.host(), scene.lab.agent(0));
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    scene.shoot(0, 9, 200)?;
    wait::until("all datagrams", LONG, || (receiver.datagrams() == 200).then_some(()))?;
    let view = scene.agent(0)?["outbound"].clone();
    assert_eq!(number(&view["packets"]), 200);
    let [packets, bytes] = counter(host, "arriving")?;
    // What nftables calls a packet's length begins behind the Ethernet header.
    assert_eq!((packets, bytes + 14 * packets), (200, number(&view["bytes"])));
    assert_eq!(counter(host, "forwarded")?, [packets, bytes]);

    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    scene.shoot(0, 9, 150)?;
    scene
        .daemon
        .wait_until("the drops", LONG, |status| status["agents"][0]["outbound"]["dropped_packets"] == 150)?;
    assert_eq!(counter(host, "arriving")?, [packets, bytes], "nothing of it comes to the firewall");
    assert_eq!(counter(host, "forwarded")?, [packets, bytes]);
    // What is sent to the agent meets the firewall first and then us.
    let received = alice.counters()?.rx_packets;
    assert_eq!(counter(host, "departing")?, [0, 0]);
    scene::shoot(scene.lab.world(), SocketAddr::new(alice.v4.into(), 9), 40)?;
    scene.daemon.wait_until("the drops inwards", LONG, |status| {
        status["agents"][0]["inbound"]["dropped_packets"] == 40
    })?;
    assert_eq!(counter(host, "departing")?[0], 40);
    assert_eq!(alice.counters()?.rx_packets, received);
    assert_eq!(receiver.stop().datagrams, 200);
    Ok(())
}

#[test]
fn what_a_firewall_drops_stays_dropped_whatever_we_say_and_its_rules_outlive_us() -> Result<()> {
    let mut scene = scene()?;
    let host = scene.lab.host().clone();
    let rules = || nft(&host, &["-s", "list", "ruleset"], "");
    let before = rules()?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    let forbidden = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, FORBIDDEN), LONG)?;
    let mut refused = 0;
    let mut passed = 0;
    let mut dropped = 0;
    for is_open in [false, true, false] {
        let verb: &[&str] = match is_open {
            true => &["quarantine", NAMES[0], "--reason", "test"],
            false => &["release", NAMES[0], "--force"],
        };
        scene.daemon.cli_ok(verb)?;
        scene.shoot(0, FORBIDDEN, 30)?;
        scene.shoot(0, 9, 20)?;
        if is_open {
            dropped += 50;
        } else {
            (refused, passed) = (refused + 30, passed + 20);
        }
        // We count before it refuses.
        let agreed = || {
            let here = ours(&scene, "outbound").ok()? == [refused + passed, dropped];
            let there = counter(&host, "refused").ok()?[0] == refused && receiver.datagrams() == passed;
            (here && there).then_some(())
        };
        wait::until("every datagram where it ends", LONG, agreed)?;
    }
    assert_eq!(forbidden.stop().datagrams, 0, "our passing is not its accepting");
    scene.daemon.terminate()?;
    scene.daemon.cli_ok(&["unload"])?;
    assert_eq!(rules()?, before, "the rules are as they were");
    scene.shoot(0, FORBIDDEN, 30)?;
    wait::until("its own drops", LONG, || {
        (counter(&host, "refused").ok()?[0] == refused + 30).then_some(())
    })?;
    Ok(())
}
