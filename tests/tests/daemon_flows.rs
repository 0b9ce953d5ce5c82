//! The lists of connections: read as a whole, bounded, and emptied of what is over.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use agentsec_tests::scene::{LONG, NAMES, Scene, config, number, passed};
use agentsec_tests::traffic::http::{HttpClient, HttpServer};
use agentsec_tests::traffic::udp::{UdpReceiver, connected};
use anyhow::{Context, Result};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Sends some datagrams from each of so many ports of an agent.
fn converse(scene: &Scene, index: usize, to: SocketAddr, ports: usize, datagrams: usize) -> Result<()> {
    for _ in 0..ports {
        let socket = connected(&scene.lab.agent(index).namespace, to)?;
        for _ in 0..datagrams {
            socket.send(&[7; 100])?;
        }
    }
    Ok(())
}

fn flows(scene: &Scene, index: usize) -> Result<u64> {
    Ok(number(&scene.agent(index)?["signals"]["flows"]))
}

/// Bytes and packets of all endpoints of an agent, outbound and inbound.
fn of_endpoints(scene: &Scene, index: usize) -> Result<[u64; 4]> {
    let told: Value = serde_json::from_str(&scene.daemon.cli_ok(&["endpoints", NAMES[index], "--json"])?)?;
    let endpoints = told["endpoints"].as_array().context("a list")?;
    let mut sum = [0; 4];
    for endpoint in endpoints {
        for (total, count) in sum.iter_mut().zip(passed(endpoint)) {
            *total += count;
        }
    }
    Ok(sum)
}

#[test]
fn endpoints_show_every_byte_of_more_connections_than_are_read_at_once() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    converse(&scene, 0, scene.world(receiver.address().port()), 3000, 3)?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(server.address().port());
    let mut client = HttpClient::new(&scene.lab.agent(0).namespace, to).timeout(LONG);
    assert_eq!(client.get("/bytes/100000")?.body.len(), 100_000);
    let agent = scene.agent(0)?;
    // The system gives some ports more than once.
    let followed = number(&agent["signals"]["flows"]);
    assert!((2100..=3001).contains(&followed), "{followed}");
    assert_eq!(of_endpoints(&scene, 0)?, passed(&agent));
    Ok(())
}

#[test]
fn connections_that_find_no_room_pass_and_are_told() -> Result<()> {
    let scene = Scene::routed(2, &config(2).set("profiles.default.max_flows", 100))?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(receiver.address().port());
    converse(&scene, 0, to, 400, 1)?;
    converse(&scene, 1, to, 10, 1)?;
    assert_eq!((flows(&scene, 0)?, flows(&scene, 1)?), (100, 10), "each has a list of its own");
    let lost = number(&scene.agent(0)?["lost"]["flows"]);
    assert!(lost > 200, "{lost}");
    let loss = scene.wait_for_event("the loss", |event| event["event_type"] == "LOSS")?;
    assert_eq!(
        (&loss["agent_id"], number(&loss["event_data"]["packets_without_flow"]) > 0),
        (&NAMES[0].into(), true)
    );
    assert_eq!(passed(&scene.agent(0)?)[1], 400, "all of them passed");
    Ok(())
}

#[test]
fn a_list_that_presses_forgets_connections_that_are_over() -> Result<()> {
    let scene = Scene::routed(1, &config(1).set("profiles.default.max_flows", 10))?;
    // Nobody is there, and nobody says so.
    let nowhere: SocketAddr = "192.0.2.77:9".parse()?;
    for _ in 0..2 {
        let refused = scene
            .lab
            .agent(0)
            .namespace
            .run(|| TcpStream::connect_timeout(&nowhere, Duration::from_millis(100)));
        assert!(refused.is_err());
    }
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(receiver.address().port());
    // Each counts on its connection from the second one on, of which nobody tells the endpoint in time.
    converse(&scene, 0, to, 6, 3)?;
    assert_eq!(flows(&scene, 0)?, 8);
    let forgotten = |status: &Value| status["agents"][0]["signals"]["flows"] == 0;
    scene.daemon.wait_until("an empty list", LONG, forgotten)?;
    let sent = |counts: [u64; 4]| [counts[0], counts[1]];
    let forgotten = sent(of_endpoints(&scene, 0)?);
    assert_eq!(forgotten, sent(passed(&scene.agent(0)?)), "what they sent is not");
    // The counts are even: the whole list is free again.
    converse(&scene, 0, to, 20, 1)?;
    assert_eq!(flows(&scene, 0)?, 10);
    Ok(())
}

#[test]
fn who_takes_the_place_of_another_has_an_empty_list() -> Result<()> {
    let mut scene = Scene::routed(2, &config(1))?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(receiver.address().port());
    converse(&scene, 0, to, 2000, 2)?;
    let slot = scene.agent(0)?["slot"].clone();
    scene.daemon.set_config(&config(0))?;
    scene.daemon.cli_ok(&["reload"])?;
    scene.daemon.set_config(&config(0).agent(NAMES[1], "agent-1"))?;
    scene.daemon.cli_ok(&["reload"])?;
    let attached = |status: &Value| status["agents"][0]["attachments"][0]["status"] == "attached";
    scene.daemon.wait_until("the new agent's attachment", LONG, attached)?;
    assert_eq!((scene.agent(1)?["slot"].clone(), flows(&scene, 1)?), (slot, 0));
    converse(&scene, 1, to, 5, 2)?;
    assert_eq!(flows(&scene, 1)?, 5);
    assert_eq!(of_endpoints(&scene, 1)?[1], 10, "and owes nothing to another's endpoints");
    Ok(())
}
