//! What the daemon tells of connections to real servers, beside what the client itself saw.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::daemon::Config;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, is_trip, number};
use agentsec_tests::servers::certificates::Authority;
use agentsec_tests::servers::delays::jittered;
use agentsec_tests::servers::dns::{Answer as Named, DnsProbe, DnsServer, Reply};
use agentsec_tests::servers::http_answer::Answer;
use agentsec_tests::servers::http_probe::HttpProbe;
use agentsec_tests::servers::http_server::{Script, ScriptedHttp};
use agentsec_tests::servers::http2::{self, Answer as Called, Http2Server, Manner};
use agentsec_tests::servers::logins::{Ending, Protocol};
use agentsec_tests::servers::ports::{self, RefusingPort, ResetAfter};
use agentsec_tests::servers::statistics::{self, within_5_percent_or_200us};
use agentsec_tests::servers::tls::{Fate, TlsClient, Version, requiring_certificate};
use anyhow::{Context, Result, bail};
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

fn millis(value: &Value) -> Result<Duration> {
    Ok(Duration::from_secs_f64(float(value)? / 1e3))
}

/// What is told, what the client measured, and whether that is the same.
type Compared = (String, bool);

fn compared(name: &str, told: Duration, measured: Option<Duration>) -> Result<Compared> {
    let measured = measured.context("a time")?;
    Ok((format!("{name}: {told:?} for {measured:?}"), within_5_percent_or_200us(told, measured)))
}

/// Compares until everything agrees. A client that a busy machine wakes late measures that as well, and the kernel
/// does not; a kernel that is wrong is wrong every time.
fn agree(compare: impl Fn() -> Result<Vec<Compared>>) -> Result<()> {
    let mut tried = Vec::new();
    for _ in 0..5 {
        let off: Vec<_> = compare()?.into_iter().filter(|(_, is_same)| !is_same).collect();
        if off.is_empty() {
            return Ok(());
        }
        tried.push(off);
    }
    bail!("{tried:?}")
}

#[test]
fn response_times_are_those_that_the_client_measured() -> Result<()> {
    agree(http_response_times)
}

fn http_response_times() -> Result<Vec<Compared>> {
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
    // Fifty milliseconds are normal.
    let deviation = statistics::mean_absolute_deviation(&times, Duration::from_millis(50));
    let measured = [
        ("p50_ms", statistics::p50(&times)),
        ("p99_ms", statistics::p99(&times)),
        ("deviation_ms", deviation),
    ];
    let compare = |(name, measured)| compared(name, millis(&told[name])?, measured);
    let mut compared = measured.into_iter().map(compare).collect::<Result<Vec<_>>>()?;
    let endpoints: Value = serde_json::from_str(&scene.daemon.cli_ok(&["endpoints", NAMES[0], "--json"])?)?;
    let endpoint = endpoints["endpoints"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["port"] == to.port()))
        .with_context(|| format!("{endpoints}"))?;
    assert_eq!(number(&endpoint["responses"]), times.len() as u64);
    let (found, exact) = (millis(&endpoint["p50_ms"])?, statistics::p50(&times).context("a time")?);
    compared.push((format!("endpoint: {found:?} for {exact:?}"), found.abs_diff(exact) <= exact / 7));
    Ok(compared)
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
    for (port, times) in
        [(closed.address().port(), 7), (early.address().port(), 4), (late.address().port(), 3)]
    {
        let met = ports::visit(from, scene.world(port), times, b"hello", LONG);
        seen = [seen[0] + met.refused, seen[1] + met.reset_before_data, seen[2] + met.reset_after_data];
    }
    let [.., refused, reset] = failures(&scene)?;
    assert_eq!((seen, [refused, reset]), ([7, 4, 3], [7, 4]));
    Ok(())
}

#[test]
fn a_slow_answer_is_known_while_it_is_still_missing() -> Result<()> {
    let config = config(1)
        .set("profiles.default.quarantine_threshold", 0.1)
        .set("profiles.default.typical", vec!["any"]);
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

#[test]
fn a_refused_certificate_counts_in_every_version_of_tls_and_a_good_one_does_not() -> Result<()> {
    let (ours, foreign) = (Authority::new("ours")?, Authority::new("foreign")?);
    let (good, stranger) = (ours.issue("client.test")?, foreign.issue("client.test")?);
    for version in [Version::V12, Version::V13] {
        let scene = Scene::routed(1, &config(1))?;
        let world = &scene.lab.world().namespace;
        let server = requiring_certificate(world, (ANY4, 0), LONG, &ours, version)?;
        let to = scene.world(server.address().port());
        let visit = |identity| -> Result<(bool, u64)> {
            let fate = TlsClient::new(&ours, identity)?.visit(&scene.lab.agent(0).namespace, to, LONG)?;
            let alerts = number(&scene.agent(0)?["signals"]["auth"]["tls_alert"]);
            Ok((matches!(fate, Fate::Welcome { .. }), alerts))
        };
        assert_eq!(visit(Some(&good))?, (true, 0), "{version:?}");
        for (what, identity, before) in [("none", None, 0), ("foreign", Some(&stranger), 1)] {
            assert_eq!(visit(identity)?, (false, before + 1), "a certificate that is {what}, {version:?}");
        }
    }
    Ok(())
}

#[test]
fn dns_answers_are_measured_by_their_ids() -> Result<()> {
    agree(dns_response_times)
}

fn dns_response_times() -> Result<Vec<Compared>> {
    let scene = Scene::routed(1, &config(1))?;
    let delays = jittered(3, 12, Duration::from_millis(150), Duration::from_millis(350));
    let mut script = Reply::delayed(&delays);
    script.push(Reply::new(Named::Lost));
    let server = DnsServer::start(&scene.lab.world().namespace, (ANY4, 53), LONG, script)?;
    let mut probe =
        DnsProbe::open(&scene.lab.agent(0).namespace, scene.world(server.address().port()), LONG)?;
    let mut times = Vec::new();
    for _ in &delays {
        times.push(probe.ask("api.example.test")?.answered.context("answered")?);
    }
    let told = scene.daemon.wait_until("all are told", LONG, |status| {
        status["agents"][0]["signals"]["response_time"]["samples"] == times.len()
    })?;
    let told = &told["agents"][0]["signals"];
    assert_eq!(number(&told["requests"]), times.len() as u64);
    let measured = [("p50_ms", statistics::p50(&times)), ("p99_ms", statistics::p99(&times))];
    let compare = |(name, measured)| compared(name, millis(&told["response_time"][name])?, measured);
    measured.into_iter().map(compare).collect()
}

/// The article's thresholds for an agent that talks to a typical service.
fn article() -> Config {
    config(1)
        .set("profiles.default.typical", vec!["any"])
        .set("profiles.default.expected_volume", "30MB")
        .set("profiles.default.limits.max_auth_failures", 20)
        .set("profiles.default.limits.max_variance", "500ms")
}

#[test]
fn slow_answers_trip_by_their_limit() -> Result<()> {
    let scene = Scene::routed(1, &article())?;
    let slow = Answer::new(200).pause(Duration::from_millis(700));
    let (_server, to) = serve(&scene, Script::new([slow]))?;
    std::thread::scope(|scope| {
        for _ in 0..12 {
            // The last answers never come.
            scope.spawn(|| probe(&scene, to).and_then(|mut client| Ok(client.ask_only("/").map(drop)?)));
        }
    });
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let trip = scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
    assert_eq!(trip["event_data"]["tripped"]["cause"], "max_variance", "{trip}");
    Ok(())
}

#[test]
fn failures_and_slow_answers_at_half_strength_trip_only_together() -> Result<()> {
    let scene = Scene::routed(1, &article().set("profiles.default.quarantine_threshold", 0.4))?;
    let (_refusing, to) = serve(&scene, Script::statuses(&[401]))?;
    probe(&scene, to)?.get_many("/", 6)?;
    let alone = scene.agent(0)?;
    assert_eq!((&alone["state"], &alone["contributions"]["auth"]), (&"CLOSED".into(), &0.3.into()));
    let slow = Answer::new(200).pause(Duration::from_millis(300));
    let (_slow, to) = serve(&scene, Script::new([slow]))?;
    let mut client = probe(&scene, to)?;
    // Six quick answers count as well, so it takes some for the mean.
    while scene.agent(0)?["state"] == "CLOSED" {
        client.ask_only("/")?;
        std::thread::sleep(Duration::from_millis(320));
    }
    let trip = scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
    assert_eq!(trip["event_data"]["tripped"]["cause"], "risk");
    let contributions = &trip["event_data"]["contributions"];
    assert_eq!((&contributions["auth"], &contributions["deviation"]), (&0.3.into(), &0.2.into()), "{trip}");
    Ok(())
}

#[test]
fn ordinary_work_trips_nothing_and_scores_nothing() -> Result<()> {
    let scene = Scene::routed(1, &article())?;
    let quick = Answer::new(200).body(vec![b'x'; 200]);
    let (_server, to) = serve(&scene, Script::new([quick.clone()]))?;
    probe(&scene, to)?.get_many("/keep-alive", 200)?;
    let (_bulk, bulk) = serve(&scene, Script::new([Answer::new(200).body(vec![b'x'; 5_000_000])]))?;
    assert_eq!(probe(&scene, bulk)?.get("/bulk")?.body.len(), 5_000_000);
    // Chatty: many small questions over several connections.
    for _ in 0..10 {
        probe(&scene, to)?.get_many("/rpc", 50)?;
    }
    // Idle, then a burst.
    std::thread::sleep(Duration::from_millis(500));
    let mut clients = (0..20).map(|_| probe(&scene, to)).collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.get("/burst")?;
    }
    // A service that is down for a while, and one login that fails at first.
    let closed = RefusingPort::take(&scene.lab.world().namespace, (ANY4, 0))?;
    let down = scene.world(closed.address().port());
    assert_eq!(ports::visit(&scene.lab.agent(0).namespace, down, 30, b"", LONG).refused, 30);
    let (_login, login) = serve(&scene, Script::statuses(&[401, 200]))?;
    probe(&scene, login)?.get_many("/login", 2)?;
    let agent = scene.agent(0)?;
    assert_eq!((&agent["state"], &agent["risk"]), (&"CLOSED".into(), &0.0.into()), "{agent}");
    Ok(())
}

/// Failed authentications that the daemon finds in samples, once there are so many.
fn wait_for_sampled(scene: &Scene, count: u64) -> Result<()> {
    let found = |status: &Value| status["agents"][0]["signals"]["auth"]["sampled"] == count;
    scene.daemon.wait_until(&format!("{count} are found"), LONG, found).map(drop)
}

#[test]
fn statuses_of_http2_and_grpc_are_those_that_the_client_met_however_often_they_come() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let answers = [
        Called::Status(401),
        Called::GrpcTrailersOnly(16),
        Called::Status(200),
        Called::Status(403),
        Called::GrpcTrailersOnly(0),
        Called::Grpc(7),
        Called::Status(404),
    ];
    let script = answers.map(http2::Reply::new).to_vec();
    let server = Http2Server::start(&scene.lab.world().namespace, (ANY4, 0), LONG, script)?;
    let to = scene.world(server.address().port());
    let met = http2::ask(&scene.lab.agent(0).namespace, to, 28, Manner::OneByOne, LONG)?;
    let refused = |one: &&http2::Measured| {
        matches!(one.status, Some(401 | 403 | 407)) || matches!(one.grpc_status, Some(7 | 16))
    };
    let count = met.iter().filter(refused).count() as u64;
    assert_eq!(count, 16);
    wait_for_sampled(&scene, count)?;
    let agent = scene.agent(0)?;
    assert_eq!(number(&agent["signals"]["requests"]), 28);
    assert_eq!(number(&agent["signals"]["auth_failures"]), count);
    assert_eq!(scene.daemon.status()?["daemon"]["samples_cut"], 0);
    Ok(())
}

#[test]
fn logins_that_other_protocols_refuse_are_found_and_no_others() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let (world, agent) = (&scene.lab.world().namespace, &scene.lab.agent(0).namespace);
    let mut expected = 0;
    for protocol in Protocol::ALL {
        for ending in [Ending::Accepted, Ending::OtherError, Ending::Refused] {
            let dialogue = protocol.login(ending);
            let server = dialogue.serve(world, (ANY4, protocol.port()), LONG, Duration::ZERO)?;
            dialogue.hold(agent, scene.world(protocol.port()), LONG)?;
            drop(server);
        }
        expected += 1;
        wait_for_sampled(&scene, expected).with_context(|| format!("{protocol:?}"))?;
    }
    let said = scene.daemon.events()?;
    let found = said.iter().filter(|event| event["event_data"]["context"]["kind"] == "sampled").count();
    assert_eq!(found, Protocol::ALL.len());
    Ok(())
}

#[test]
fn what_only_samples_tell_trips_without_another_packet() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_auth_failures", 3);
    let scene = Scene::routed(1, &config)?;
    let dialogue = Protocol::PostgreSql.login(Ending::Refused);
    let port = Protocol::PostgreSql.port();
    let _server = dialogue.serve(&scene.lab.world().namespace, (ANY4, port), LONG, Duration::ZERO)?;
    for _ in 0..4 {
        dialogue.hold(&scene.lab.agent(0).namespace, scene.world(port), LONG)?;
    }
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let trip = scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
    assert_eq!(trip["event_data"]["tripped"]["cause"], "max_auth_failures", "{trip}");
    Ok(())
}
