//! Ways to look like less, or like somebody else, at every door: pieces, tunnels, many small flows, patience, crowds.
//! `docs/evasions.md` lists them with what holds each.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use agentsec_common::agent::Direction::Outbound;
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::notice::{NOTICES_PER_SECOND, NoticeKind};
use agentsec_common::packet::protocol::{ICMP, TCP, UDP};
use agentsec_common::policy::{Mode, State};
use agentsec_common::profile::Profile;
use agentsec_common::risk::Cause;
use agentsec_common::window::{BucketClock, LONGEST_NS, SHORTEST_NS};
use agentsec_tests::kernel_rig::frames::{Flow, flags, packet, path, stranger, with};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::table::typical;
use agentsec_tests::kernel_rig::{Agent, Arena, Door, Fate, Sizes, Tally};
use agentsec_tests::traffic::frames::IPV4;
use anyhow::{Context, Result, ensure};

/// A server that the table's profile calls typical, on port 443.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 10);

/// Where a frame's IP header has its fragment word.
const FRAGMENT: usize = 14 + 6;

/// Bytes of a frame as a door counts them: a cgroup sees no link header.
fn counted(door: Door, frame: &[u8]) -> u64 {
    frame.len() as u64 - if door == Door::Cgroup { 14 } else { 0 }
}

/// Port and protocol of every endpoint that the agent has opened, in the order of their addresses.
fn opened(arena: &Arena, agent: &Agent) -> Result<Vec<(u8, u16)>> {
    let all = arena.endpoints(agent.slot, EndpointKind::Opened)?;
    Ok(all.into_iter().map(|(key, _)| (key.protocol, key.port)).collect())
}

/// The pieces of packets by which filters are passed, and whether each may pass on probation.
fn pieces() -> Vec<(&'static str, Vec<u8>, bool)> {
    let typical = Flow::to(SERVER, 443).tcp(Outbound, flags::SYN, b"data");
    let other = Flow::to(SERVER, 444).tcp(Outbound, flags::SYN, b"data");
    let tiny = packet(Outbound, SERVER, TCP, &Flow::to(SERVER, 443).ports(Outbound));
    vec![
        ("a first fragment with typical ports", with(&typical, FRAGMENT, &[0x20, 0]), true),
        ("one that overlaps it from its ninth byte", with(&other, FRAGMENT, &[0x20, 1]), false),
        ("one that overlaps its end", with(&other, FRAGMENT, &[0, 2]), false),
        ("a second beginning with other ports", with(&other, FRAGMENT, &[0x20, 0]), false),
        ("a first fragment that ends before the flags", with(&tiny, FRAGMENT, &[0x20, 0]), false),
        ("the rest of it", with(&typical, FRAGMENT, &[0, 1]), false),
    ]
}

#[test]
fn pieces_that_overlap_or_are_too_small_have_no_ports_to_borrow() -> Result<()> {
    for door in Door::ALL {
        let mut arena = Arena::at(door)?;
        arena.install(0, &calm())?;
        arena.expect(0, &typical())?;
        for (state, everything) in [(State::Closed, true), (State::HalfOpen, false), (State::Open, false)] {
            let agent = arena.agent_in(state, Mode::Enforce, 0)?;
            let mut expected = Tally::default();
            for (what, frame, is_typical) in pieces() {
                let passes = everything || (state == State::HalfOpen && is_typical);
                let fate = arena.send(frame.as_slice())?;
                let wanted = if passes { Fate::Passed } else { Fate::Dropped };
                ensure!(fate == wanted, "{what} at {door:?}, {state:?}: {fate:?}");
                let tally = if passes { &mut expected.passed } else { &mut expected.dropped };
                *tally = (tally.0 + counted(door, &frame), tally.1 + 1);
            }
            assert_eq!(arena.tally(&agent, Outbound)?, expected, "{door:?}, {state:?}");
            if everything {
                let without_ports_and_with = [(TCP, 0), (TCP, 443), (TCP, 444)];
                assert_eq!(opened(&arena, &agent)?, without_ports_and_with, "{door:?}");
            }
        }
    }
    Ok(())
}

/// Payloads in something harmless, with the endpoint that each is.
fn tunnels() -> Vec<(&'static str, Vec<u8>, (u8, u16))> {
    let relay = Ipv4Addr::new(203, 0, 113, 80);
    let inner = Flow::to(stranger(1), 443).tcp(Outbound, flags::SYN, &[0x5a; 300]);
    let inner_packet = inner.get(14..).unwrap_or_default();
    let over = |protocol, header: &[u8], payload: &[u8]| {
        packet(Outbound, relay, protocol, &[header, payload].concat())
    };
    let echo = [8, 0, 0, 0, 0, 1, 0, 1];
    let vxlan = [&[0x08, 0, 0, 0, 0, 0, 7, 0][..], &inner].concat();
    vec![
        ("DNS", Flow::to(relay, 53).udp(Outbound, &[0x5a; 220]), (UDP, 53)),
        ("ICMP echo", over(ICMP, &echo, &[0x5a; 1200]), (ICMP, 0)),
        ("VXLAN", Flow::to(relay, 4789).udp(Outbound, &vxlan), (UDP, 4789)),
        ("GRE", over(47, &[0, 0, 0x08, 0], inner_packet), (47, 0)),
        ("IP in IP", over(4, &[], inner_packet), (4, 0)),
        ("IPv6 in IPv4", over(41, &[0x60], &[0; 39]), (41, 0)),
        ("ESP", over(50, &[0, 0, 0, 9, 0, 0, 0, 1], &[0x5a; 90]), (50, 0)),
    ]
}

#[test]
fn a_tunnel_is_its_outer_packet_counts_whole_and_trips_on_its_volume() -> Result<()> {
    const PACKETS: u64 = 10;
    for door in Door::ALL {
        let mut arena = Arena::at(door)?;
        for (row, (what, frame, endpoint)) in (0..).zip(tunnels()) {
            let bytes = counted(door, &frame);
            arena.install(row, &Profile { max_volume: PACKETS * bytes, ..calm() })?;
            let agent = arena.agent(row)?;
            for _ in 0..PACKETS {
                assert_eq!(arena.send(frame.as_slice())?, Fate::Passed, "{what} at {door:?}");
            }
            let all = arena.endpoints(agent.slot, EndpointKind::Opened)?;
            let seen: Vec<_> =
                all.iter().map(|(key, at)| ((key.protocol, key.port), at.bytes[0], at.packets[0])).collect();
            assert_eq!(seen, [(endpoint, PACKETS * bytes, PACKETS)], "{what} at {door:?}");
            assert_eq!(arena.send(frame.as_slice())?, Fate::Dropped, "{what} at {door:?}, one too many");
            let trip = arena.maps.ledger(agent.slot)?.trip;
            assert_eq!(Cause::from_byte(trip.cause), Some(Cause::VolumeLimit), "{what} at {door:?}");
            assert_eq!((trip.protocol, trip.remote_port), endpoint, "{what} at {door:?}");
            let of = Tally { passed: (PACKETS * bytes, PACKETS), dropped: (bytes, 1) };
            assert_eq!(arena.tally(&agent, Outbound)?, of, "{what} at {door:?}");
        }
    }
    Ok(())
}

#[test]
fn a_volume_split_over_flows_ports_and_protocols_is_one_volume() -> Result<()> {
    const FLOWS: u16 = 600;
    for door in Door::ALL {
        let mut arena = Arena::at(door)?;
        let frame = |n: u16| {
            let flow = Flow { local_port: 20_000 + n, ..Flow::to(stranger(n), 1000 + n) };
            match n % 3 {
                0 => flow.udp_of(Outbound, 500),
                1 => flow.tcp(Outbound, flags::ACK, &[0x5a; 500 - 54]),
                _ => packet(Outbound, stranger(n), 47, &[0; 500 - 34]),
            }
        };
        let limit = u64::from(FLOWS) * counted(door, &frame(0));
        arena.install(0, &Profile { max_volume: limit, ..calm() })?;
        let agent = arena.agent(0)?;
        for n in 0..FLOWS {
            assert_eq!(arena.send(frame(n))?, Fate::Passed, "flow {n} at {door:?}");
        }
        assert_eq!(arena.send(frame(FLOWS))?, Fate::Dropped, "{door:?}");
        assert_eq!(arena.tally(&agent, Outbound)?.passed, (limit, u64::from(FLOWS)), "{door:?}");
        let trip = arena.maps.ledger(agent.slot)?.trip;
        assert_eq!(trip.volume, limit + counted(door, &frame(0)), "{door:?}");
    }
    Ok(())
}

#[test]
fn an_agent_that_fills_its_list_of_endpoints_takes_nothing_from_anothers() -> Result<()> {
    const CAP: u32 = 16;
    // Room for two full lists of either kind, and no more.
    let mut arena = Arena::sized(Sizes { endpoints: 4 * CAP, ..Sizes::default() })?;
    arena.install(0, &Profile { endpoint_cap: CAP, ..calm() })?;
    let (victim, greedy) = (arena.agent(0)?, arena.agent(0)?);
    let open = |arena: &Arena, n| arena.send(Flow::to(stranger(n), 443).tcp(Outbound, flags::SYN, b""));
    let list = |arena: &Arena, agent: &Agent| arena.endpoints(agent.slot, EndpointKind::Opened);
    arena.turn(&victim)?;
    for n in 0..3 {
        open(&arena, n)?;
    }
    let before = list(&arena, &victim)?;
    arena.turn(&greedy)?;
    for n in 0..2000 {
        open(&arena, n)?;
    }
    assert_eq!(list(&arena, &greedy)?.len(), CAP as usize);
    let overflow = arena.maps.ledger(greedy.slot)?.endpoint_overflow;
    assert_eq!(overflow, 2000 - u64::from(CAP), "what found no room is counted");
    assert_eq!(list(&arena, &victim)?, before, "as it was, to the byte");
    arena.turn(&victim)?;
    for n in 3..CAP as u16 {
        open(&arena, n)?;
    }
    assert_eq!(list(&arena, &victim)?.len(), CAP as usize, "and its room is still its own");
    assert_eq!(arena.maps.ledger(victim.slot)?.endpoint_overflow, 0);
    Ok(())
}

#[test]
fn a_slow_drip_that_a_short_window_forgets_is_held_by_a_window_of_a_day() -> Result<()> {
    let mut arena = Arena::new()?;
    for (row, window_ns) in [(0, SHORTEST_NS), (1, LONGEST_NS)] {
        let bucket_multiplier = BucketClock::for_window(window_ns).multiplier();
        arena.install(row, &Profile { bucket_multiplier, max_volume: 1000, ..calm() })?;
    }
    let agents = [arena.agent(0)?, arena.agent(1)?];
    let drop = Flow::to(stranger(1), 443).udp_of(Outbound, 400);
    let mut fates = Vec::new();
    for _ in 0..3 {
        for agent in &agents {
            arena.turn(agent)?;
            fates.push(arena.send(drop.as_slice())?);
        }
        // Longer than the short window and its spare bucket, on however slow a machine.
        thread::sleep(Duration::from_millis(1500));
    }
    let [short, long] = [0, 1].map(|at| fates.iter().skip(at).step_by(2).copied().collect::<Vec<_>>());
    assert_eq!(short, [Fate::Passed; 3], "a window of a second");
    assert_eq!(long, [Fate::Passed, Fate::Passed, Fate::Dropped], "a window of a day");
    assert_eq!(arena.maps.ledger(agents[1].slot)?.trip.volume, 1200);
    Ok(())
}

#[test]
fn a_trip_whose_notice_finds_no_room_is_in_the_ledger_with_its_packet() -> Result<()> {
    let mut arena = Arena::sized(Sizes { ring_bytes: 4096, ..Sizes::default() })?;
    arena.install(0, &Profile { max_unusual_endpoints: NOTICES_PER_SECOND, ..calm() })?;
    let agents: Vec<_> = (0..4).map(|_| arena.agent(0)).collect::<Result<_>>()?;
    let open = |arena: &Arena, n| arena.send(Flow::to(stranger(n), 443).tcp(Outbound, flags::SYN, b""));
    for agent in &agents {
        arena.turn(agent)?;
        for n in 0..NOTICES_PER_SECOND as u16 {
            open(&arena, n)?;
        }
    }
    let last = agents.last().context("there are four")?;
    let lost = arena.maps.ledger(last.slot)?.notices_lost;
    assert!(lost > 0, "the ring is full");
    assert_eq!(open(&arena, 999)?, Fate::Dropped);
    let ledger = arena.maps.ledger(last.slot)?;
    assert_eq!((ledger.trip_seq, ledger.trip.seq), (1, 1));
    assert_eq!(ledger.trip.remote, Flow::to(stranger(999), 443).opened(last, TCP).remote);
    assert!(ledger.notices_lost > lost, "that it could not be told is counted");
    let told = arena.maps.notices()?;
    assert!(told.iter().all(|notice| notice.kind != NoticeKind::Trip as u8), "it was told after all");
    Ok(())
}

#[test]
fn an_address_of_the_agents_choice_inside_or_outside_of_its_packet_changes_nothing_at_its_interface()
-> Result<()> {
    let mut arena = Arena::new()?;
    arena.install(0, &calm())?;
    let good = Flow::to(stranger(1), 443).udp(Outbound, b"data");
    let ether = |at: usize| with(&good, at, &[2, 9, 9, 9, 9, 9]);
    let ip = |from: [u8; 4]| with(&good, 14 + 12, &from);
    let everybody = [0xff; 6];
    let rows = [
        ("another Ethernet source", ether(6)),
        ("another Ethernet destination", ether(0)),
        ("Ethernet broadcast", with(&good, 0, &everybody)),
        ("Ethernet multicast", with(&good, 0, &[0x33, 0x33, 0, 0, 0, 1])),
        ("another IPv4 source", ip([10, 9, 0, 99])),
        ("a source of nobody", ip([0, 0, 0, 0])),
        ("a multicast source", ip([224, 0, 0, 1])),
        ("IPv4 broadcast", with(&good, 14 + 16, &[0xff; 4])),
        ("IPv4 multicast", with(&good, 14 + 16, &[224, 0, 0, 251])),
        ("an IPv4 packet of a protocol that nobody knows", with(&good, 14 + 9, &[253])),
        ("an empty IPv4 packet", path(Outbound).frame(IPV4, &good[14..34])),
    ];
    for (what, frame) in rows {
        for (state, fate) in [(State::Closed, Fate::Passed), (State::Open, Fate::Dropped)] {
            let agent = arena.agent_in(state, Mode::Enforce, 0)?;
            assert_eq!(arena.send(frame.as_slice())?, fate, "{what}, {state:?}");
            let size = (frame.len() as u64, 1);
            let tally = arena.tally(&agent, Outbound)?;
            let seen = if fate == Fate::Passed { tally.passed } else { tally.dropped };
            assert_eq!(seen, size, "{what}, {state:?}");
        }
    }
    Ok(())
}
