//! Killed, ended or stopped: enforcement goes on, and the next daemon takes over without a gap.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use agentsec_tests::link::{self, Counters};
use agentsec_tests::scene::{LONG, NAMES, Scene, config, is_trip, number};
use agentsec_tests::traffic::http::HttpServer;
use agentsec_tests::traffic::tcp::{self, TcpPlan, TcpSink};
use agentsec_tests::traffic::udp::{self, UdpPlan, UdpReceiver};
use agentsec_tests::wait;
use anyhow::Result;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const LIMIT: u64 = 1_000_000;

/// Sends far more than [`LIMIT`] over several flows and waits until nothing passes any more; then checks that no more
/// than the limit has passed either way.
fn exceed_the_limit(scene: &Scene) -> Result<()> {
    let (agent, world) = (scene.lab.agent(0), scene.lab.world());
    let sink = TcpSink::start(&world.namespace, (ANY4, 0), LONG)?;
    let passed = || -> Result<u64> { Ok(world.counters()?.rx_bytes + agent.counters()?.rx_bytes) };
    let dropped = || -> Result<Counters> { link::counters(scene.lab.host(), "agent-0") };
    let before = passed()?;
    let connect_timeout = Duration::from_secs(2);
    let plan = TcpPlan { flows: 4, bytes_per_flow: 3_000_000, connect_timeout, longest: LONG };
    let flows = tcp::send(&agent.namespace, scene.world(sink.address().port()), plan)?;
    // Nobody can be asked, so: near the limit, and then the host receives what the world does not.
    wait::until("the limit", LONG, || (passed().ok()? - before > LIMIT - 50_000).then_some(()))?;
    let arrived = dropped()?.rx_packets;
    scene.shoot(0, 9, 2000)?;
    assert!(dropped()?.rx_packets >= arrived + 2000, "the agent goes on sending");
    assert!(flows.stop().iter().all(|flow| !flow.complete));
    let total = passed()? - before;
    assert!(total <= LIMIT, "{total} bytes passed");
    Ok(())
}

/// The numbers of alice's trips that were found at a start or not.
fn trips(scene: &Scene) -> Result<Vec<(u64, bool)>> {
    let events = scene.daemon.events()?;
    let trips = events.iter().filter(|event| is_trip(event, NAMES[0])).map(|event| &event["event_data"]);
    Ok(trips.map(|data| (number(&data["trip_seq"]), data["found_at_start"] == true)).collect())
}

#[test]
fn no_packet_of_a_closed_agent_is_lost_or_uncounted_when_daemons_change() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    let before = link::counters(scene.lab.host(), "agent-0")?;
    let plan = UdpPlan {
        datagrams: 1_000_000,
        payload_bytes: 200,
        interval: Duration::from_micros(200),
        longest: LONG,
    };
    let to = scene.world(receiver.address().port());
    let stream = udp::numbered(&scene.lab.agent(0).namespace, to, plan)?;
    let more = |count: u64| {
        let enough = receiver.datagrams() + count;
        wait::until("more of the stream", LONG, || (receiver.datagrams() >= enough).then_some(()))
    };
    for round in 0..4 {
        more(100)?;
        if round % 2 == 0 {
            scene.daemon.kill9()?;
        } else {
            scene.daemon.terminate()?;
        }
        more(100)?;
        scene.daemon.restart()?;
    }
    more(100)?;
    let sent = stream.stop();
    wait::until("the last datagram", LONG, || (receiver.datagrams() >= sent.datagrams).then_some(()))?;
    let received = receiver.stop();
    assert_eq!((sent.errors, received.repeated, received.reordered), (0, 0, 0));
    assert_eq!(received.missing(0..sent.datagrams), Vec::<u64>::new());
    let link = link::counters(scene.lab.host(), "agent-0")? - before;
    let agent = scene.agent(0)?;
    assert_eq!(number(&agent["outbound"]["packets"]), sent.datagrams);
    assert_eq!(number(&agent["outbound"]["bytes"]), link.rx_bytes);
    assert_eq!(number(&agent["outbound"]["dropped_packets"]), 0);
    assert_eq!(number(&scene.daemon.status()?["daemon"]["strays"]["unidentified_packets"]), 0);
    Ok(())
}

#[test]
fn an_open_agent_stays_open_without_a_daemon() -> Result<()> {
    let mut scene = Scene::routed(2, &config(2))?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test", "--hold"])?;
    for crash in [true, false] {
        if crash {
            scene.daemon.kill9()?;
        } else {
            scene.daemon.terminate()?;
        }
        let before = scene.lab.world().counters()?;
        scene.shoot(0, 9, 1000)?;
        assert_eq!(scene.lab.world().counters()?, before);
        assert!(scene.is_served(1, &server), "the other agent is hurt");
        scene.daemon.restart()?;
        let agent = scene.agent(0)?;
        assert_eq!((&agent["state"], &agent["hold"]), (&"OPEN".into(), &true.into()));
        assert_eq!(agent["tripped"]["by"], "operator", "why is not forgotten");
    }
    assert!(number(&scene.agent(0)?["outbound"]["dropped_packets"]) >= 2000, "counted all along");
    Ok(())
}

#[test]
fn the_kernel_trips_while_no_daemon_runs_and_the_next_one_records_it() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_volume", "1MB");
    let mut scene = Scene::routed(1, &config)?;
    scene.daemon.kill9()?;
    exceed_the_limit(&scene)?;
    let mut found = Vec::new();
    for _ in 0..2 {
        scene.daemon.restart()?;
        let agent = scene.agent(0)?;
        assert_eq!((&agent["state"], &agent["tripped"]["by"]), (&"OPEN".into(), &"kernel".into()));
        scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
        found = trips(&scene)?;
    }
    assert_eq!(found, [(1, true)], "recorded once, as found at a start");
    Ok(())
}

#[test]
fn the_kernel_trips_while_the_daemon_is_stopped() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_volume", "1MB");
    let scene = Scene::routed(1, &config)?;
    scene.daemon.stop()?;
    exceed_the_limit(&scene)?;
    scene.daemon.cont()?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    scene.wait_for_event("the trip", |event| is_trip(event, NAMES[0]))?;
    assert_eq!(trips(&scene)?, [(1, false)]);
    Ok(())
}

#[test]
fn killed_at_any_moment_it_recovers_and_nothing_leaks() -> Result<()> {
    let config = config(2).set("breaker.cooldown", "100ms").set("breaker.probe", "100ms");
    let mut scene = Scene::routed(2, &config)?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 80), LONG)?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test", "--hold"])?;
    let world = scene.lab.world().counters()?;
    let agent = scene.lab.agent(0).counters()?;
    let plan = UdpPlan {
        datagrams: u64::MAX,
        payload_bytes: 100,
        interval: Duration::from_micros(500),
        longest: 2 * LONG,
    };
    let stream = udp::numbered(&scene.lab.agent(0).namespace, scene.world(9), plan)?;
    // Odd steps spread over what a start takes, and over the transitions that follow it.
    let start = Instant::now();
    for round in 0..20u32 {
        scene.daemon.kill9()?;
        scene.daemon.begin()?;
        std::thread::sleep(Duration::from_millis(u64::from(round * 37 % 100)));
        if round % 4 == 3 {
            scene.daemon.wait_ready()?;
            let mut bob = scene.daemon.command(&["quarantine", NAMES[1], "--reason", "test"]);
            let mut bob = bob.stdout(std::process::Stdio::null()).spawn()?;
            std::thread::sleep(Duration::from_millis(u64::from(round % 5)));
            scene.daemon.kill9()?;
            bob.wait()?;
            scene.daemon.begin()?;
        }
        assert_eq!(scene.lab.world().counters()?.rx_packets, world.rx_packets, "round {round}");
    }
    println!("20 kills took {:?}", start.elapsed());
    scene.daemon.wait_ready()?;
    assert!(stream.stop().datagrams > 0);
    assert_eq!(scene.lab.agent(0).counters()?.rx_packets, agent.rx_packets);
    let held = scene.agent(0)?;
    assert_eq!((&held["state"], &held["hold"]), (&"OPEN".into(), &true.into()));
    scene.daemon.cli_ok(&["release", NAMES[1], "--force"])?;
    assert!(scene.is_served(1, &server), "the other agent works again");
    Ok(())
}

#[test]
fn an_attachment_of_which_only_one_half_was_made_is_completed() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    for half in ["-in", "-out"] {
        scene.daemon.kill9()?;
        let links = scene.daemon.paths().pins();
        // What a daemon leaves behind that is killed between its two links.
        let mut removed = 0;
        for layout in std::fs::read_dir(&links)?.flatten() {
            for link in std::fs::read_dir(layout.path().join("links"))?.flatten() {
                if link.file_name().to_string_lossy().ends_with(half) {
                    std::fs::remove_file(link.path())?;
                    removed += 1;
                }
            }
        }
        assert_eq!(removed, 1, "{half}");
        scene.daemon.restart()?;
        let before = scene.agent(0)?;
        let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
        assert!(scene.is_served(0, &server), "{half}");
        let after = scene.agent(0)?;
        for way in ["outbound", "inbound"] {
            let packets = |view: &serde_json::Value| number(&view[way]["packets"]);
            assert!(packets(&after) > packets(&before), "{way} is not watched after {half} was missing");
        }
    }
    Ok(())
}
