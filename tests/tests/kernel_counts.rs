//! Counting in the kernel: wire bytes and packets, exactly, also of packets that become several.

use agentsec_common::agent::Direction::{Inbound, Outbound};
use agentsec_common::policy::{Mode, State};
use agentsec_common::profile::Profile;
use agentsec_tests::kernel_rig::frames::{Flow, flags, stranger};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::{Arena, Fate, Skb, Tally};
use agentsec_tests::traffic::frames::{VLAN, tagged};
use anyhow::Result;

/// A super-packet and what a wire carries of it.
struct Super {
    what: &'static str,
    frame: Vec<u8>,
    gso_size: u32,
    gso_segs: u32,
    wire: (u64, u64),
}

fn supers() -> Vec<Super> {
    let flow = Flow::to(stranger(1), 443);
    let flow6 = Flow::to("2001:db8::1".parse::<std::net::Ipv6Addr>().expect("an address"), 443);
    let tcp = |bytes| flow.tcp(Outbound, flags::ACK, &vec![0; bytes]);
    let row = |what, frame, gso_size, gso_segs, wire| Super { what, frame, gso_size, gso_segs, wire };
    vec![
        row("an ordinary packet", tcp(1000), 0, 0, (1054, 1)),
        row("segments without a size are none", tcp(1000), 0, 3, (1054, 1)),
        row("three full segments", tcp(3000), 1000, 3, (3054 + 2 * 54, 3)),
        row("the last one short", tcp(2001), 1000, 3, (2055 + 2 * 54, 3)),
        row("from a tap, which does not count segments", tcp(3000), 1000, 0, (3054 + 2 * 54, 3)),
        row("from a tap, the last one short", tcp(2001), 1000, 0, (2055 + 2 * 54, 3)),
        row("a sender that counts too few", tcp(3000), 1000, 1, (3054 + 2 * 54, 3)),
        row("a sender that counts more", tcp(3000), 1000, 5, (3054 + 4 * 54, 5)),
        row("a segment that is larger than the payload", tcp(100), 1000, 1, (154, 1)),
        row("no payload at all", tcp(0), 1000, 0, (54, 1)),
        row("UDP", flow.udp(Outbound, &[0; 3000]), 1000, 3, (3042 + 2 * 42, 3)),
        row("IPv6", flow6.tcp(Outbound, flags::ACK, &[0; 3000]), 1000, 3, (3074 + 2 * 74, 3)),
        row("behind a tag", tagged(&tcp(3000), VLAN, 5), 1000, 3, (3058 + 2 * 58, 3)),
    ]
}

#[test]
fn a_super_packet_counts_as_the_segments_it_becomes() -> Result<()> {
    let mut arena = Arena::new()?;
    arena.install(0, &calm())?;
    for Super { what, frame, gso_size, gso_segs, wire } in supers() {
        let skb = || Skb::from(frame.as_slice()).segmented(gso_size, gso_segs);
        let closed = arena.agent(0)?;
        assert_eq!(arena.send(skb())?, Fate::Passed, "{what}");
        assert_eq!(
            arena.tally(&closed, Outbound)?,
            Tally { passed: wire, dropped: (0, 0) },
            "{what}, passed"
        );
        let open = arena.agent_in(State::Open, Mode::Enforce, 0)?;
        // Twice: the first one's headers are read for a notice anyway.
        assert_eq!((arena.send(skb())?, arena.send(skb())?), (Fate::Dropped, Fate::Dropped), "{what}");
        let twice = (2 * wire.0, 2 * wire.1);
        assert_eq!(
            arena.tally(&open, Outbound)?,
            Tally { passed: (0, 0), dropped: twice },
            "{what}, dropped"
        );
    }
    Ok(())
}

#[test]
fn the_segments_of_a_super_packet_count_against_the_limit() -> Result<()> {
    let mut arena = Arena::new()?;
    let frame = Flow::to(stranger(1), 443).tcp(Outbound, flags::ACK, &[0; 3000]);
    let wire = 3054 + 2 * 54;
    for (max_volume, fate) in [(wire, Fate::Passed), (wire - 1, Fate::Dropped)] {
        arena.install(0, &Profile { max_volume, ..calm() })?;
        let agent = arena.agent(0)?;
        assert_eq!(arena.send(Skb::from(frame.as_slice()).segmented(1000, 0))?, fate);
        let trip = arena.maps.ledger(agent.slot)?.trip;
        let named = if fate == Fate::Dropped { (wire, wire as u32) } else { (0, 0) };
        assert_eq!((trip.volume, trip.packet_bytes), named);
    }
    Ok(())
}

#[test]
fn a_flow_is_counted_in_the_agent_and_in_its_endpoint_alike() -> Result<()> {
    let mut arena = Arena::new()?;
    arena.install(0, &Profile { max_volume: 5000, ..calm() })?;
    let agent = arena.agent(0)?;
    let flow = Flow::to(stranger(1), 443);
    let mut expected = [(0, 0), (0, 0)];
    let frames = [
        (Outbound, flow.tcp(Outbound, flags::SYN, b"")),
        (Inbound, flow.tcp(Inbound, flags::SYN_ACK, b"")),
        (Outbound, flow.tcp(Outbound, flags::ACK, b"GET / HTTP/1.1")),
        (Inbound, flow.tcp(Inbound, flags::ACK, &[0; 1400])),
        (Inbound, flow.tcp(Inbound, flags::ACK, &[0; 1400])),
    ];
    for (direction, frame) in frames {
        expected[direction as usize].0 += frame.len() as u64;
        expected[direction as usize].1 += 1;
        assert_eq!(arena.run(direction, &frame.into())?, Fate::Passed);
    }
    // Dropped, so it is not the endpoint's.
    let much = flow.tcp(Outbound, flags::ACK, &[0; 2000]);
    assert_eq!(arena.send(much.as_slice())?, Fate::Dropped);
    let endpoint = arena.maps.endpoints.get(&flow.opened(&agent, 6), 0)?;
    for direction in [Outbound, Inbound] {
        let at = direction as usize;
        assert_eq!((endpoint.bytes[at], endpoint.packets[at]), expected[at], "{direction:?}");
        assert_eq!(arena.tally(&agent, direction)?.passed, expected[at], "{direction:?}");
    }
    assert_eq!(arena.tally(&agent, Outbound)?.dropped, (much.len() as u64, 1));
    assert!(endpoint.first_seen_ns <= endpoint.last_seen_ns && endpoint.first_seen_ns > 0);
    Ok(())
}

#[test]
fn agents_are_counted_apart() -> Result<()> {
    let mut arena = Arena::new()?;
    arena.install(0, &calm())?;
    let agents = [arena.agent(0)?, arena.agent(0)?, arena.agent(0)?];
    for (n, agent) in agents.iter().enumerate() {
        arena.turn(agent)?;
        arena.run_repeatedly(
            Outbound,
            &Flow::to(stranger(1), 9).udp_of(Outbound, 100).into(),
            n as u32 + 1,
        )?;
    }
    for (n, agent) in agents.iter().enumerate() {
        let packets = n as u64 + 1;
        assert_eq!(arena.tally(agent, Outbound)?.passed, (100 * packets, packets));
        let endpoint = arena.maps.endpoints.get(&Flow::to(stranger(1), 9).opened(agent, 17), 0)?;
        assert_eq!(endpoint.packets, [packets, 0]);
    }
    Ok(())
}
