//! Traffic of agents that behave: it passes, and every byte of it is counted.

use std::net::{IpAddr, Ipv6Addr};

use agentsec_tests::lab::Plan;
use agentsec_tests::link;
use agentsec_tests::scene::{LONG, Scene, config, number, passed, talk};
use agentsec_tests::traffic::capture::{Capture, Keep};
use agentsec_tests::traffic::tcp::{self, TcpPlan, TcpSink};
use anyhow::Result;

const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[test]
fn traffic_of_closed_agents_passes_in_both_versions_of_ip() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    for index in [0, 1] {
        talk(&scene.lab, scene.lab.agent(index))?;
        let agent = scene.agent(index)?;
        assert_eq!(agent["state"], "CLOSED");
        assert_eq!(number(&agent["outbound"]["dropped_packets"]), 0);
        assert_eq!(number(&agent["inbound"]["dropped_packets"]), 0);
    }
    Ok(())
}

#[test]
fn counters_equal_the_interface_and_a_capture_to_the_byte() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    let host = scene.lab.host();
    let before = link::counters(host, "agent-0")?;
    let capture = Capture::start(host, "agent-0", LONG, Keep::default())?;
    talk(&scene.lab, scene.lab.agent(0))?;
    // The last acknowledgements of closed connections are still on their way.
    scene.lab.settle()?;
    let link = link::counters(host, "agent-0")? - before;
    let seen = capture.stop()?;
    assert_eq!(seen.lost, 0, "the capture missed frames");
    let expected = [link.rx_bytes, link.rx_packets, link.tx_bytes, link.tx_packets];
    let captured = [seen.arriving.bytes, seen.arriving.frames, seen.departing.bytes, seen.departing.frames];
    assert_eq!(captured, expected, "capture against interface");
    assert_eq!(passed(&scene.agent(0)?), expected, "agentsec against interface");
    assert_eq!(passed(&scene.agent(1)?), [0; 4], "the other agent has said nothing");
    Ok(())
}

#[test]
fn a_super_packet_counts_as_the_segments_it_becomes() -> Result<()> {
    // Ethernet, IPv4, and TCP with timestamps: what every further segment of a super-packet has on a wire.
    const HEADERS: u64 = 14 + 20 + 32;
    const PAYLOAD: u64 = 8 << 20;
    let scene = Scene::around(Plan::new(1).offloads(true).build()?, &config(1))?;
    let sink = TcpSink::start(&scene.lab.world().namespace, (ANY, 0), LONG)?;
    let before = link::counters(scene.lab.host(), "agent-0")?;
    let plan = TcpPlan { flows: 1, bytes_per_flow: PAYLOAD, connect_timeout: LONG, longest: LONG };
    let to = scene.world(sink.address().port());
    let flows = tcp::send(&scene.lab.agent(0).namespace, to, plan)?.wait();
    assert!(flows[0].complete, "{flows:?}");
    scene.lab.settle()?;
    let link = link::counters(scene.lab.host(), "agent-0")? - before;
    let [bytes, packets, ..] = passed(&scene.agent(0)?);
    assert!(
        packets > link.rx_packets,
        "{packets} packets, {} on the link: no super-packets?",
        link.rx_packets
    );
    assert!(packets >= PAYLOAD / 1448, "{packets} packets cannot carry it");
    assert_eq!(bytes - link.rx_bytes, (packets - link.rx_packets) * HEADERS);
    Ok(())
}
