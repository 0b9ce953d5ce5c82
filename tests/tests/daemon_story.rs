//! The story that everything is for: an agent is compromised, moves on to others, and one of them carries data out. The chain is
//! told from the log of a daemon that saw it happen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use agentsec_tests::scene::{LONG, NAMES, Scene, config, is_trip};
use agentsec_tests::traffic::http::{HttpClient, HttpServer};
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// What carol carries out before she is stopped, at least.
const CARRIED: u64 = 2_000_000;

/// What an agent asks somebody.
fn ask(scene: &Scene, index: usize, to: SocketAddr, body: &[u8]) -> Result<u16> {
    let mut client = HttpClient::new(&scene.lab.agent(index).namespace, to).timeout(LONG);
    Ok(client.post("/task", body)?.status)
}

fn recorded(scene: &Scene, from: usize, to: usize) -> Result<Value> {
    let (from, to) = (NAMES[from], NAMES[to]);
    scene.wait_for_event("an interaction", |event| {
        let data = &event["event_data"];
        event["event_type"] == "AGENT_INTERACTION"
            && data["source_agent"] == from
            && data["target_agent"] == to
    })
}

#[test]
fn a_compromise_its_movement_the_exfiltration_and_the_containment_are_told_from_the_log() -> Result<()> {
    // Dave has nothing to do with it, and talks to bob before anything happens.
    let limits =
        config(4).set("profiles.default.limits.max_volume", "4MB").set("interactions.tell_every", "1s");
    let scene = Scene::routed(4, &limits)?;
    let world = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let servers: Vec<HttpServer> = (0..4)
        .map(|index| HttpServer::start(&scene.lab.agent(index).namespace, (ANY4, 0), LONG))
        .collect::<Result<_>>()?;
    let at =
        |index: usize| SocketAddr::new(scene.lab.agent(index).v4.into(), servers[index].address().port());
    let outside = scene.world(world.address().port());
    ensure!(ask(&scene, 3, at(1), b"hello")? == 200, "served");
    recorded(&scene, 3, 1)?;

    // Alice is caught guessing, then hands something to bob, and bob to carol.
    let mut guess = HttpClient::new(&scene.lab.agent(0).namespace, outside).timeout(LONG);
    ensure!(guess.get("/status/401")?.status == 401, "refused");
    guess.hang_up();
    scene.wait_for_event("a sign", |event| event["event_type"] == "SECURITY_VIOLATION")?;
    ensure!(ask(&scene, 0, at(1), b"payload for bob")? == 200, "served");
    recorded(&scene, 0, 1)?;
    ensure!(ask(&scene, 1, at(2), b"payload for carol")? == 200, "served");
    recorded(&scene, 1, 2)?;

    // Carol carries out what she can until the kernel stops her.
    let carried = ask(&scene, 2, outside, &vec![0x5a; CARRIED as usize])?;
    ensure!(carried == 200, "carried out");
    let stopped = HttpClient::new(&scene.lab.agent(2).namespace, outside)
        .timeout(std::time::Duration::from_secs(2))
        .post("/more", &vec![0x5a; 8_000_000]);
    ensure!(stopped.is_err(), "she is stopped");
    scene.wait_for_event("the trip", |event| is_trip(event, NAMES[2]))?;

    let chain = || -> Result<Value> {
        let told = scene.daemon.cli_ok(&["chain", "--agent", NAMES[0], "--json"])?;
        Ok(serde_json::from_str(&told)?)
    };
    let outflow = |chain: &Value| {
        let found = chain["exfiltration"].as_array()?.first()?.clone();
        (found["bytes_sent"].as_u64()? > CARRIED + 100_000).then_some(found)
    };
    // What she sent on the connection on which she was stopped is told as well.
    let outflow = wait::until("the exfiltration", LONG, || outflow(&chain().ok()?))
        .with_context(|| format!("{:?}", chain()))?;
    assert_eq!((&outflow["agent"], &outflow["endpoint"]), (&NAMES[2].into(), &outside.to_string().into()));
    let chain = chain()?;
    let signs = chain["initial_compromise"].as_array().context("signs")?;
    assert!(signs.iter().any(|sign| sign["event_type"] == "SECURITY_VIOLATION"), "{signs:?}");
    let hops: Vec<_> = chain["lateral_movement"]
        .as_array()
        .context("hops")?
        .iter()
        .map(|hop| (hop["from"].clone(), hop["to"].clone(), hop["hop"].clone()))
        .collect();
    let hop = |from: usize, to: usize, hop: u64| (NAMES[from].into(), NAMES[to].into(), hop.into());
    assert_eq!(hops, [hop(0, 1, 1), hop(1, 2, 2)], "{chain}");
    let contained = chain["containment"].as_array().context("containment")?;
    assert!(contained.iter().any(|act| act["agent"] == NAMES[2]), "{contained:?}");
    let text = scene.daemon.cli_ok(&["chain", "--agent", NAMES[0]])?;
    let order: Vec<_> = ["alice → bob", "bob → carol", "carol ⇒ tcp", "QUARANTINE"]
        .iter()
        .map(|part| text.find(part).with_context(|| format!("{part} in {text}")))
        .collect::<Result<_>>()?;
    assert!(order.is_sorted(), "a timeline: {text}");
    assert!(!text.contains("dave"), "who talked before is not in it: {text}");
    Ok(())
}
