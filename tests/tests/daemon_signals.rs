//! What the daemon tells of connections to real servers, beside what the client itself saw.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::scene::{LONG, NAMES, Scene, config, is_trip, number};
use agentsec_tests::servers::delays::jittered;
use agentsec_tests::servers::http_answer::Answer;
use agentsec_tests::servers::http_probe::HttpProbe;
use agentsec_tests::servers::http_server::{Script, ScriptedHttp};
use agentsec_tests::servers::ports::{self, RefusingPort, ResetAfter};
use anyhow::{Context, Result};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const FORGED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

fn serve(scene: &Scene, script: Script) -> Result<(ScriptedHttp, SocketAddr)> {
    let server = ScriptedHttp::start(&scene.lab.world().namespace, (ANY4, 0), LONG, script)?;
    let to = scene.world(server.address().port());
    Ok((server, to))
}

fn probe(scene: &Scene, to: SocketAddr) -> Result<HttpProbe> {
    Ok(HttpProbe::connect(&scene.lab.agent(0).namespace, to, LONG)?)
}

/// How often each kind of failed authentication was counted, ever.
fn failures(scene: &Scene) -> Result<[u64; 5]> {
    let agent = scene.agent(0)?;
    let kinds = ["http_401", "http_403", "http_407", "refused", "reset_before_data"];
    Ok(kinds.map(|kind| number(&agent["signals"]["auth"][kind])))
}

fn float(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("{value} is not a number"))
}

/// The nearest rank.
fn quantile(times: &mut [Duration], per_cent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * per_cent).div_ceil(100) - 1]
}

#[test]
fn response_times_are_those_that_the_client_measured() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let delays = jittered(7, 12, Duration::from_millis(60), Duration::from_millis(400));
    let answers: Vec<Answer> = delays.iter().map(|&delay| Answer::new(200).pause(delay)).collect();
    let (_server, to) = serve(&scene, Script::new(answers))?;
    let mut times = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let probes: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| -> Result<_> { Ok(probe(&scene, to)?.get_many("/", 12)?) }))
            .collect();
        for probe in probes {
            times.extend(probe.join().expect("a client")?.iter().map(|one| one.first_byte));
        }
        Ok(())
    })?;
    let told = scene.daemon.wait_until("all are told", LONG, |status| {
        status["agents"][0]["signals"]["response_time"]["samples"] == times.len()
    })?;
    let told = &told["agents"][0]["signals"]["response_time"];
    for (name, per_cent) in [("p50_ms", 50), ("p99_ms", 99)] {
        let exact = quantile(&mut times, per_cent).as_secs_f64() * 1e3;
        let found = float(&told[name])?;
        assert!((found - exact).abs() <= (exact * 0.05).max(0.2), "{name}: {found} for {exact}");
    }
    // Fifty milliseconds are normal.
    let deviation = times.iter().map(|time| time.as_secs_f64() * 1e3 - 50.0).sum::<f64>() / times.len() as f64;
    let found = float(&told["deviation_ms"])?;
    assert!((found - deviation).abs() <= deviation * 0.05, "{found} for {deviation}");
    let endpoints: Value = serde_json::from_str(&scene.daemon.cli_ok(&["endpoints", NAMES[0], "--json"])?)?;
    let endpoint = endpoints["endpoints"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["port"] == to.port()))
        .with_context(|| format!("{endpoints}"))?;
    assert_eq!(number(&endpoint["responses"]), times.len() as u64);
    let exact = quantile(&mut times, 50).as_secs_f64() * 1e3;
    assert!((float(&endpoint["p50_ms"])? - exact).abs() <= exact * 0.13, "{endpoint} for {exact}");
    Ok(())
}

#[test]
fn failed_authentications_are_those_that_the_client_met() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let answers = [
        Answer::new(200).body(FORGED.repeat(3)),
        Answer::new(401).body("no").cut_at(&[1, 5, 9, 10, 12]),
        Answer::new(200).chunked(&[b"first", FORGED, b"last"]).cut_before(FORGED),
        Answer::new(403).body(vec![b'x'; 100_000]),
        Answer::new(407).body(""),
        Answer::new(404).body("HTTP/1.1 401 is what this page is about"),
    ];
    let (_server, to) = serve(&scene, Script::new(answers))?;
    let mut client = probe(&scene, to)?;
    let statuses: Vec<_> = client.get_many("/", 20)?.iter().map(|one| one.status).collect();
    let met = [401, 403, 407].map(|status| statuses.iter().filter(|&&one| one == status).count() as u64);
    let [unauthorized, forbidden, proxy, ..] = failures(&scene)?;
    assert_eq!([unauthorized, forbidden, proxy], met);
    assert_eq!(number(&scene.agent(0)?["signals"]["requests"]), 20);
    Ok(())
}

#[test]
fn an_interim_answer_and_a_pipeline_hide_no_refusal() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let (_server, to) = serve(&scene, Script::new([Answer::new(401).continue_first()]))?;
    assert_eq!(probe(&scene, to)?.post("/login", b"user=root")?.interim, [100]);
    assert_eq!(failures(&scene)?[0], 1);
    let (_server, to) = serve(&scene, Script::statuses(&[401, 200, 401]))?;
    assert_eq!(probe(&scene, to)?.pipeline("/", 3)?.len(), 3);
    assert_eq!(failures(&scene)?[0], 3);
    Ok(())
}

#[test]
fn a_server_that_floods_an_agent_with_refusals_fails_it_once_for_each_request() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_auth_failures", 5);
    let scene = Scene::routed(1, &config)?;
    let (_server, to) = serve(&scene, Script::statuses(&[200]).greeting(FORGED, 500))?;
    let mut client = probe(&scene, to)?;
    client.take_unsolicited(500 * FORGED.len())?;
    assert_eq!(failures(&scene)?[0], 0);
    let pushed = Answer::new(401).body("no").then_push(FORGED.repeat(200));
    let (_server, to) = serve(&scene, Script::new([pushed]))?;
    let mut client = probe(&scene, to)?;
    client.get("/")?;
    client.take_unsolicited(200 * FORGED.len())?;
    assert_eq!((failures(&scene)?[0], &scene.agent(0)?["state"]), (1, &"CLOSED".into()));
    Ok(())
}

#[test]
fn guessing_credentials_ends_with_the_guess_over_the_limit() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_auth_failures", 5);
    let scene = Scene::routed(1, &config)?;
    let (server, to) = serve(&scene, Script::statuses(&[401]))?;
    let mut client = probe(&scene, to)?;
    assert_eq!(client.get_many("/guess", 5)?.len(), 5);
    client.ask_only("/guess")?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let trip = scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
    assert_eq!(trip["event_data"]["tripped"]["cause"], "max_auth_failures");
    assert_eq!(trip["event_data"]["packet"]["direction"], "inbound", "the answer itself was dropped");
    assert_eq!(server.requests(), 6);
    let failed = |event: &&Value| event["event_data"]["violation_type"] == "authentication_failed";
    assert_eq!(scene.daemon.events()?.iter().filter(failed).count(), 6);
    let explained = scene.daemon.cli_ok(&["explain", NAMES[0]])?;
    assert!(explained.contains("max_auth_failures"), "{explained}");
    Ok(())
}

#[test]
fn refusals_and_resets_are_those_that_the_client_met() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let from = &scene.lab.agent(0).namespace;
    let world = &scene.lab.world().namespace;
    let closed = RefusingPort::take(world, (ANY4, 0))?;
    let early = ports::resetting(world, (ANY4, 0), LONG, ResetAfter::Request)?;
    let late = ports::resetting(world, (ANY4, 0), LONG, ResetAfter::Data(b"hello".to_vec()))?;
    let mut seen = [0; 3];
    for (port, times) in [(closed.address().port(), 7), (early.address().port(), 4), (late.address().port(), 3)] {
        let met = ports::visit(from, scene.world(port), times, b"hello", LONG);
        seen = [seen[0] + met.refused, seen[1] + met.reset_before_data, seen[2] + met.reset_after_data];
    }
    let [.., refused, reset] = failures(&scene)?;
    assert_eq!((seen, [refused, reset]), ([7, 4, 3], [7, 4]));
    Ok(())
}

#[test]
fn a_slow_answer_is_known_while_it_is_still_missing() -> Result<()> {
    let config = config(1).set("profiles.default.quarantine_threshold", 0.1);
    let scene = Scene::routed(1, &config)?;
    let (_server, to) = serve(&scene, Script::new([Answer::never()]))?;
    let clients = (0..12).map(|_| probe(&scene, to)).collect::<Result<Vec<_>>>()?;
    let mut clients = clients;
    for client in &mut clients {
        client.ask_only("/")?;
    }
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let trip = scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
    assert!(float(&trip["event_data"]["contributions"]["deviation"])? > 0.0, "{trip}");
    assert_eq!(number(&scene.agent(0)?["signals"]["response_time"]["samples"]), 0, "none was answered");
    Ok(())
}
