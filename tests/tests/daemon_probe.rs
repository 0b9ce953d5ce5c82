//! HALF_OPEN: a little of what is typical passes, and nothing else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use agentsec_tests::daemon::Config;
use agentsec_tests::scene::{self, LONG, NAMES, Scene, number, passed, shoot};
use agentsec_tests::traffic::frames::{self, Path};
use agentsec_tests::traffic::http::{HttpClient, HttpServer};
use agentsec_tests::traffic::packet::{PacketSocket, Way};
use agentsec_tests::traffic::udp::{self, UdpPlan, UdpReceiver};
use agentsec_tests::wait;
use anyhow::Result;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const SOON: Duration = Duration::from_millis(500);
const RATE: u64 = 20_000;
const BURST: u64 = 128 << 10;
/// The crowd's address that is the resolver's.
const RESOLVER: u16 = 53;

/// One agent whose typical endpoints are the world's own address and a resolver, and probes that last.
fn config() -> Config {
    scene::config(1)
        .set("profiles.default.typical", vec!["10.78.0.0/24"])
        .set("profiles.default.resolvers", vec!["10.80.0.53"])
        .set("profiles.default.probe.rate", format!("{RATE}B"))
        .set("profiles.default.probe.burst", format!("{BURST}B"))
        .set("breaker.probe", "10m")
}

fn on_probation(scene: &Scene) -> Result<()> {
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    scene.daemon.cli_ok(&["release", NAMES[0]])?;
    scene.daemon.wait_for_state(NAMES[0], "HALF_OPEN", LONG).map(drop)
}

/// The crowd's address with this index.
fn crowd(scene: &Scene, index: u16, port: u16) -> SocketAddr {
    SocketAddr::new(scene.lab.crowd_v4(index).into(), port)
}

fn violations(scene: &Scene) -> Result<usize> {
    let events = scene.daemon.events()?;
    Ok(events.iter().filter(|event| event["event_type"] == "SECURITY_VIOLATION").count())
}

/// Puts the agent on probation and floods a typical endpoint for two seconds with datagrams of this payload: bytes and
/// packets that arrived, and the time from before the probation to after the flood.
fn flood(scene: &Scene, payload_bytes: usize) -> Result<(u64, u64, Duration)> {
    let before = scene.lab.world().counters()?;
    let start = Instant::now();
    on_probation(scene)?;
    let plan = UdpPlan {
        datagrams: u64::MAX,
        payload_bytes,
        interval: Duration::from_micros(200),
        longest: Duration::from_secs(2),
    };
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let to = scene.world(receiver.address().port());
    udp::numbered(&scene.lab.agent(0).namespace, to, plan)?.wait();
    let elapsed = start.elapsed();
    scene.lab.settle()?;
    let arrived = scene.lab.world().counters()? - before;
    let alice = scene.agent(0)?;
    assert_eq!(alice["state"], "HALF_OPEN", "being too quick is no violation");
    assert!(number(&alice["outbound"]["dropped_packets"]) > 100, "{alice}");
    assert_eq!(violations(scene)?, 0);
    Ok((arrived.rx_bytes, arrived.rx_packets, elapsed))
}

/// Bytes that a bucket gives in a time.
fn given(elapsed: Duration) -> u64 {
    BURST + (RATE as f64 * elapsed.as_secs_f64()).ceil() as u64
}

#[test]
fn what_is_typical_passes_no_faster_than_the_bucket_fills() -> Result<()> {
    let scene = Scene::routed(1, &config())?;
    let (bytes, _, elapsed) = flood(&scene, 1000)?;
    let one = 1042;
    assert!(bytes <= given(elapsed) + one, "{bytes} bytes in {elapsed:?}");
    assert!(bytes >= given(Duration::from_secs(1)), "{bytes} bytes in {elapsed:?}");
    Ok(())
}

#[test]
fn small_packets_are_no_way_around_the_bucket() -> Result<()> {
    const LEAST: u64 = 1000;
    let config = config().set("profiles.default.probe.min_charge", format!("{LEAST}B"));
    let scene = Scene::routed(1, &config)?;
    let (bytes, packets, elapsed) = flood(&scene, 10)?;
    assert!(packets * LEAST <= given(elapsed) + LEAST, "{packets} packets in {elapsed:?}");
    assert!(packets * LEAST >= BURST, "{packets} packets in {elapsed:?}");
    assert_eq!(bytes, packets * 52);
    Ok(())
}

/// A neighbour solicitation for an address of the host's.
fn solicitation(scene: &Scene) -> Vec<u8> {
    let agent = scene.lab.agent(0);
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0], &agent.host_v6.octets()[..]].concat();
    let path = Path { from: agent.mac, to: agent.host_mac };
    path.frame(frames::IPV6, &frames::ipv6(agent.v6, agent.host_v6, 58, &message))
}

#[test]
fn typical_endpoints_resolvers_and_what_the_link_needs_pass() -> Result<()> {
    let scene = Scene::routed(1, &config())?;
    let (agent, world) = (scene.lab.agent(0), scene.lab.world());
    let server = HttpServer::start(&world.namespace, (ANY4, 0), LONG)?;
    let _resolver = HttpServer::start(&world.namespace, (ANY4, 53), LONG)?;
    let datagrams = UdpReceiver::start(&world.namespace, (ANY4, 53), LONG)?;
    on_probation(&scene)?;
    assert!(scene.is_served(0, &server), "a typical endpoint, and its answers");
    let mut resolver = HttpClient::new(&agent.namespace, crowd(&scene, RESOLVER, 53)).timeout(LONG);
    assert_eq!(resolver.get("/")?.status, 200, "the resolver over TCP");
    shoot(agent, crowd(&scene, RESOLVER, 53), 5)?;
    wait::until("the resolver over UDP", LONG, || (datagrams.datagrams() == 5).then_some(()))?;
    scene.lab.settle()?;
    let [_, before, ..] = passed(&scene.agent(0)?);
    let socket = PacketSocket::open(&agent.namespace, "eth0", Way::Bypass)?;
    let path = Path { from: agent.mac, to: agent.host_mac };
    socket.send(&path.arp_request(agent.v4, agent.host_v4))?;
    socket.send(&solicitation(&scene))?;
    scene.daemon.wait_until("ARP and neighbour discovery", LONG, |status| {
        passed(&status["agents"][0])[1] == before + 2
    })?;

    let theirs = HttpServer::start(&agent.namespace, (ANY4, 0), LONG)?;
    let at_agent = SocketAddr::new(agent.v4.into(), theirs.address().port());
    assert!(HttpClient::new(&world.namespace, at_agent).timeout(SOON).get("/").is_err(), "it serves nobody");
    let alice = scene.agent(0)?;
    assert!(number(&alice["inbound"]["dropped_packets"]) > 0, "{alice}");
    assert_eq!(
        (&alice["state"], violations(&scene)?),
        (&"HALF_OPEN".into(), 0),
        "others cannot fail its probe"
    );

    let world_before = world.counters()?;
    shoot(agent, crowd(&scene, RESOLVER, 54), 5)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    scene.lab.settle()?;
    assert_eq!(world.counters()?.rx_packets, world_before.rx_packets, "another port is no resolver");
    scene.wait_for_event("the violation", |event| event["event_type"] == "SECURITY_VIOLATION")?;
    Ok(())
}

#[test]
fn as_many_violations_as_are_configured_open_the_circuit_again() -> Result<()> {
    let scene = Scene::routed(1, &config().set("profiles.default.probe.violations", 3))?;
    let agent = scene.lab.agent(0);
    let world = scene.lab.world().counters()?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    for round in 1..=2 {
        on_probation(&scene)?;
        shoot(agent, crowd(&scene, 1, 9), 1)?;
        shoot(agent, crowd(&scene, 2, 9), 1)?;
        let dropped = |status: &serde_json::Value| {
            number(&status["agents"][0]["outbound"]["dropped_packets"]) == 3 * round - 1
        };
        let status = scene.daemon.wait_until("two violations", LONG, dropped)?;
        assert_eq!(status["agents"][0]["state"], "HALF_OPEN", "round {round}: each probe starts from none");
        shoot(agent, crowd(&scene, 1, 9), 1)?;
        scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    }
    assert_eq!(scene.lab.world().counters()?.rx_packets, world.rx_packets, "none of it got out");
    assert!(!scene.is_served(0, &server), "open is open for typical endpoints too");
    Ok(())
}

#[test]
fn connections_to_untypical_endpoints_stay_dead_on_probation() -> Result<()> {
    let scene = Scene::routed(1, &config().set("profiles.default.probe.violations", 1000))?;
    let agent = scene.lab.agent(0);
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let port = server.address().port();
    let client = |to| HttpClient::new(&agent.namespace, to);
    let mut typical = client(scene.world(port)).timeout(LONG);
    let mut untypical = client(crowd(&scene, 1, port)).timeout(SOON);
    wait::until("established connections", LONG, || typical.get("/").ok().zip(untypical.get("/").ok()))?;
    let before = server.served();
    on_probation(&scene)?;
    assert!(untypical.get("/").is_err(), "an established connection to an untypical endpoint is alive");
    assert_eq!(typical.get("/")?.status, 200);
    let after = server.served();
    assert_eq!(after.connections, before.connections, "the typical one is the same connection still");
    assert_eq!(after.requests, before.requests + 1);
    scene.wait_for_event("the violation", |event| {
        event["event_type"] == "SECURITY_VIOLATION"
            && event["event_data"].to_string().contains(&scene.lab.crowd_v4(1).to_string())
    })?;
    assert_eq!(scene.agent(0)?["state"], "HALF_OPEN");
    Ok(())
}
