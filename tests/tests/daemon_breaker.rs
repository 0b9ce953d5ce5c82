//! The breaker's way from OPEN back to CLOSED, by itself and by operators.

use std::net::{IpAddr, Ipv4Addr};

use agentsec_tests::daemon::Daemon;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, is_containment, number};
use agentsec_tests::traffic::http::HttpServer;
use agentsec_tests::traffic::udp::UdpReceiver;
use anyhow::{Context, Result};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Runs a command with `--json`: its exit code and its object.
fn json(daemon: &Daemon, arguments: &[&str]) -> Result<(i32, Value)> {
    let output = daemon.cli(&[arguments, &["--json"]].concat())?;
    let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    let value = serde_json::from_slice(text)
        .with_context(|| format!("{arguments:?} said {}", String::from_utf8_lossy(text)))?;
    Ok((output.status.code().context("it was killed")?, value))
}

/// State and mode after an operator's command that must succeed.
fn after(daemon: &Daemon, arguments: &[&str]) -> Result<[String; 2]> {
    let (code, reply) = json(daemon, arguments)?;
    anyhow::ensure!(code == 0, "{arguments:?} ended with {code}: {reply}");
    let agent = &reply["agents"][0];
    Ok([&agent["state"], &agent["mode"]].map(|value| value.as_str().unwrap_or("?").to_owned()))
}

fn quarantine(daemon: &Daemon, agent: &str) -> Result<()> {
    daemon.cli_ok(&["quarantine", agent, "--reason", "test"])?;
    Ok(())
}

#[test]
fn a_circuit_closes_by_itself_after_a_cool_down_and_a_clean_probe() -> Result<()> {
    let config = config(1)
        .set("profiles.default.limits.max_volume", "50kB")
        .set("profiles.default.window", "1s")
        .set("breaker.auto_probe", true)
        .set("breaker.cooldown", "500ms")
        .set("breaker.probe", "500ms");
    let scene = Scene::routed(1, &config)?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    scene.shoot(0, 9, 1000)?;
    scene.wait_for_event("the end", |event| event["event_data"]["action_type"] == "CLOSE")?;
    assert_eq!(scene.states_entered(0)?, ["OPEN", "HALF_OPEN", "CLOSED"]);
    let events = scene.daemon.events()?;
    let moved: Vec<_> = events.iter().filter(|event| is_containment(event)).collect();
    assert!(moved.iter().all(|event| event["event_data"]["automated"] == true));
    let times: Vec<u64> = moved.iter().map(|event| number(&event["monotonic_ns"])).collect();
    assert!(times[1] - times[0] >= 500_000_000 && times[2] - times[1] >= 500_000_000, "{times:?}");
    let agent = scene.agent(0)?;
    assert_eq!((&agent["state"], &agent["tripped"]), (&"CLOSED".into(), &Value::Null));
    assert!(scene.is_served(0, &server), "closed, and yet nothing passes");
    Ok(())
}

#[test]
fn a_violation_on_probation_opens_again_with_twice_the_cool_down() -> Result<()> {
    let config = config(1)
        .set("profiles.default.typical", vec!["10.78.0.0/24"])
        .set("breaker.cooldown", "100s")
        .set("breaker.auto_probe", true)
        .set("breaker.probe", "10m");
    let scene = Scene::routed(1, &config)?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    quarantine(&scene.daemon, NAMES[0])?;
    assert_eq!(after(&scene.daemon, &["release", NAMES[0]])?, ["HALF_OPEN", "enforce"]);
    assert!(scene.is_served(0, &server), "a typical endpoint is reachable on probation");
    // The end of that connection is still on its way.
    scene.lab.settle()?;
    let before = scene.lab.world().counters()?;
    let elsewhere = std::net::SocketAddr::new(scene.lab.crowd_v4(1).into(), 9);
    agentsec_tests::scene::shoot(scene.lab.agent(0), elsewhere, 5)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    scene.lab.settle()?;
    assert_eq!((scene.lab.world().counters()? - before).rx_packets, 0, "not one packet got out");
    scene.wait_for_event("the violation", |event| event["event_type"] == "SECURITY_VIOLATION")?;
    let trip = scene.wait_for_event("the second trip", |event| event["event_data"]["by"] == "kernel")?;
    assert_eq!(trip["event_data"]["tripped"]["cause"], "probe_violation");
    let state = scene.daemon.paths().state().join("state.json");
    let doubled = || -> Option<Value> {
        let saved: Value = serde_json::from_slice(&std::fs::read(&state).ok()?).ok()?;
        let cooldown = &saved["agents"][0]["cooldown_ns"];
        (*cooldown == 200_000_000_000u64).then(|| cooldown.clone())
    };
    agentsec_tests::wait::until("twice the cool-down in state.json", LONG, doubled)?;
    Ok(())
}

#[test]
fn operators_open_hold_probe_and_close() -> Result<()> {
    let config = config(1).set("breaker.cooldown", "200ms").set("breaker.auto_probe", true);
    let config = config.set("breaker.probe", "10m");
    let scene = Scene::routed(1, &config)?;
    let daemon = &scene.daemon;
    let held = ["quarantine", NAMES[0], "--reason", "smells", "--hold"];
    assert_eq!(after(daemon, &held)?, ["OPEN", "enforce"]);
    let agent = scene.agent(0)?;
    assert_eq!((&agent["hold"], &agent["tripped"]["by"]), (&true.into(), &"operator".into()));
    assert!(agent["tripped"]["reason"].as_str().is_some_and(|why| why.contains("smells")), "{agent}");
    // A new circuit with the same cool-down probes by itself; the held one never does.
    let again = json(daemon, &held)?;
    assert_eq!((again.0, &again.1["agents"][0]["changed"]), (0, &false.into()));
    assert_eq!(after(daemon, &["release", NAMES[0]])?, ["HALF_OPEN", "enforce"]);
    assert_eq!(after(daemon, &["release", NAMES[0], "--force"])?, ["CLOSED", "enforce"]);
    quarantine(daemon, NAMES[0])?;
    daemon.wait_for_state(NAMES[0], "HALF_OPEN", LONG)?;
    assert_eq!(after(daemon, &["release", NAMES[0], "--force"])?, ["CLOSED", "enforce"]);
    let expected = ["OPEN", "HALF_OPEN", "CLOSED", "OPEN", "HALF_OPEN", "CLOSED"];
    assert_eq!(scene.states_entered(0)?, expected);
    let commands = daemon.events()?;
    let commands = commands.iter().filter(|event| event["event_type"] == "OPERATOR_COMMAND");
    assert_eq!(commands.count(), 6, "each command is an event");
    Ok(())
}

#[test]
fn shadow_judges_and_counts_and_drops_nothing() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_volume", "20kB");
    let scene = Scene::routed(1, &config)?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    assert_eq!(after(&scene.daemon, &["shadow", NAMES[0]])?, ["CLOSED", "shadow"]);
    scene.shoot(0, 9, 500)?;
    let all = || (receiver.datagrams() == 500).then_some(());
    agentsec_tests::wait::until("everything passes in shadow", LONG, all)?;
    let status = scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let agent = &status["agents"][0];
    assert_eq!(number(&agent["outbound"]["dropped_packets"]), 0);
    assert!(number(&agent["would_drop"]["packets"]) >= 350, "{}", agent["would_drop"]);
    assert_eq!(after(&scene.daemon, &["shadow", NAMES[0], "--off"])?, ["OPEN", "enforce"]);
    let before = scene.lab.world().counters()?;
    scene.shoot(0, 9, 100)?;
    assert_eq!(scene.lab.world().counters()?, before, "enforced again, and still open");
    Ok(())
}

#[test]
fn an_exempt_agent_is_neither_judged_nor_opened() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_volume", "20kB");
    let scene = Scene::routed(1, &config)?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    quarantine(&scene.daemon, NAMES[0])?;
    assert_eq!(after(&scene.daemon, &["exempt", NAMES[0]])?, ["CLOSED", "exempt"]);
    scene.shoot(0, 9, 500)?;
    let all = || (receiver.datagrams() == 500).then_some(());
    agentsec_tests::wait::until("everything of an exempt agent", LONG, all)?;
    let (code, refusal) = json(&scene.daemon, &["quarantine", NAMES[0], "--reason", "test"])?;
    assert_eq!(code, 5, "{refusal}");
    assert_eq!(scene.agent(0)?["state"], "CLOSED");
    assert_eq!(after(&scene.daemon, &["exempt", NAMES[0], "--off"])?, ["CLOSED", "enforce"]);
    Ok(())
}

#[test]
fn who_is_never_to_be_isolated_is_judged_and_never_dropped() -> Result<()> {
    let config = config(2)
        .set("profiles.default.limits.max_volume", "20kB")
        .set("breaker.never_isolate", vec![NAMES[0]]);
    let scene = Scene::routed(2, &config)?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 9), LONG)?;
    scene.shoot(0, 9, 500)?;
    let all = || (receiver.datagrams() == 500).then_some(());
    agentsec_tests::wait::until("everything passes", LONG, all)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    assert_eq!(scene.agent(0)?["mode"], "shadow");
    for arguments in [&["quarantine", NAMES[0], "--reason", "test"][..], &["shadow", NAMES[0], "--off"]] {
        let (code, refusal) = json(&scene.daemon, arguments)?;
        assert_eq!(code, 5, "{refusal}");
        assert!(refusal.to_string().contains("never_isolate"), "{refusal}");
    }
    Ok(())
}

#[test]
fn everybody_is_released_at_once() -> Result<()> {
    let scene = Scene::routed(3, &config(3))?;
    quarantine(&scene.daemon, NAMES[0])?;
    scene.daemon.cli_ok(&["quarantine", NAMES[2], "--reason", "test", "--hold"])?;
    let (code, reply) = json(&scene.daemon, &["release", "--all", "--force"])?;
    assert_eq!(code, 0, "{reply}");
    for index in 0..3 {
        assert_eq!(scene.agent(index)?["state"], "CLOSED");
    }
    assert_eq!(reply["agents"].as_array().map(Vec::len), Some(3), "{reply}");
    Ok(())
}
