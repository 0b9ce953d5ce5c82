//! The verdict table: every kind of frame, in every state and mode, both ways, through the loaded programs.

use agentsec_common::agent::{Direction, Identity};
use agentsec_common::counters::Strays;
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::ledger::violations_in;
use agentsec_common::packet::Class;
use agentsec_common::policy::{Mode, State};
use agentsec_common::profile::Profile;
use agentsec_tests::kernel_rig::frames::{Flow, flags, packet, stranger};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::table::{Probe, Row, rows, typical};
use agentsec_tests::kernel_rig::{Agent, Arena, Fate, LOOPBACK, Sizes, Skb, Tally};
use agentsec_tests::link::ip;
use agentsec_tests::netns::Namespace;
use agentsec_tests::traffic::frames::{VLAN, broken, tagged};
use anyhow::{Context, Result, ensure};

const STATES: [State; 3] = [State::Closed, State::HalfOpen, State::Open];
const MODES: [Mode; 3] = [Mode::Enforce, Mode::Shadow, Mode::Exempt];
const DIRECTIONS: [Direction; 2] = [Direction::Outbound, Direction::Inbound];

/// An arena whose row 0 expects what the table says.
fn arena() -> Result<Arena> {
    let mut arena = Arena::new()?;
    arena.install(0, &calm())?;
    arena.expect(0, &typical())?;
    Ok(arena)
}

/// One frame in one direction, counted as it should be.
fn check(arena: &Arena, agent: &Agent, row: &Row, fate: Fate) -> Result<()> {
    let (state, mode) = (agent.control.state, agent.control.mode);
    let is_dropped = row.is_dropped(state);
    let expected = if is_dropped && mode == Mode::Enforce { Fate::Dropped } else { Fate::Passed };
    ensure!(fate == expected, "{fate:?}, not {expected:?}");

    let size = (row.frame.len() as u64, 1);
    let tally = match expected {
        Fate::Passed => Tally { passed: size, ..Tally::default() },
        Fate::Dropped => Tally { dropped: size, ..Tally::default() },
    };
    let counters = arena.maps.counters(agent.slot)?;
    let other = DIRECTIONS[1 - row.direction as usize];
    ensure!(arena.tally(agent, row.direction)? == tally, "counted as {counters:?}, not {tally:?}");
    ensure!(arena.tally(agent, other)? == Tally::default(), "the other direction counts: {counters:?}");

    // An OPEN agent's frames are not even read.
    let mut classes = [0; 6];
    classes[row.class as usize] = u64::from(!(state == State::Open && mode == Mode::Enforce));
    ensure!(counters.classes == classes, "classes {:?}, not {classes:?}", counters.classes);
    let would = if is_dropped && mode == Mode::Shadow { size } else { (0, 0) };
    ensure!(
        (counters.would_drop_bytes, counters.would_drop_packets) == would,
        "would have dropped: {counters:?}"
    );

    let ledger = arena.maps.ledger(agent.slot)?;
    let violated = state == State::HalfOpen && mode != Mode::Exempt && row.probe == Probe::Violation;
    let violations = violations_in(ledger.violations, agent.control.epoch);
    ensure!(violations == u32::from(violated), "{violations} violations");
    ensure!(ledger.trip_seq == 0, "nothing here trips");
    Ok(())
}

#[test]
fn every_frame_meets_the_verdict_of_the_table_in_every_state_and_mode() -> Result<()> {
    let mut arena = arena()?;
    for row in rows() {
        for (state, mode) in STATES.into_iter().flat_map(|state| MODES.map(|mode| (state, mode))) {
            let agent = arena.agent_in(state, mode, 0)?;
            let fate = arena.run(row.direction, &row.frame.as_slice().into())?;
            check(&arena, &agent, &row, fate).with_context(|| {
                format!("{} {:?}, {state:?} and {mode:?}: {:02x?}", row.what, row.direction, row.frame)
            })?;
        }
    }
    assert_eq!(arena.maps.strays()?, Strays::default(), "every frame was somebody's");
    Ok(())
}

/// The row as it is after `length` bytes, by what the table's typical SYN is made of: with its first four words of
/// TCP it is read, with its IP header it is somebody's.
fn cut(row: &Row, ip_end: usize, length: usize) -> Row {
    let whole = length >= ip_end + 16;
    Row {
        what: row.what,
        direction: row.direction,
        frame: row.frame[..length].to_vec(),
        class: if whole { row.class } else { Class::Malformed },
        probe: if whole { Probe::Pass } else { Probe::Violation },
    }
}

#[test]
fn a_frame_cut_at_any_byte_is_counted_and_never_slips_through() -> Result<()> {
    let mut arena = arena()?;
    let row =
        |what, frame, class| Row { what, direction: Direction::Outbound, frame, class, probe: Probe::Pass };
    let v4 = Flow::to([10, 9, 0, 10], 443).tcp(Direction::Outbound, flags::SYN, b"data");
    let server6: std::net::Ipv6Addr = "fd09::10".parse()?;
    let v6 = Flow::to(server6, 443).tcp(Direction::Outbound, flags::SYN, b"data");
    // Without a tag the kernel runs no program on an IP header that is cut short.
    let tables = [
        (row("tagged IPv4", tagged(&v4, VLAN, 5), Class::Ipv4), 14, 38),
        (row("tagged IPv6", tagged(&v6, VLAN, 5), Class::Ipv6), 14, 58),
        (row("IPv4", v4, Class::Ipv4), 34, 34),
        (row("IPv6", v6, Class::Ipv6), 54, 54),
    ];
    for (row, from, ip_end) in &tables {
        for length in *from..=row.frame.len() {
            let row = cut(row, *ip_end, length);
            for state in STATES {
                let agent = arena.agent_in(state, Mode::Enforce, 0)?;
                let fate = arena.send(row.frame.as_slice())?;
                check(&arena, &agent, &row, fate)
                    .with_context(|| format!("{} of {length} bytes, {state:?}", row.what))?;
            }
        }
    }
    Ok(())
}

#[test]
fn whatever_the_lab_calls_broken_is_dropped_while_open_and_counted_while_closed() -> Result<()> {
    let mut arena = arena()?;
    let path = agentsec_tests::kernel_rig::frames::path(Direction::Outbound);
    let (near, far) =
        (("10.9.0.2".parse()?, "fd09::2".parse()?), ("10.9.0.10".parse()?, "fd09::10".parse()?));
    for (what, mut frame) in broken(path, near, far) {
        // Without a tag the kernel runs no program on an IP header that is cut short.
        if frame.len() < 54 {
            frame = tagged(&frame, VLAN, 5);
        }
        for direction in DIRECTIONS {
            let open = arena.agent_in(State::Open, Mode::Enforce, 0)?;
            assert_eq!(arena.run(direction, &frame.as_slice().into())?, Fate::Dropped, "{what}");
            let size = (frame.len() as u64, 1);
            assert_eq!(arena.tally(&open, direction)?, Tally { dropped: size, ..Tally::default() }, "{what}");
            let closed = arena.agent_in(State::Closed, Mode::Enforce, 0)?;
            assert_eq!(arena.run(direction, &frame.as_slice().into())?, Fate::Passed, "{what}");
            assert_eq!(
                arena.tally(&closed, direction)?,
                Tally { passed: size, ..Tally::default() },
                "{what}"
            );
            let classes = arena.maps.counters(closed.slot)?.classes;
            assert_eq!(classes.iter().sum::<u64>(), 1, "{what} is exactly one thing: {classes:?}");
        }
    }
    Ok(())
}

#[test]
fn replies_of_a_typical_server_pass_on_probation_and_a_strangers_do_not() -> Result<()> {
    let mut arena = arena()?;
    let agent = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    let server = Flow::to([10, 9, 0, 10], 443);
    assert_eq!(arena.send(server.tcp(Direction::Outbound, flags::SYN, b""))?, Fate::Passed);
    for (flags, payload) in [(flags::SYN_ACK, &b""[..]), (flags::ACK, b"data"), (flags::RST, b"")] {
        assert_eq!(arena.receive(server.tcp(Direction::Inbound, flags, payload))?, Fate::Passed);
    }
    assert_eq!(
        arena.receive(Flow::to(stranger(1), 443).tcp(Direction::Inbound, flags::ACK, b"data"))?,
        Fate::Dropped
    );
    assert_eq!(violations_in(arena.maps.ledger(agent.slot)?.violations, agent.control.epoch), 0);
    Ok(())
}

#[test]
fn an_unacknowledged_trip_drops_whatever_the_daemon_says() -> Result<()> {
    let mut arena = arena()?;
    for state in STATES {
        for mode in MODES {
            let agent = arena.agent_in(state, mode, 0)?;
            let mut ledger = arena.maps.ledger(agent.slot)?;
            ledger.trip_seq = 1;
            arena.maps.ledger.set(agent.slot, ledger, 0)?;
            let expected = if mode == Mode::Enforce { Fate::Dropped } else { Fate::Passed };
            for direction in DIRECTIONS {
                let frame = packet(direction, [10, 9, 0, 1], 1, &[8, 0, 0, 0, 0, 0, 0, 0]);
                assert_eq!(
                    arena.run(direction, &frame.into())?,
                    expected,
                    "{state:?} {mode:?} {direction:?}"
                );
            }
        }
    }
    Ok(())
}

/// What makes a frame nobody's, and how it is counted.
#[test]
fn a_frame_that_nobody_owns_is_dropped_and_counted_as_stray() -> Result<()> {
    let absent = Profile { flags: 0, ..calm() };
    type Break = fn(&mut Arena, &mut Agent) -> Result<()>;
    let unidentified = Strays { unidentified_packets: 1, unpoliced_packets: 0 };
    let unpoliced = Strays { unidentified_packets: 0, unpoliced_packets: 1 };
    let table: [(&str, Break, Strays); 5] = [
        ("no identity", |arena, _| arena.identify(LOOPBACK, Identity::NONE), unidentified),
        (
            "a slot that no map holds",
            |arena, _| arena.identify(LOOPBACK, Identity::of(Sizes::default().agents)),
            unpoliced,
        ),
        ("no policy", |arena, agent| arena.no_control(agent.slot), unpoliced),
        (
            "a row that was never written",
            |arena, agent| arena.change(agent, |control| control.row = 5),
            unpoliced,
        ),
        (
            "a row that no map holds",
            |arena, agent| arena.change(agent, |control| control.row = 64),
            unpoliced,
        ),
    ];
    let mut arena = arena()?;
    arena.install(5, &absent)?;
    for (what, break_it, expected) in table {
        for (direction, mode) in DIRECTIONS.into_iter().flat_map(|way| MODES.map(|mode| (way, mode))) {
            let mut agent = arena.agent_in(State::Closed, mode, 0)?;
            let before = arena.maps.strays()?;
            break_it(&mut arena, &mut agent)?;
            let frame = Flow::to(stranger(1), 443).udp(direction, b"data");
            assert_eq!(
                arena.run(direction, &frame.into())?,
                Fate::Dropped,
                "{what}, {direction:?}, {mode:?}"
            );
            let after = arena.maps.strays()?;
            let more = Strays {
                unidentified_packets: after.unidentified_packets - before.unidentified_packets,
                unpoliced_packets: after.unpoliced_packets - before.unpoliced_packets,
            };
            assert_eq!(more, expected, "{what}, {direction:?}, {mode:?}");
            assert_eq!(arena.tally(&agent, direction)?, Tally::default(), "{what}: it is nobody's");
        }
    }
    Ok(())
}

#[test]
fn an_interface_with_a_great_index_is_found_as_well() -> Result<()> {
    const FAR: u32 = 70_000;
    let namespace = Namespace::new("far")?;
    ip(&namespace, &format!("link add name near index 65535 type veth peer name far index {FAR}"))?;
    let mut arena = arena()?;
    let agent = arena.agent(0)?;
    let frame = Flow::to(stranger(1), 443).udp(Direction::Outbound, b"data");
    let send = |arena: &Arena, ifindex| {
        let skb = Skb::from(frame.as_slice()).on(ifindex);
        namespace.run(|| arena.run(Direction::Outbound, &skb))
    };
    for ifindex in [65_535, FAR] {
        assert_eq!(send(&arena, ifindex)?, Fate::Dropped, "{ifindex} is nobody yet");
        arena.identify(ifindex, Identity::of(agent.slot))?;
        assert_eq!(send(&arena, ifindex)?, Fate::Passed, "{ifindex} is the agent");
    }
    assert_eq!(arena.maps.strays()?.unidentified_packets, 2);
    assert_eq!(arena.tally(&agent, Direction::Outbound)?.passed, (2 * frame.len() as u64, 2));
    assert_eq!(arena.endpoints(agent.slot, EndpointKind::Opened)?.len(), 1);
    Ok(())
}
