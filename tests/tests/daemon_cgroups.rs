//! Agents that are processes: what their sockets send and receive is counted and contained, on loopback too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::cgroup::scene::{CgroupScene, DATAGRAM, Shot};
use agentsec_tests::link::{ip, set_offloads};
use agentsec_tests::scene::{LONG, NAMES, is_trip, number, passed};
use agentsec_tests::traffic::capture::{Capture, Keep};
use agentsec_tests::traffic::http::{HttpClient, HttpServer};
use agentsec_tests::traffic::udp::{self, UdpPlan};
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// What the loopback interface's frames have before their packet.
const ETHERNET: u64 = 14;

/// TCP and UDP from the first agent to the second on this address; all of it must arrive.
fn talk(scene: &CgroupScene, on: &str) -> Result<()> {
    let [alice, bob] = [0, 1].map(|index| &scene.agents[index]);
    let listen = format!("{on}:0");
    let server = scene.traffic(bob, &["tcp-server", "--listen", &listen, "--connections", "2"])?;
    let to = server.ready()?.to_string();
    for _ in 0..2 {
        let sent = scene.traffic(alice, &["tcp-client", "--to", &to, "--bytes", "700000"])?.report()?;
        ensure!(sent["complete"] == true, "TCP to {to}: {sent}");
    }
    ensure!(server.report()?["received_bytes"] == 1_400_000, "TCP to {to}");
    let server = scene.traffic(bob, &["udp-server", "--listen", &listen, "--datagrams", "50"])?;
    let to = server.ready()?.to_string();
    let client = ["udp-client", "--to", &to, "--datagrams", "50", "--bytes", "777", "--answer-ms", "20000"];
    let sent = scene.traffic(alice, &client)?.report()?;
    ensure!(sent["received"] == 50, "UDP to {to}: {sent}");
    ensure!(server.report()?["received"] == 50, "UDP to {to}");
    Ok(())
}

#[test]
fn what_two_agents_say_on_loopback_is_counted_once_on_each_side() -> Result<()> {
    let scene = CgroupScene::with_agents(2, |config| config)?;
    let host = scene.lab.host();
    // Packets that are smaller than what TCP hands down, so that the sender's side sees super-packets, and frames as
    // they would be on a wire.
    set_offloads(host, "lo", false)?;
    ip(host, "link set dev lo mtu 1500")?;
    let capture = Capture::start(host, "lo", LONG, Keep::default())?;
    talk(&scene, "127.0.0.1")?;
    talk(&scene, "[::1]")?;
    scene.lab.settle()?;
    let seen = capture.stop()?;
    assert_eq!(seen.lost, 0, "the capture missed frames");
    let [out, out_packets, inbound, in_packets] = passed(&scene.agent(0)?);
    assert!(out_packets > 1000 && in_packets > 100, "{out_packets} and {in_packets} packets");
    assert_eq!(passed(&scene.agent(1)?), [inbound, in_packets, out, out_packets], "bob's side of it");
    let frames = seen.departing.frames;
    assert_eq!(out_packets + in_packets, frames, "agentsec against the capture");
    assert_eq!(out + inbound, seen.departing.bytes - ETHERNET * frames, "agentsec against the capture");
    Ok(())
}

/// What the daemon does while its agent goes too far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DaemonIs {
    Running,
    Stopped,
    Dead,
}

fn trip_while(daemon: DaemonIs) -> Result<()> {
    const LIMIT: u64 = 50_000;
    let mut scene = CgroupScene::with_agents(2, |config| {
        config.set("profiles.default.limits.max_volume", format!("{LIMIT}B"))
    })?;
    let server = scene.traffic(&scene.agents[0], &["udp-server", "--listen", "127.0.0.1:0", "--silent"])?;
    let at_alice = server.ready()?;
    match daemon {
        DaemonIs::Running => {}
        DaemonIs::Stopped => scene.daemon.stop()?,
        DaemonIs::Dead => scene.daemon.kill9()?,
    }
    let most = LIMIT / DATAGRAM;
    let shot = scene.shoot(&scene.agents[0], 1000)?;
    assert_eq!(shot, Shot { sent: most, refused: 1000 - most }, "{daemon:?}");
    wait::until("what was sent", LONG, || (scene.sink().datagrams() == most).then_some(()))?;
    assert_eq!(scene.shoot(&scene.agents[0], 10)?, Shot { sent: 0, refused: 10 }, "{daemon:?}");
    let plan = UdpPlan { datagrams: 20, payload_bytes: 100, interval: Duration::ZERO, longest: LONG };
    assert_eq!(udp::numbered(scene.lab.host(), at_alice, plan)?.wait().datagrams, 20);
    assert_eq!(scene.shoot(&scene.agents[1], 10)?, Shot { sent: 10, refused: 0 }, "bob is hurt");
    match daemon {
        DaemonIs::Running => {}
        DaemonIs::Stopped => scene.daemon.cont()?,
        DaemonIs::Dead => scene.daemon.restart()?,
    }
    let status = scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let alice = &status["agents"][0];
    assert_eq!(passed(alice), [most * DATAGRAM, most, 0, 0]);
    assert_eq!(number(&alice["outbound"]["dropped_packets"]), 1010 - most);
    assert_eq!(number(&alice["inbound"]["dropped_packets"]), 20);
    assert_eq!(server.end()?["received"], 0, "an open agent is reached");
    let trip = scene.daemon.events()?.into_iter().find(|event| is_trip(event, NAMES[0]));
    let trip = trip.context("no event of the trip")?;
    assert_eq!(trip["event_data"]["packet"]["bytes"], DATAGRAM, "{trip}");
    assert_eq!(trip["event_data"]["packet"]["remote"], "127.0.0.1", "{trip}");
    Ok(())
}

#[test]
fn a_process_over_its_limit_is_told_that_it_may_not_send() -> Result<()> {
    trip_while(DaemonIs::Running)
}

#[test]
fn a_process_trips_while_the_daemon_is_stopped() -> Result<()> {
    trip_while(DaemonIs::Stopped)
}

#[test]
fn a_process_trips_while_no_daemon_runs() -> Result<()> {
    trip_while(DaemonIs::Dead)
}

/// `agentsec endpoints --json`, without what the agent's receiver would add.
fn endpoints(scene: &CgroupScene, agent: &str) -> Result<Vec<Value>> {
    let said = scene.daemon.cli_ok(&["endpoints", agent, "--json"])?;
    let list: Value = serde_json::from_str(&said)?;
    list["endpoints"].as_array().cloned().context("a list")
}

#[test]
fn an_ipv4_mapped_address_is_the_ipv4_endpoint() -> Result<()> {
    let scene = CgroupScene::with_agents(1, |config| config)?;
    let port = scene.sink().address().port();
    let to = format!("[::ffff:127.0.0.1]:{port}");
    let sent = scene.traffic(&scene.agents[0], &["udp-client", "--to", &to, "--datagrams", "5"])?.report()?;
    assert_eq!(sent["sent"], 5, "{sent}");
    scene.shoot(&scene.agents[0], 2)?;
    let alice = scene.agent(0)?;
    assert_eq!(passed(&alice), [7 * DATAGRAM, 7, 0, 0]);
    assert_eq!((&alice["classes"]["ipv4"], &alice["classes"]["ipv6"]), (&7.into(), &0.into()));
    let known = endpoints(&scene, NAMES[0])?;
    let known: Vec<_> =
        known.iter().map(|one| (&one["remote"], &one["port"], &one["outbound"]["packets"])).collect();
    assert_eq!(known, [(&"127.0.0.1".into(), &port.into(), &7.into())]);
    Ok(())
}

#[test]
fn a_service_in_a_cgroup_has_whom_it_serves_and_whom_it_asks_as_endpoints() -> Result<()> {
    let scene = CgroupScene::with_agents(1, |config| {
        let own: toml::Table = "to = \"any\"\nprotocol = \"tcp\"\nports = \"8080\"\ndirection = \"accept\""
            .parse()
            .expect("TOML");
        config.set("profiles.default.typical", vec![toml::Value::Table(own)])
    })?;
    let world = scene.lab.world();
    let service = scene.traffic(&scene.agents[0], &["http-server", "--listen", "0.0.0.0:8080"])?;
    service.ready()?;
    let at = SocketAddr::new(world.host_v4.into(), 8080);
    let mut client = HttpClient::new(&world.namespace, at).timeout(LONG);
    for _ in 0..3 {
        assert_eq!(client.get("/bytes/30000")?.body.len(), 30_000);
        client.hang_up();
    }
    let server = HttpServer::start(&world.namespace, (ANY4, 0), LONG)?;
    let to = SocketAddr::new(world.v4.into(), server.address().port());
    scene.traffic(&scene.agents[0], &["tcp-client", "--to", &to.to_string(), "--bytes", "500"])?.report()?;

    let known = endpoints(&scene, NAMES[0])?;
    let all: Vec<_> = known
        .iter()
        .map(|one| (&one["remote"], &one["port"], &one["direction"], &one["typical"], &one["protocol"]))
        .collect();
    let remote = Value::from(world.v4.to_string());
    let tcp = Value::from("tcp");
    assert_eq!(
        all,
        [
            (&remote, &8080.into(), &"accept".into(), &true.into(), &tcp),
            (&remote, &to.port().into(), &"open".into(), &false.into(), &tcp),
        ]
    );
    assert!(number(&known[0]["outbound"]["bytes"]) > 90_000, "{}", known[0]);
    let alice = scene.agent(0)?;
    assert_eq!(alice["signals"]["unusual_endpoints"], 1, "{alice}");
    assert_eq!(service.end()?["requests"], 3);
    Ok(())
}

/// The programs of a cgroup never see the frames of a packet socket. Where the kernel lets a BPF program decide who may
/// have one, agents may not; elsewhere this gap is open, and `status` says so.
#[test]
fn a_packet_socket_is_denied_or_said_to_be_a_gap() -> Result<()> {
    let scene = CgroupScene::with_agents(1, |config| config)?;
    let status = scene.daemon.status()?;
    let said = status["daemon"]["packet_sockets"].as_str().context("nothing is said of packet sockets")?;
    let text = scene.daemon.cli_ok(&["status"])?;
    let capture = Capture::start(scene.lab.host(), "lo", LONG, Keep::default())?;
    let mut process =
        scene.traffic(&scene.agents[0], &["packet-socket", "--interface", "lo", "--frames", "25"])?;
    if said == "denied to agents known by their cgroup" {
        assert!(!process.wait()?.success(), "it has a packet socket");
        assert!(!text.contains("packet sockets"), "{text}");
        let events = || {
            let events = scene.daemon.events().ok()?;
            events.into_iter().find(|event| event["event_type"] == "SECURITY_VIOLATION")
        };
        let violation = wait::until("the violation", LONG, events)?;
        assert_eq!(violation["agent_id"], NAMES[0]);
        assert_eq!(violation["event_data"]["attempted_action"], "socket(AF_PACKET)");
        assert_eq!(capture.stop()?.departing.frames, 0);
        return Ok(());
    }
    assert!(said.starts_with("not denied") && said.contains("CAP_NET_RAW"), "{said}");
    assert!(text.contains("! packet sockets are not denied"), "{text}");
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    assert_eq!(process.report()?["sent"], 25);
    scene.lab.settle()?;
    assert_eq!(capture.stop()?.departing.frames, 25, "the gap is closed: say so");
    assert_eq!(number(&scene.agent(0)?["outbound"]["packets"]), 0);
    Ok(())
}

#[test]
fn doctor_says_whether_packet_sockets_can_be_denied() -> Result<()> {
    let scene = CgroupScene::with_agents(0, |config| config)?;
    let output = scene.daemon.cli(&["doctor", "--json"])?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let checks = report["checks"].as_array().context("checks")?;
    let check = checks.iter().find(|check| check["name"] == "BPF LSM").context("no check of the BPF LSM")?;
    let listed = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let is_on = listed.trim().split(',').any(|name| name == "bpf");
    assert_eq!(check["status"] == "ok", is_on, "{check}");
    let remedy = check["remedy"].as_str().unwrap_or_default();
    assert!(is_on || remedy.contains("CAP_NET_RAW"), "{check}");
    Ok(())
}
