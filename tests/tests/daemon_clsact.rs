//! Attaching by clsact filters, as on kernels before 6.6; newer ones are asked to do the same.

use std::net::{IpAddr, Ipv4Addr};

use agentsec_tests::daemon::Launch;
use agentsec_tests::lab::Lab;
use agentsec_tests::netns::Namespace;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, number};
use agentsec_tests::traffic::http::HttpServer;
use agentsec_tests::traffic::udp::{UdpPlan, UdpReceiver, numbered};
use agentsec_tests::{link, wait};
use anyhow::{Context, Result, ensure};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A daemon that attaches by filters.
fn scene(lab: Lab, agents: usize) -> Result<Scene> {
    let launch = Launch::new(lab.host(), &config(agents)).environment("AGENTSEC_ATTACH", "clsact");
    Ok(Scene { daemon: launch.start()?, lab })
}

/// `tc ARGUMENTS`, which must succeed.
fn tc(host: &Namespace, arguments: &str) -> Result<String> {
    let output = host.command("tc").args(arguments.split(' ')).output().context("starting tc (iproute2)")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tc {arguments}: {}", error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Our programs on the two sides of `agent-0`.
fn filters(host: &Namespace) -> Result<[bool; 2]> {
    let has = |side: &str, program: &str| -> Result<bool> {
        Ok(tc(host, &format!("filter show dev agent-0 {side}"))?.contains(program))
    };
    Ok([has("ingress", "agentsec_out")?, has("egress", "agentsec_in")?])
}

/// Whether the interface has a clsact qdisc.
fn has_qdisc(host: &Namespace) -> Result<bool> {
    Ok(tc(host, "qdisc show dev agent-0")?.contains("clsact"))
}

/// A classic program of somebody else that sees everything and lets it pass.
const FOREIGN: [&str; 10] =
    ["filter", "add", "dev", "agent-0", "ingress", "prio", "7", "bpf", "bytecode", "1,6 0 0 4294967295"];

fn add_foreign_filter(host: &Namespace) -> Result<()> {
    let output = host.command("tc").args(FOREIGN).output().context("starting tc (iproute2)")?;
    ensure!(output.status.success(), "a foreign filter: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn has_foreign_filter(host: &Namespace) -> Result<bool> {
    Ok(tc(host, "filter show dev agent-0 ingress")?.contains("pref 7 "))
}

#[test]
fn what_passes_is_counted_to_the_byte_and_status_names_the_hook() -> Result<()> {
    let scene = scene(Lab::routed(1)?, 1)?;
    let host = scene.lab.host();
    assert_eq!(filters(host)?, [true, true]);
    assert_eq!(scene.agent(0)?["attachments"][0]["hook"], "clsact");
    let before = link::counters(host, "agent-0")?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    assert!(scene.is_served(0, &server));
    scene.lab.settle()?;
    let link = link::counters(host, "agent-0")? - before;
    let agent = scene.agent(0)?;
    let counted = |way: &str| [&agent[way]["packets"], &agent[way]["bytes"]].map(number);
    assert_eq!(counted("outbound"), [link.rx_packets, link.rx_bytes]);
    assert_eq!(counted("inbound"), [link.tx_packets, link.tx_bytes]);
    Ok(())
}

#[test]
fn no_packet_is_lost_or_uncounted_when_the_next_daemon_takes_the_filters_over() -> Result<()> {
    const DATAGRAMS: u64 = 3000;
    let mut scene = scene(Lab::routed(1)?, 1)?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    let to = scene.world(9);
    let plan = UdpPlan {
        datagrams: DATAGRAMS,
        payload_bytes: 100,
        interval: std::time::Duration::from_micros(500),
        longest: LONG,
    };
    let sender = numbered(&scene.lab.agent(0).namespace, to, plan)?;
    while !sender.is_finished() {
        scene.daemon.kill9()?;
        scene.daemon.restart()?;
    }
    assert_eq!(sender.wait().datagrams, DATAGRAMS);
    wait::until("all datagrams", LONG, || (receiver.datagrams() == DATAGRAMS).then_some(()))?;
    assert_eq!(number(&scene.agent(0)?["outbound"]["packets"]), DATAGRAMS);
    Ok(())
}

#[test]
fn a_contained_agent_stays_so_without_a_daemon() -> Result<()> {
    let mut scene = scene(Lab::routed(1)?, 1)?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    scene.daemon.kill9()?;
    let world = scene.lab.world().counters()?;
    scene.shoot(0, 9, 50)?;
    assert_eq!(scene.lab.world().counters()?, world);
    scene.daemon.restart()?;
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    assert!(number(&scene.agent(0)?["outbound"]["dropped_packets"]) >= 50);
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    assert!(scene.is_served(0, &server));
    Ok(())
}

#[test]
fn a_filter_that_somebody_takes_off_is_put_back_and_told() -> Result<()> {
    let mut scene = scene(Lab::routed(1)?, 1)?;
    let host = scene.lab.host().clone();
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let alerts = |scene: &Scene| -> Result<usize> {
        let events = scene.daemon.events()?;
        let ours = |event: &&serde_json::Value| event["event_data"]["alert"] == "filter_removed";
        Ok(events.iter().filter(ours).count())
    };
    let removals =
        ["filter del dev agent-0 ingress", "filter del dev agent-0 egress", "qdisc del dev agent-0 clsact"];
    for (round, removal) in removals.into_iter().enumerate() {
        tc(&host, removal)?;
        wait::until("the filters", LONG, || (filters(&host).ok()? == [true; 2]).then_some(()))
            .with_context(|| format!("{removal}\n{}", scene.daemon.said()))?;
        wait::until("its event", LONG, || (alerts(&scene).ok()? > round).then_some(()))
            .with_context(|| removal.to_owned())?;
        let world = scene.lab.world().counters()?;
        scene.shoot(0, 9, 20)?;
        assert_eq!(scene.lab.world().counters()?, world, "{removal}: it holds again");
    }
    // Also what is taken off while nobody looks.
    scene.daemon.kill9()?;
    tc(&host, "qdisc del dev agent-0 clsact")?;
    let before = alerts(&scene)?;
    scene.daemon.restart()?;
    assert_eq!(filters(&host)?, [true; 2]);
    wait::until("its event", LONG, || (alerts(&scene).ok()? > before).then_some(()))?;
    assert_eq!(scene.agent(0)?["state"], "OPEN");
    Ok(())
}

#[test]
fn unload_takes_off_what_is_ours_and_leaves_what_is_not() -> Result<()> {
    for foreign in [false, true] {
        let lab = Lab::routed(1)?;
        let host = lab.host().clone();
        if foreign {
            tc(&host, "qdisc add dev agent-0 clsact")?;
            add_foreign_filter(&host)?;
        }
        let mut scene = scene(lab, 1)?;
        scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
        scene.daemon.kill9()?;
        scene.daemon.cli_ok(&["unload"])?;
        assert_eq!(filters(&host)?, [false, false]);
        assert_eq!((has_qdisc(&host)?, has_foreign_filter(&host)?), (foreign, foreign), "theirs: {foreign}");
        assert!(!scene.daemon.paths().pins().exists());
        let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
        assert!(scene.is_served(0, &server), "nothing holds it any more");
    }
    Ok(())
}

#[test]
fn filters_of_others_see_what_passes_and_nothing_of_a_contained_agent() -> Result<()> {
    let lab = Lab::routed(1)?;
    let host = lab.host().clone();
    tc(&host, "qdisc add dev agent-0 clsact")?;
    add_foreign_filter(&host)?;
    let scene = scene(lab, 1)?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    assert!(scene.is_served(0, &server));
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    assert!(!scene.is_served(0, &server), "we come before it");
    assert!(has_foreign_filter(&host)?);
    Ok(())
}
