//! The kernel trips on the exact packet, and the record says so.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use agentsec::record::verify;
use agentsec_tests::daemon::Daemon;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, is_containment, is_trip, number};
use agentsec_tests::traffic::capture::{Capture, Captured, Keep};
use agentsec_tests::traffic::http::HttpServer;
use agentsec_tests::traffic::sweep::{self, Knock};
use agentsec_tests::traffic::tcp::{self, TcpPlan, TcpSink};
use agentsec_tests::traffic::udp::UdpReceiver;
use anyhow::{Context, Result};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Every recorded line, each an intact event.
fn verified_events(daemon: &Daemon) -> Result<Vec<Value>> {
    for line in daemon.event_lines()? {
        verify(&line).map_err(|flaw| anyhow::anyhow!("{flaw}: {line}"))?;
    }
    daemon.events()
}

/// Receivers of the frames that arrived at the world, IPv4 only.
fn destinations(captured: &Captured) -> BTreeSet<[u8; 4]> {
    let arrived = captured.frames.iter().filter(|frame| !frame.departing);
    arrived.filter_map(|frame| frame.bytes.get(30..34)?.try_into().ok()).collect()
}

#[test]
fn an_agent_over_its_volume_passes_no_byte_more() -> Result<()> {
    const LIMIT: u64 = 2_000_000;
    let config = config(2).set("profiles.default.limits.max_volume", "2MB");
    let scene = Scene::routed(2, &config)?;
    let (agent, world) = (scene.lab.agent(0), scene.lab.world());
    let sink = TcpSink::start(&world.namespace, (ANY4, 0), LONG)?;
    let server = HttpServer::start(&world.namespace, (ANY4, 0), LONG)?;
    let (agent_before, world_before) = (agent.counters()?, world.counters()?);
    // A flow that comes too late for the limit will never connect.
    let connect_timeout = Duration::from_secs(2);
    let plan = TcpPlan { flows: 4, bytes_per_flow: 5_000_000, connect_timeout, longest: LONG };
    let flows = tcp::send(&agent.namespace, scene.world(sink.address().port()), plan)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    // It goes on trying for a while, and that is the point.
    scene.shoot(0, 9, 2000)?;
    assert!(flows.stop().iter().all(|flow| !flow.complete));
    let far = (world.counters()? - world_before).rx_bytes;
    let near = (agent.counters()? - agent_before).rx_bytes;
    assert!(far + near <= LIMIT, "{far} bytes out and {near} in");
    assert!(far + near > LIMIT - 200_000, "tripped long before its limit: {far} out and {near} in");
    let tripped = scene.agent(0)?;
    assert_eq!(tripped["tripped"]["by"], "kernel");
    assert_eq!(number(&tripped["outbound"]["bytes"]), far);
    assert_eq!(number(&tripped["inbound"]["bytes"]), near);
    assert!(number(&tripped["outbound"]["dropped_packets"]) >= 2000);
    assert!(scene.is_served(1, &server), "the other agent is hurt");
    assert_eq!(scene.agent(1)?["state"], "CLOSED");
    Ok(())
}

#[test]
fn the_record_of_an_incident_is_complete_intact_and_joined() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_volume", "100kB").set("breaker.probe", "300ms");
    let scene = Scene::routed(1, &config)?;
    let _receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    scene.shoot(0, 9, 2000)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let trip = scene.wait_for_event("the trip's event", |event| is_trip(event, NAMES[0]))?;
    scene.daemon.cli_ok(&["release", NAMES[0]])?;
    scene.daemon.wait_for_state(NAMES[0], "CLOSED", LONG)?;
    scene.wait_for_event("the end", |event| event["event_data"]["action_type"] == "CLOSE")?;

    for field in ["event_id", "timestamp", "boot_id", "host", "correlation_id", "integrity_hash"] {
        assert!(trip[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {trip}");
    }
    let data = &trip["event_data"];
    for (field, expected) in [
        ("automated", Value::from(true)),
        ("by", "kernel".into()),
        ("isolation_level", "full".into()),
        ("affected_services", vec!["agent-0"].into()),
        ("recovery_snapshot", Value::Null),
        ("from", "CLOSED".into()),
        ("to", "OPEN".into()),
        ("found_at_start", false.into()),
    ] {
        assert_eq!(data.get(field), Some(&expected), "{field} of {data}");
    }
    assert!(
        data["trigger_reason"].as_str().is_some_and(|why| why.contains("max_volume of 100000")),
        "{data}"
    );
    assert_eq!(data["packet"]["remote"], scene.lab.world().v4.to_string());
    assert_eq!((&data["packet"]["remote_port"], &data["packet"]["bytes"]), (&9.into(), &142.into()));

    let events = verified_events(&scene.daemon)?;
    let chain = events.iter().filter(|event| is_containment(event));
    let chain: Vec<_> = chain.map(|event| (&event["event_data"]["to"], &event["correlation_id"])).collect();
    let incident = &trip["correlation_id"];
    let expected = ["OPEN", "HALF_OPEN", "CLOSED"].map(Value::from);
    assert_eq!(chain, expected.iter().map(|state| (state, incident)).collect::<Vec<_>>());
    let ids: BTreeSet<_> = events.iter().map(|event| event["event_id"].to_string()).collect();
    assert_eq!(ids.len(), events.len(), "ids are unique");
    Ok(())
}

#[test]
fn a_sweep_trips_on_unusual_endpoints_and_not_on_typical_ones() -> Result<()> {
    const LIMIT: usize = 10;
    let config = config(2)
        .set("profiles.default.limits.max_unusual_endpoints", LIMIT as i64)
        .set("profiles.default.typical", vec!["10.80.1.0/24"]);
    let scene = Scene::routed(2, &config)?;
    let (agent, world) = (scene.lab.agent(0), scene.lab.world());
    let crowd = |first: u16| (first..first + 200).map(|index| IpAddr::from(scene.lab.crowd_v4(index)));
    let knock = |first| -> Result<_> {
        let targets = sweep::targets(crowd(first), &[7]);
        Ok(sweep::sweep(&agent.namespace, targets, Knock::Udp(20), 1, LONG)?.wait())
    };
    knock(256)?;
    assert_eq!(scene.agent(0)?["state"], "CLOSED", "these were typical");
    let capture = Capture::start(&world.namespace, "eth0", LONG, Keep { frames: 2000, bytes: 60 })?;
    knock(1024)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    assert_eq!(destinations(&capture.stop()?).len(), LIMIT, "exactly the limit gets out");
    let trip = scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
    assert_eq!(trip["event_data"]["tripped"]["cause"], "max_unusual_endpoints");
    assert_eq!(trip["event_data"]["packet"]["remote"], scene.lab.crowd_v4(1034).to_string());
    assert_eq!(scene.agent(1)?["state"], "CLOSED");
    Ok(())
}

#[test]
fn volume_and_endpoints_together_exceed_a_lower_threshold() -> Result<()> {
    let config = config(1)
        .set("profiles.default.expected_volume", "20kB")
        .set("profiles.default.typical", vec!["10.78.0.0/24"])
        .set("profiles.default.quarantine_threshold", 0.5);
    let scene = Scene::routed(1, &config)?;
    let _receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    // 71 kB are more than three times what is expected, and that alone adds 0.4.
    scene.shoot(0, 9, 500)?;
    let alone = scene.agent(0)?;
    assert_eq!((&alone["state"], &alone["contributions"]["volume"]), (&"CLOSED".into(), &0.4.into()));
    let targets = sweep::targets((0..5).map(|index| scene.lab.crowd_v4(index).into()), &[7]);
    sweep::sweep(&scene.lab.agent(0).namespace, targets, Knock::Udp(20), 1, LONG)?.wait();
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let trip = scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
    let data = &trip["event_data"];
    assert_eq!(data["tripped"]["cause"], "risk");
    let risk = data["risk"].as_f64().context("a number")?;
    assert!(risk > 0.5, "{data}");
    assert_eq!(data["contributions"]["volume"], 0.4);
    assert!(data["contributions"]["endpoints"].as_f64().is_some_and(|term| term > 0.1), "{data}");
    Ok(())
}
