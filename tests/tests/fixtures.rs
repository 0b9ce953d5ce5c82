//! The fixtures themselves, so that the tests that rest on them test the daemon and not the fixtures.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use agentsec_tests::lab::{Lab, Plan};
use agentsec_tests::link::{self, End, Noise, veth_pairs};
use agentsec_tests::netns::Namespace;
use agentsec_tests::traffic::capture::{Capture, Keep};
use agentsec_tests::traffic::frames::{self, Path as FramePath};
use agentsec_tests::traffic::http::{self, HttpClient, HttpServer, Load};
use agentsec_tests::traffic::icmp::ping;
use agentsec_tests::traffic::packet::{PacketSocket, Way};
use agentsec_tests::traffic::sweep::{self, Knock};
use agentsec_tests::traffic::tcp::{self, TcpPlan, TcpSink};
use agentsec_tests::traffic::udp::{self, UdpPlan, UdpReceiver};
use agentsec_tests::wait;
use anyhow::{Context, Result};

const LONG: Duration = Duration::from_secs(60);
const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[test]
fn http_goes_through_a_routed_lab_in_both_versions_of_ip() -> Result<()> {
    let lab = Lab::routed(2)?;
    let server = HttpServer::start(&lab.world().namespace, (ANY6, 80), LONG)?;
    for address in [IpAddr::from(lab.world().v4), lab.world().v6.into()] {
        let mut client = HttpClient::new(&lab.agent(0).namespace, SocketAddr::new(address, 80));
        assert_eq!(client.get("/")?.body, b"ok\n");
        assert_eq!(client.get("/status/403")?.status, 403);
        assert_eq!(client.get("/bytes/100000")?.body.len(), 100_000);
        client.post("/upload", &[7; 5000])?;
    }
    let served = server.stop();
    assert_eq!((served.connections, served.requests, served.body_bytes), (2, 8, 10_000));
    Ok(())
}

#[test]
fn a_load_measures_every_request() -> Result<()> {
    let lab = Lab::routed(1)?;
    let server = HttpServer::start(&lab.world().namespace, (ANY4, 80), LONG)?;
    let address = SocketAddr::new(lab.world().v4.into(), 80);
    let plan = Load {
        path: "/delay/5".to_owned(),
        requests: 10,
        interval: Duration::ZERO,
        timeout: LONG,
        longest: LONG,
    };
    let report = http::load(&lab.agent(0).namespace, address, plan.clone())?.wait();
    assert_eq!((report.with_status(200), report.errors()), (10, 0));
    assert!(report.latency(0).context("ten were answered")? >= Duration::from_millis(5));
    assert_eq!(server.stop().connections, 1);
    let report = http::load(&lab.agent(0).namespace, address, plan)?.wait();
    assert_eq!(report.errors(), 10, "nobody listens any more");
    Ok(())
}

#[test]
fn a_quiet_lab_says_nothing() -> Result<()> {
    for lab in [Lab::routed(2)?, Lab::bridged(2)?] {
        lab.settle()?;
        for (interface, counters) in link::counters_of_all(lab.host())? {
            assert_eq!(counters, link::Counters::default(), "{interface}");
        }
    }
    Ok(())
}

#[test]
fn neighbours_in_a_bridged_lab_talk_directly() -> Result<()> {
    let lab = Lab::bridged(3)?;
    let server = HttpServer::start(&lab.agent(1).namespace, (ANY4, 8080), LONG)?;
    let before = lab.agent(2).counters()?;
    let address = SocketAddr::new(lab.agent(1).v4.into(), server.address().port());
    assert_eq!(HttpClient::new(&lab.agent(0).namespace, address).get("/")?.status, 200);
    assert_eq!(lab.agent(2).counters()?, before, "the third one hears nothing of it");
    for target in [IpAddr::from(lab.agent(2).v4), lab.agent(2).v6.into(), lab.world().v4.into()] {
        assert!(ping(&lab.agent(0).namespace, target, 2, 56, LONG)?.all_answered(), "{target}");
    }
    Ok(())
}

#[test]
fn interface_counters_equal_what_a_capture_saw() -> Result<()> {
    const COUNT: u64 = 2000;
    const PAYLOAD: usize = 333;
    let lab = Lab::routed(1)?;
    for (any, to) in [(ANY4, IpAddr::from(lab.world().v4)), (ANY6, lab.world().v6.into())] {
        let receiver = UdpReceiver::start(&lab.world().namespace, (any, 0), LONG)?;
        let capture = Capture::start(&lab.world().namespace, "eth0", LONG, Keep::default())?;
        let (agent, world) = (lab.agent(0).counters()?, lab.world().counters()?);
        let to = SocketAddr::new(to, receiver.address().port());
        let plan =
            UdpPlan { datagrams: COUNT, payload_bytes: PAYLOAD, interval: Duration::ZERO, longest: LONG };
        let sent = udp::numbered(&lab.agent(0).namespace, to, plan)?.wait();
        wait::until("all datagrams", LONG, || (receiver.datagrams() == COUNT).then_some(()))?;
        let (agent, world) = (lab.agent(0).counters()? - agent, lab.world().counters()? - world);
        let (received, captured) = (receiver.stop(), capture.stop()?);
        assert_eq!((sent.datagrams, sent.errors, captured.lost), (COUNT, 0, 0));
        assert!(received.missing(0..COUNT).is_empty());
        let wire = COUNT * udp::wire_bytes(to.ip(), PAYLOAD);
        assert_eq!((captured.arriving.frames, captured.arriving.bytes), (COUNT, wire));
        assert_eq!((world.rx_packets, world.rx_bytes), (COUNT, wire));
        assert_eq!((agent.tx_packets, agent.tx_bytes), (COUNT, wire));
    }
    Ok(())
}

#[test]
fn tcp_arrives_whole_with_and_without_offloads() -> Result<()> {
    for offloads in [false, true] {
        let lab = Plan::new(1).offloads(offloads).build()?;
        let sink = TcpSink::start(&lab.world().namespace, (ANY4, 0), LONG)?;
        let capture =
            Capture::start(&lab.world().namespace, "eth0", LONG, Keep { frames: 100_000, bytes: 0 })?;
        let to = SocketAddr::new(lab.world().v4.into(), sink.address().port());
        let plan = TcpPlan { flows: 3, bytes_per_flow: 4 << 20, connect_timeout: LONG, longest: LONG };
        let sent = tcp::send(&lab.agent(0).namespace, to, plan)?.wait();
        assert!(sent.iter().all(|flow| flow.complete && flow.error.is_none()), "{sent:?}");
        assert_eq!(sink.stop(), 12 << 20);
        let longest = capture.stop()?.frames.iter().map(|frame| frame.length).max().unwrap_or(0);
        assert_eq!(longest > 1514, offloads, "{longest} bytes with offloads {offloads}");
    }
    Ok(())
}

#[test]
fn a_flood_and_a_sweep_end_at_their_limits() -> Result<()> {
    let lab = Lab::routed(1)?;
    let agent = &lab.agent(0).namespace;
    let before = lab.world().counters()?;
    let receiver = UdpReceiver::start(&lab.world().namespace, (ANY4, 9), LONG)?;
    let to = SocketAddr::new(lab.world().v4.into(), 9);
    let plan = UdpPlan { datagrams: 5000, payload_bytes: 100, interval: Duration::ZERO, longest: LONG };
    assert_eq!(udp::flood(agent, to, plan)?.wait().datagrams, 5000);
    wait::until("the flood", LONG, || (receiver.datagrams() == 5000).then_some(()))?;
    assert_eq!((lab.world().counters()? - before).rx_packets, 5000);

    let crowd = (0..100).flat_map(|index| [lab.crowd_v4(index).into(), lab.crowd_v6(index).into()]);
    let targets = sweep::targets(crowd, &[80, 81, 82]);
    let report = sweep::sweep(agent, targets.clone(), Knock::Tcp(LONG), 8, LONG)?.wait();
    assert_eq!((report.refused, report.silent, report.failed), (600, 0, 0), "everybody in the crowd answers");
    let server = HttpServer::start(&lab.world().namespace, (ANY6, 80), LONG)?;
    let report = sweep::sweep(agent, targets, Knock::Tcp(LONG), 8, LONG)?.wait();
    assert_eq!((report.through, report.refused), (200, 400));
    drop(server);
    Ok(())
}

#[test]
fn packet_sockets_send_any_frame_and_captures_tell_tags() -> Result<()> {
    let lab = Lab::routed(1)?;
    let agent = lab.agent(0);
    let path = FramePath { from: agent.mac, to: agent.host_mac };
    let (to4, to6) = (lab.world().v4, lab.world().v6);
    let mut all: Vec<_> = frames::broken(path, (agent.v4, agent.v6), (to4, to6));
    let good = path.frame(frames::IPV4, &frames::udp4((agent.v4, 5), (to4, 9), b"tagged"));
    let single = frames::tagged(&good, frames::VLAN, 7);
    all.push(("QinQ", frames::tagged(&single, frames::QINQ, 9)));
    all.push(("VLAN", single));
    let torn = frames::torn_tags(path);
    let bytes_of =
        |frames: &[(&str, Vec<u8>)]| frames.iter().map(|(_, frame)| frame.len() as u64).sum::<u64>();
    for way in [Way::TrafficControl, Way::Bypass] {
        let before = link::counters(lab.host(), "agent-0")?;
        let capture = Capture::start(lab.host(), "agent-0", LONG, Keep { frames: 1000, bytes: 2000 })?;
        let socket = PacketSocket::open(&agent.namespace, "eth0", way)?;
        for (what, frame) in torn.iter().chain(&all) {
            socket.send(frame).with_context(|| (*what).to_owned())?;
        }
        capture.wait_for_arriving(all.len() as u64, LONG)?;
        let captured = capture.stop()?;
        let counted = link::counters(lab.host(), "agent-0")? - before;
        assert_eq!(captured.arriving.frames, all.len() as u64, "{way:?}");
        assert_eq!(captured.arriving.bytes, bytes_of(&all), "{way:?}");
        let (frames, bytes) = (all.len() + torn.len(), bytes_of(&all) + bytes_of(&torn));
        assert_eq!((counted.rx_packets, counted.rx_bytes), (frames as u64, bytes), "{way:?}");
        let last = captured.frames.iter().rfind(|frame| !frame.departing).context("it was kept")?;
        assert_eq!(last.vlan_tci, Some(7), "{way:?}");
        assert_eq!(last.bytes, good, "{way:?}");
    }
    Ok(())
}

#[test]
fn a_namespace_vanishes_with_its_interfaces_when_it_is_dropped() -> Result<()> {
    let (near, far) = (Namespace::new("near")?, Namespace::named("far")?);
    let name = Path::new("/run/netns").join(far.name());
    let end = |namespace, last| {
        let mac = [2, 0, 0, 0, 0, last];
        End {
            namespace,
            name: "pair0".to_owned(),
            mac,
            addresses: vec![format!("192.0.2.{last}/24")],
            noise: Noise::Usual,
        }
    };
    veth_pairs(&[(end(&near, 1), end(&far, 2))])?;
    assert!(ping(&near, Ipv4Addr::new(192, 0, 2, 2).into(), 1, 0, LONG)?.all_answered());
    assert!(name.exists());
    drop(far);
    assert!(!name.exists());
    wait::until("the other end to vanish", LONG, || {
        link::counters_of_all(&near).is_ok_and(|all| !all.contains_key("pair0")).then_some(())
    })
}

#[test]
fn commands_run_inside_and_still_see_the_bpf_file_system() -> Result<()> {
    let namespace = Namespace::new("inside")?;
    let output = namespace.command("cat").arg("/proc/self/net/dev").output()?;
    let interfaces = String::from_utf8_lossy(&output.stdout).lines().skip(2).count();
    assert_eq!(interfaces, 1, "only lo");
    let mounts = namespace.command("readlink").arg("/proc/self/ns/mnt").output()?;
    let ours = std::fs::read_link("/proc/self/ns/mnt")?;
    assert_eq!(String::from_utf8_lossy(&mounts.stdout).trim(), ours.to_string_lossy());
    Ok(())
}

#[test]
fn a_thousand_agents_are_there_in_seconds() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::many(1000)?;
    println!("1,000 agents took {:?}", start.elapsed());
    assert_eq!(link::counters_of_all(lab.host())?.len(), 1002, "the agents, the world and lo");
    let last = lab.agent(999);
    let capture = Capture::start(lab.host(), &last.host_interface, LONG, Keep::default())?;
    let frame = FramePath { from: last.mac, to: last.host_mac };
    let frame = frame.frame(frames::IPV4, &frames::udp4((last.v4, 1), (lab.world().v4, 9), b"from afar"));
    let socket = PacketSocket::open(&last.namespace, &last.interface, Way::TrafficControl)?;
    assert_eq!(socket.flood(frame, 10, LONG)?.wait(), 10);
    capture.wait_for_arriving(10, LONG)?;
    assert_eq!(capture.stop()?.arriving.frames, 10);
    // A hundred times what it takes: this is about a quadratic algorithm, not about a slow machine.
    assert!(start.elapsed() < Duration::from_secs(120));
    Ok(())
}
