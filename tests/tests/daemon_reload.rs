//! A new configuration is put into force while everything goes on.

use std::time::Duration;

use agentsec_tests::daemon::Config;
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The longest that packets which were sent are on their way to the counters.
const SHORT: Duration = Duration::from_secs(10);

/// Puts a configuration into force and returns what has changed.
fn reload(scene: &mut Scene, config: &Config) -> Result<Value> {
    scene.daemon.set_config(config)?;
    Ok(serde_json::from_str(&scene.daemon.cli_ok(&["reload", "--json"])?)?)
}

/// How a reload that is refused ends, and what it says.
fn refused(scene: &mut Scene, config: &str) -> Result<(Option<i32>, String)> {
    std::fs::write(scene.daemon.paths().config(), config)?;
    let output = scene.daemon.cli(&["reload"])?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Ids and states of everybody.
fn states(scene: &Scene) -> Result<Vec<(String, String)>> {
    let status = scene.daemon.status()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let agents = status["agents"].as_array().context("a list")?;
    Ok(agents.iter().map(|agent| (text(&agent["id"]), text(&agent["state"]))).collect())
}

#[test]
fn agents_and_limits_change_at_once_and_who_is_contained_stays() -> Result<()> {
    let mut scene = Scene::routed(3, &config(2))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[1], "--reason", "test", "--hold"])?;
    let edited = config(0)
        .agent(NAMES[0], "agent-0")
        .agent(NAMES[2], "agent-2")
        .set("profiles.default.limits.max_volume", "20kB");
    let changes = reload(&mut scene, &edited)?;
    assert_eq!(changes["added"], json!([NAMES[2]]), "{changes}");
    assert_eq!(changes["changed"], json!([NAMES[0]]), "{changes}");
    assert_eq!(changes["kept"], json!([NAMES[1]]), "{changes}");
    assert_eq!(changes["removed"], json!([]), "{changes}");
    let attached = |status: &Value| status["agents"][2]["attachments"][0]["status"] == "attached";
    scene.daemon.wait_until("the new agent's attachment", LONG, attached)?;
    scene.shoot(0, 4242, 500)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    scene.shoot(1, 4242, 10)?;
    let dropped = scene.daemon.agent(NAMES[1])?["outbound"]["dropped_packets"].as_u64();
    assert!(dropped >= Some(10), "the contained agent's place is still ours: {dropped:?}");
    scene.daemon.cli_ok(&["release", NAMES[1], "--force"])?;
    scene.daemon.wait_until("the released agent's end", LONG, |status| {
        status["agents"].as_array().is_some_and(|agents| agents.len() == 2)
    })?;
    Ok(())
}

#[test]
fn an_agent_that_is_not_configured_any_more_is_let_go() -> Result<()> {
    let mut scene = Scene::routed(2, &config(2))?;
    let changes = reload(&mut scene, &config(1))?;
    assert_eq!((&changes["removed"], &changes["changed"]), (&json!([NAMES[1]]), &json!([])), "{changes}");
    assert_eq!(states(&scene)?, [(NAMES[0].to_owned(), "CLOSED".to_owned())]);
    Ok(())
}

#[test]
fn an_interface_can_be_given_to_another_agent() -> Result<()> {
    let mut scene = Scene::routed(2, &config(2))?;
    let moved = config(0).agent(NAMES[0], "agent-1").agent(NAMES[1], "agent-0");
    let changes = reload(&mut scene, &moved)?;
    assert_eq!(changes["changed"], json!([NAMES[0], NAMES[1]]), "{changes}");
    let is_moved = |status: &Value| {
        (0..2).all(|agent| {
            let places = &status["agents"][agent]["attachments"];
            places.as_array().map(Vec::len) == Some(1)
                && places[0]["interface"] == format!("agent-{}", 1 - agent)
                && places[0]["status"] == "attached"
        })
    };
    scene.daemon.wait_until("each on the other's interface", LONG, is_moved)?;
    scene.shoot(1, 4242, 10)?;
    let packets = |status: &Value, agent: usize| status["agents"][agent]["outbound"]["packets"].as_u64();
    // Nobody listens, so not every datagram leaves its socket.
    let counts = |status: &Value| packets(status, 0) > Some(0);
    let status = scene.daemon.wait_until("packets of the interface that it has now", SHORT, counts)?;
    assert_eq!(packets(&status, 1), Some(0), "{status}");
    Ok(())
}

#[test]
fn a_configuration_with_problems_changes_nothing() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    let before = states(&scene)?;
    let file = scene.daemon.paths().config().display().to_string();
    let (code, said) = refused(&mut scene, "[daemon]\nintervall = \"1s\"\n[breaker]\ncooldown = 5\n")?;
    assert_eq!(code, Some(6), "{said}");
    for part in [format!("{file}:2: daemon.intervall"), format!("{file}:4: breaker.cooldown")] {
        assert!(said.contains(&part), "{part} in {said}");
    }
    let resized = config(1).set("daemon.max_agents", 17).to_string();
    let (code, said) = refused(&mut scene, &resized)?;
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("daemon.max_agents: is 17, and 16 in"), "{said}");
    assert_eq!(states(&scene)?, before);
    let alerts =
        |scene: &Scene| -> Result<String> { Ok(scene.daemon.status()?["daemon"]["alerts"].to_string()) };
    assert!(alerts(&scene)?.contains("not reloaded"), "{}", alerts(&scene)?);
    scene.wait_for_event("the refusal", |event| event["event_data"]["what"] == "reload_refused")?;
    reload(&mut scene, &config(1))?;
    assert!(!alerts(&scene)?.contains("not reloaded"), "{}", alerts(&scene)?);
    Ok(())
}

#[test]
fn a_hangup_reloads_and_the_event_says_what_was_read() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    let loaded = |by: &'static str| {
        move |event: &Value| event["event_type"] == "CONFIG_LOADED" && event["event_data"]["by"] == by
    };
    let first = scene.wait_for_event("the first configuration", loaded("start"))?;
    scene.daemon.set_config(&config(1).set("daemon.interval", "70ms"))?;
    scene.daemon.signal(Signal::SIGHUP)?;
    let second = scene.wait_for_event("the second configuration", loaded("SIGHUP"))?;
    let digest = |event: &Value| event["event_data"]["sources"][0]["sha256"].clone();
    assert_ne!(digest(&first), digest(&second));
    let sum = std::process::Command::new("sha256sum").arg(scene.daemon.paths().config()).output()?;
    let sum = String::from_utf8(sum.stdout)?;
    assert_eq!(sum.split(' ').next(), digest(&second).as_str());
    assert_eq!(scene.daemon.status()?["daemon"]["interval_ms"], 70);
    Ok(())
}
