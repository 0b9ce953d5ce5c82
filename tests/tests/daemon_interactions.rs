//! What agents had to do with others, from real connections to the log.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use agentsec_tests::daemon::Config;
use agentsec_tests::netns::Namespace;
use agentsec_tests::scene::{LONG, NAMES, Scene, config, number};
use agentsec_tests::servers::dns::{Answer as Named, DnsProbe, DnsServer, Reply};
use agentsec_tests::traffic::capture::{Capture, Keep};
use agentsec_tests::traffic::http::{HttpClient, HttpServer};
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// One exchange on a connection of its own; what came back.
fn exchange(namespace: &Namespace, to: SocketAddr, request: &str) -> Result<String> {
    namespace.run(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, LONG)?;
        stream.set_read_timeout(Some(LONG))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n")
}

/// Interactions of an agent that are in the log.
fn interactions(scene: &Scene, index: usize) -> Result<Vec<Value>> {
    let is_one =
        |event: &Value| event["event_type"] == "AGENT_INTERACTION" && event["agent_id"] == NAMES[index];
    Ok(scene.daemon.events()?.into_iter().filter(is_one).collect())
}

/// Waits until there are at least so many of an agent.
fn wait_for(scene: &Scene, index: usize, count: usize) -> Result<Vec<Value>> {
    let found = || interactions(scene, index).ok().filter(|found| found.len() >= count);
    wait::until("interactions", LONG, found).with_context(|| scene.daemon.said())
}

/// Sum of what the log says was left out for one reason.
fn left_out(scene: &Scene, what: &str, field: &str) -> Result<u64> {
    let events = scene.daemon.events()?;
    let losses = events.iter().filter(|event| event["event_type"] == "LOSS");
    let of = losses.filter(|event| event["event_data"]["what"] == what);
    Ok(of.map(|event| number(&event["event_data"][field])).sum())
}

/// Community IDs that tshark finds in a capture.
fn ids_by_tshark(pcap: &[u8]) -> Result<Vec<String>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("seen.pcap");
    std::fs::write(&path, pcap)?;
    let output = Command::new("tshark")
        .args(["-n", "-r"])
        .arg(&path)
        .args(["--enable-protocol", "communityid", "-T", "fields", "-e", "communityid"])
        .output()
        .context("starting tshark")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

#[test]
fn both_sides_tell_a_short_exchange_with_one_id_that_tshark_gives_it_too() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    let (alice, bob) = (scene.lab.agent(0), scene.lab.agent(1));
    let server = HttpServer::start(&bob.namespace, (ANY6, 0), LONG)?;
    let port = server.address().port();
    for (index, to) in [IpAddr::from(bob.v4), bob.v6.into()].into_iter().enumerate() {
        let capture =
            Capture::start(scene.lab.host(), "agent-0", LONG, Keep { frames: 1000, bytes: 65_535 })?;
        let request = get(
            "/status/404",
            &format!("Authorization: Bearer secret-1\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n"),
        );
        exchange(&alice.namespace, SocketAddr::new(to, port), &request)?;
        let seen = [wait_for(&scene, 0, index + 1)?, wait_for(&scene, 1, index + 1)?];
        let ids = ids_by_tshark(&capture.stop()?.to_pcap())?;
        let hash: String =
            Sha256::digest(request.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        for side in &seen {
            let (event, data) = (&side[index], &side[index]["event_data"]);
            assert!(ids.iter().any(|id| *id == event["correlation_id"]), "{event} of {ids:?}");
            assert_eq!(event["correlation_id"], data["community_id"]);
            assert_eq!((&data["source_agent"], &data["target_agent"]), (&NAMES[0].into(), &NAMES[1].into()));
            assert_eq!((&data["peer_known_by"], &data["ended"]), (&"flow".into(), &true.into()));
            assert_eq!((&data["message_type"], &data["auth_method"]), (&"http GET".into(), &"bearer".into()));
            assert_eq!((&data["trace_id"], &data["payload_hash"]), (&TRACE.into(), &hash.as_str().into()));
            assert_eq!(number(&data["payload_hash_bytes"]), request.len() as u64);
            assert!(!event.to_string().contains("secret-1"));
        }
        let [a, b] = [&seen[0][index]["event_data"], &seen[1][index]["event_data"]];
        assert_eq!((&a["response_code"], number(&a["requests"])), (&404.into(), 1));
        assert!(a["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 60_000.0), "{a}");
        assert_eq!((&a["opened_by"], &b["opened_by"]), (&"agent".into(), &"remote".into()));
        // What one side sent the other one got; one side may have ended it a last acknowledgement earlier.
        let close = |sent: &Value, got: &Value| {
            number(&sent["packets"]).abs_diff(number(&got["packets"])) <= 1
                && number(&sent["bytes"]).abs_diff(number(&got["bytes"])) <= 100
        };
        assert!(close(&a["outbound"], &b["inbound"]) && close(&a["inbound"], &b["outbound"]), "{a} {b}");
        let by_id = scene.daemon.cli_ok(&[
            "events",
            "--json",
            "--correlation",
            seen[0][index]["correlation_id"].as_str().context("an id")?,
        ])?;
        assert_eq!(by_id.lines().count(), 2, "{by_id}");
    }
    Ok(())
}

#[test]
fn a_long_connection_is_told_at_an_interval_and_at_its_end_without_a_byte_twice() -> Result<()> {
    let scene = Scene::routed(1, &config(1).set("interactions.tell_every", "1s"))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(server.address().port());
    let mut client = HttpClient::new(&scene.lab.agent(0).namespace, to).timeout(LONG);
    let mut requests = 0;
    while interactions(&scene, 0)?.len() < 3 {
        ensure!(client.get("/bytes/1000")?.status == 200, "served");
        requests += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    client.hang_up();
    let ended = scene.wait_for_event("its end", |event| event["event_data"]["ended"] == true)?;
    assert_eq!(ended["event_data"]["message_type"], "http GET");
    let told = interactions(&scene, 0)?;
    assert!(told.len() >= 4);
    assert!(told[..told.len() - 1].iter().all(|event| event["event_data"]["ended"] == false));
    let sum = |field: &str, of: &str| -> u64 {
        told.iter().map(|event| number(&event["event_data"][field][of])).sum()
    };
    let asked: u64 = told.iter().map(|event| number(&event["event_data"]["requests"])).sum();
    assert_eq!(asked, requests);
    let agent = scene.agent(0)?;
    let (outbound, inbound) = (&agent["outbound"], &agent["inbound"]);
    // But for an acknowledgement after the end.
    let left = number(&outbound["packets"]) - sum("outbound", "packets");
    assert!(left <= 1, "{left}");
    assert!(number(&inbound["packets"]) - sum("inbound", "packets") <= 1);
    assert!(number(&inbound["bytes"]) - sum("inbound", "bytes") <= 100);
    Ok(())
}

#[test]
fn dns_and_tls_are_told_as_what_they_are() -> Result<()> {
    let scene = Scene::routed(1, &config(1).set("interactions.tell_every", "1s"))?;
    let world = &scene.lab.world().namespace;
    let answers = vec![Reply::new(Named::Address)];
    let _resolver = DnsServer::start(world, (ANY4, 53), LONG, answers)?;
    let mut probe = DnsProbe::open(&scene.lab.agent(0).namespace, scene.world(53), LONG)?;
    for _ in 0..3 {
        ensure!(probe.ask("a.example.test")?.answered.is_some(), "answered");
    }
    let dns = scene.wait_for_event("DNS", |event| event["event_data"]["message_type"] == "dns")?;
    let data = &dns["event_data"];
    assert_eq!((&data["protocol"], &data["remote_port"]), (&"udp".into(), &53.into()));
    assert_eq!((number(&data["requests"]), number(&data["outbound"]["packets"])), (3, 3));
    assert_eq!(number(&data["inbound"]["packets"]), 3);
    // What a TLS client says first, to whoever listens.
    let sink = agentsec_tests::traffic::tcp::TcpSink::start(world, (ANY4, 0), LONG)?;
    let to = scene.world(sink.address().port());
    scene.lab.agent(0).namespace.run(|| -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&to, LONG)?;
        Ok(stream.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0])?)
    })?;
    let tls = scene.wait_for_event("TLS", |event| event["event_data"]["message_type"] == "tls")?;
    assert_eq!(
        (&tls["event_data"]["auth_method"], &tls["event_data"]["payload_hash"]),
        (&"tls".into(), &Value::Null)
    );
    Ok(())
}

/// Calm with what its agents do here.
fn calm(agents: usize) -> Config {
    config(agents)
        .set("profiles.default.typical", vec!["0.0.0.0/0"])
        .set("interactions.interval", "1s")
        .set("interactions.one_in", 1_000_000)
}

#[test]
fn calm_agents_are_sampled_and_counted_and_risky_ones_are_complete() -> Result<()> {
    const MANY: usize = 60;
    let scene = Scene::routed(2, &calm(2))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY6, 0), LONG)?;
    let to = scene.world(server.address().port());
    for _ in 0..MANY {
        exchange(&scene.lab.agent(0).namespace, to, &get("/", ""))?;
    }
    let all = |scene: &Scene| -> Option<u64> {
        let recorded = interactions(scene, 0).ok()?.len() as u64;
        Some(recorded + left_out(scene, "interactions_sampled", "interactions").ok()?)
    };
    wait::until("all of them", LONG, || all(&scene).filter(|all| *all == MANY as u64))?;
    let recorded = interactions(&scene, 0)?.len();
    assert!((1..MANY / 2).contains(&recorded), "{recorded}");
    // IPv6 is nothing that bob is expected to use.
    let untypical = SocketAddr::new(scene.lab.world().v6.into(), to.port());
    exchange(&scene.lab.agent(1).namespace, untypical, &get("/", ""))?;
    let risky = |status: &Value| {
        status["agents"].as_array().is_some_and(|agents| {
            agents.iter().any(|agent| agent["id"] == NAMES[1] && agent["risk"].as_f64() > Some(0.1))
        })
    };
    scene.daemon.wait_until("some risk", LONG, risky)?;
    for _ in 0..MANY {
        exchange(&scene.lab.agent(1).namespace, to, &get("/", ""))?;
    }
    let told = wait_for(&scene, 1, MANY + 1)?;
    assert_eq!(told.len(), MANY + 1);
    Ok(())
}

#[test]
fn what_goes_beyond_the_bound_is_counted_and_told() -> Result<()> {
    const MANY: u64 = 300;
    let scene = Scene::routed(1, &config(1).set("interactions.max_per_second", 20))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(server.address().port());
    for _ in 0..MANY {
        exchange(&scene.lab.agent(0).namespace, to, &get("/", ""))?;
    }
    let all = || -> Option<u64> {
        let recorded = interactions(&scene, 0).ok()?.len() as u64;
        Some(recorded + left_out(&scene, "interactions_dropped", "interactions").ok()?)
    };
    wait::until("all of them", LONG, || all().filter(|all| *all == MANY))?;
    assert!(left_out(&scene, "interactions_dropped", "outbound_bytes")? > 0);
    Ok(())
}

#[test]
fn what_the_ring_cannot_hold_is_counted_and_told() -> Result<()> {
    const MANY: usize = 32_000;
    let scene = Scene::routed(1, &config(1))?;
    // Nobody reads, and nobody listens there: each attempt is over at once.
    scene.daemon.signal(Signal::SIGSTOP)?;
    let world = scene.lab.world().v4;
    let attempts = scene.lab.agent(0).namespace.run(|| {
        let refused = |port: usize| {
            TcpStream::connect_timeout(&SocketAddr::new(world.into(), 2000 + (port % 50) as u16), LONG)
                .is_err()
        };
        (0..MANY).filter(|port| refused(*port)).count()
    });
    scene.daemon.signal(Signal::SIGCONT)?;
    assert_eq!(attempts, MANY);
    let held = (1 << 22) / (136 + 8);
    let loss = scene.wait_for_event("the loss", |event| {
        event["event_type"] == "LOSS" && event["event_data"]["interactions_lost"].as_u64() > Some(0)
    })?;
    assert_eq!(loss["agent_id"], NAMES[0]);
    let lost = number(&scene.agent(0)?["lost"]["interactions"]) as usize;
    assert!((1..=MANY - held).contains(&lost), "{lost} of {MANY}, and {held} are held");
    Ok(())
}

#[test]
fn what_ended_while_no_daemon_ran_is_told_by_the_next() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(server.address().port());
    scene.daemon.kill9()?;
    exchange(&scene.lab.agent(0).namespace, to, &get("/dead", ""))?;
    scene.daemon.restart()?;
    let told = wait_for(&scene, 0, 1)?;
    assert_eq!(told[0]["event_data"]["message_type"], "http GET");
    // And nothing that waits is lost when one stops.
    exchange(&scene.lab.agent(0).namespace, to, &get("/late", ""))?;
    scene.daemon.terminate()?;
    assert_eq!(interactions(&scene, 0)?.len(), 2);
    Ok(())
}

#[test]
fn the_next_daemon_goes_on_where_the_log_ends() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1).set("interactions.tell_every", "1s"))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(server.address().port());
    let mut client = HttpClient::new(&scene.lab.agent(0).namespace, to).timeout(LONG);
    ensure!(client.get("/bytes/100000")?.body.len() == 100_000, "served");
    wait_for(&scene, 0, 1)?;
    scene.daemon.restart()?;
    ensure!(client.get("/bytes/1000")?.body.len() == 1000, "served");
    client.hang_up();
    let ended = scene.wait_for_event("its end", |event| event["event_data"]["ended"] == true)?;
    assert_eq!(ended["event_data"]["message_type"], "http GET", "what it began with is known too");
    let told = interactions(&scene, 0)?;
    let bytes: u64 = told.iter().map(|event| number(&event["event_data"]["inbound"]["bytes"])).sum();
    let passed = number(&scene.agent(0)?["inbound"]["bytes"]);
    assert!(passed - bytes <= 100, "{bytes} of {passed}, nothing twice");
    Ok(())
}

#[test]
fn connections_of_an_agent_that_is_let_go_are_told() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(server.address().port());
    let mut client = HttpClient::new(&scene.lab.agent(0).namespace, to).timeout(LONG);
    ensure!(client.get("/")?.status == 200, "served");
    scene.daemon.wait_until("its connection", LONG, |status| status["agents"][0]["signals"]["flows"] == 1)?;
    // Two ways out: the one that a reload finds, and the one that a start finds.
    scene.daemon.set_config(&config(0))?;
    scene.daemon.cli_ok(&["reload"])?;
    assert_eq!(wait_for(&scene, 0, 1)?[0]["event_data"]["message_type"], "http GET");
    scene.daemon.set_config(&config(1))?;
    scene.daemon.cli_ok(&["reload"])?;
    let attached = |status: &Value| status["agents"][0]["attachments"][0]["status"] == "attached";
    scene.daemon.wait_until("the agent's attachment", LONG, attached)?;
    ensure!(client.get("/")?.status == 200, "served");
    scene.daemon.kill9()?;
    scene.daemon.set_config(&config(0))?;
    scene.daemon.restart()?;
    wait_for(&scene, 0, 2).map(drop)
}

#[test]
fn they_can_be_switched_off_and_on_by_a_reload() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(server.address().port());
    for off in
        [config(1).set("interactions.enabled", false), config(1).set("profiles.default.interactions", "off")]
    {
        scene.daemon.set_config(&off)?;
        scene.daemon.cli_ok(&["reload"])?;
        let before = interactions(&scene, 0)?.len();
        exchange(&scene.lab.agent(0).namespace, to, &get("/silent", ""))?;
        scene.daemon.set_config(&config(1))?;
        scene.daemon.cli_ok(&["reload"])?;
        exchange(&scene.lab.agent(0).namespace, to, &get("/told", ""))?;
        assert_eq!(wait_for(&scene, 0, before + 1)?.len(), before + 1, "one of the two");
    }
    Ok(())
}

#[test]
fn what_no_packet_shows_is_recorded_as_it_is_reported_on_both_sides() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    let hash = "ab".repeat(32);
    let (sender, receiver) = (NAMES[0], NAMES[1]);
    let sent = [
        "report",
        sender,
        "--id",
        "job-7",
        "--to",
        receiver,
        "--type",
        "queue publish",
        "--payload-hash",
        &hash,
    ];
    scene.daemon.cli_ok(&sent)?;
    scene.daemon.cli_ok(&["report", receiver, "--id", "job-7", "--from", sender, "--auth-method", "mtls"])?;
    let said = scene.daemon.cli_ok(&["events", "--json", "--correlation", "job-7"])?;
    let events = said.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let agents: Vec<_> = events.iter().map(|event| event["agent_id"].as_str()).collect();
    assert_eq!(agents, [Some(sender), Some(receiver)]);
    for event in &events {
        let data = &event["event_data"];
        assert_eq!((&data["source_agent"], &data["target_agent"]), (&sender.into(), &receiver.into()));
    }
    assert_eq!(events[0]["event_data"]["payload_hash"], hash);
    assert_eq!(events[1]["event_data"]["auth_method"], "mtls");
    for (wrong, code, told) in [
        (
            &["report", sender, "--id", "x", "--auth-method", "Bearer secret"][..],
            2,
            "not the name of a scheme",
        ),
        (&["report", sender, "--id", ""], 2, "id: it is \"\""),
        (&["report", "nobody", "--id", "x"], 4, "nobody"),
    ] {
        let output = scene.daemon.cli(wrong)?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code) && error.contains(told), "{:?}: {error}", output.status);
        ensure!(!error.contains("secret"), "{error}");
    }
    Ok(())
}
