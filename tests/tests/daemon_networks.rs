//! Around an agent's interface: second ways into its namespace are the agent's as well, ways past us are told, and
//! what two attachments see is counted at one of them.

use agentsec_tests::cgroup::Cgroup;
use agentsec_tests::lab::{Lab, Node};
use agentsec_tests::link::{End, Noise, ip, veth_pairs};
use agentsec_tests::netns::Namespace;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, number};
use agentsec_tests::traffic::packet::{PacketSocket, Way};
use agentsec_tests::traffic::udp::UdpReceiver;
use anyhow::{Context, Result};
use serde_json::Value;
use std::net::SocketAddr;

fn end<'a>(namespace: &'a Namespace, name: &str, last: u8) -> End<'a> {
    let mac = [2, 0, 0, 0, 1, last];
    End { namespace, name: name.to_owned(), mac, addresses: Vec::new(), noise: Noise::Quiet }
}

/// Sends raw frames through an interface of a namespace.
fn send(from: &Namespace, interface: &str, count: u64) -> Result<()> {
    let socket = PacketSocket::open(from, interface, Way::Bypass)?;
    for _ in 0..count {
        socket.send(&[0xff; 60])?;
    }
    Ok(())
}

fn attachments(agent: &Value) -> Vec<String> {
    let all = agent["attachments"].as_array().into_iter().flatten();
    let attached = all.filter(|attachment| attachment["status"] == "attached");
    attached.filter_map(|attachment| Some(attachment["interface"].as_str()?.to_owned())).collect()
}

/// Waits until an interface is among those of the first agent.
fn wait_covered(scene: &Scene, interface: &str) -> Result<()> {
    scene.daemon.wait_until(&format!("{interface} is alice's"), LONG, |status| {
        attachments(&status["agents"][0]).contains(&interface.to_owned())
    })?;
    Ok(())
}

fn alice(lab: &Lab) -> &Node {
    lab.agent(0)
}

#[test]
fn a_second_pair_into_an_agents_namespace_is_that_agents_whatever_it_is_called() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    let (host, alice) = (scene.lab.host(), alice(&scene.lab));
    let bob_before = scene.agent(1)?;
    veth_pairs(&[(end(host, "backdoor", 1), end(&alice.namespace, "eth7", 2))])?;
    wait_covered(&scene, "backdoor")?;
    let before = number(&scene.agent(0)?["outbound"]["packets"]);
    send(&alice.namespace, "eth7", 9)?;
    scene.daemon.wait_until("its frames are alice's", LONG, |status| {
        number(&status["agents"][0]["outbound"]["packets"]) == before + 9
    })?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    send(&alice.namespace, "eth7", 5)?;
    scene.daemon.wait_until("and are dropped with hers", LONG, |status| {
        number(&status["agents"][0]["outbound"]["dropped_packets"]) >= 5
    })?;
    assert_eq!(attachments(&scene.agent(1)?), attachments(&bob_before), "bob has what he had");
    Ok(())
}

#[test]
fn a_second_pair_that_was_there_first_or_is_renamed_is_the_agents_too() -> Result<()> {
    let lab = Lab::routed(1)?;
    veth_pairs(&[(end(lab.host(), "early", 1), end(&alice(&lab).namespace, "eth7", 2))])?;
    let scene = Scene::around(lab, &config(1))?;
    wait_covered(&scene, "early")?;
    ip(scene.lab.host(), "link set early name other")?;
    wait_covered(&scene, "other")?;
    Ok(())
}

#[test]
fn a_way_into_a_third_namespace_is_told_as_uncovered() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let third = Namespace::new("third")?;
    // A namespace is known by its processes.
    let root = Cgroup::new("third")?;
    let to = format!("{}:9", scene.lab.world().v4);
    let inhabitant = root.traffic(Some(&alice(&scene.lab).namespace), &["hold", "udp", "--to", &to])?;
    inhabitant.ready()?;
    veth_pairs(&[(end(&alice(&scene.lab).namespace, "sideways", 1), end(&third, "eth0", 2))])?;
    let names_it = |agent: &Value| {
        let ways = agent["uncovered"].as_array().into_iter().flatten();
        ways.filter_map(Value::as_str).any(|way| way.contains("sideways") && way.contains("third namespace"))
    };
    let told = |status: &Value| names_it(&status["agents"][0]);
    // Nothing of the host's has changed by it, and by the clock it would take half a minute.
    ip(scene.lab.host(), "link set world0 alias rung")?;
    scene.daemon.wait_until("the way out is told", LONG, told)?;
    scene.wait_for_event("an alert", |event| {
        event["event_type"] == "ALERT"
            && event["agent_id"] == NAMES[0]
            && event["event_data"]["what"] == "uncovered_interface"
    })?;
    let text = scene.daemon.cli_ok(&["status"])?;
    assert!(text.contains("sideways"), "{text}");
    ip(&alice(&scene.lab).namespace, "link del sideways")?;
    ip(scene.lab.host(), "link set world0 alias again")?;
    scene.daemon.wait_until("and no more once it is gone", LONG, |status| !told(status))?;
    Ok(())
}

#[test]
fn a_packet_that_an_interface_and_a_cgroup_claim_is_the_interfaces_once() -> Result<()> {
    let root = Cgroup::new("both")?;
    let inner = root.child("carol")?;
    let config = config(1)
        .set("daemon.cgroup_root", root.path())
        .agent("carol", "unused0")
        .of_agent("cgroup", inner.path());
    let lab = Lab::routed(1)?;
    let node = alice(&lab).clone();
    // A container's first process: the namespace is known by it before anything is sent.
    let first =
        inner.traffic(Some(&node.namespace), &["hold", "udp", "--to", &format!("{}:9", lab.world().v4)])?;
    first.ready()?;
    let scene = Scene::around(lab, &config)?;
    let status = scene.daemon.wait_until("carol's cgroup is attached", LONG, |status| {
        status["agents"][1]["attachments"].as_array().is_some_and(|all| {
            all.iter().any(|attachment| attachment["kind"] == "cgroup" && attachment["status"] == "attached")
        })
    })?;
    let before = number(&status["agents"][0]["outbound"]["packets"]);
    let any = SocketAddr::from(([0, 0, 0, 0], 9));
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, any, LONG)?;
    let to = format!("{}:9", scene.lab.world().v4);
    let sent = inner.traffic(Some(&node.namespace), &["udp-client", "--to", &to, "--datagrams", "20"])?;
    sent.report()?;
    scene.daemon.wait_until("alice's interface has counted them", LONG, |status| {
        number(&status["agents"][0]["outbound"]["packets"]) == before + 20
    })?;
    let carol = scene.daemon.agent("carol").context("carol is known")?;
    assert_eq!(number(&carol["outbound"]["packets"]), 0, "counted at one of the two");
    // Her processes in the host's own namespace are hers.
    let here = inner.traffic(Some(scene.lab.host()), &["udp-client", "--to", &to, "--datagrams", "7"])?;
    here.report()?;
    scene
        .daemon
        .wait_until("carol's own", LONG, |status| number(&status["agents"][1]["outbound"]["packets"]) == 7)?;
    drop(first);
    assert_eq!(receiver.stop().datagrams, 27);
    Ok(())
}
