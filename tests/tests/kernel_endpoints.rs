//! Whom an agent talks to, as the kernel sees it: who opened, what is typical, what is unusual and how often.

use std::net::Ipv4Addr;

use agentsec_common::agent::Direction::{Inbound, Outbound};
use agentsec_common::endpoint::{EndpointKind, Typical};
use agentsec_common::packet::protocol::{TCP, UDP};
use agentsec_common::policy::{Mode, State};
use agentsec_common::profile::Profile;
use agentsec_common::typical::{ACCEPTED, ANY_PROTOCOL, OPENED, PortRule};
use agentsec_common::window::BucketClock;
use agentsec_tests::kernel_rig::frames::{Flow, flags, stranger};
use agentsec_tests::kernel_rig::profiles::{calm, rule};
use agentsec_tests::kernel_rig::{Agent, Arena, Fate, coarse_ns};
use anyhow::Result;

fn arena(profile: Profile) -> Result<Arena> {
    let mut arena = Arena::new()?;
    arena.install(0, &profile)?;
    Ok(arena)
}

/// Unusual endpoints in the agent's window now.
fn unusual(arena: &Arena, agent: &Agent) -> Result<u64> {
    let clock = BucketClock::from_multiplier(calm().bucket_multiplier);
    let now = clock.moment(coarse_ns(), agent.control.epoch);
    Ok(now.sum(&arena.maps.ledger(agent.slot)?.unusual))
}

#[test]
fn who_opens_decides_whose_port_names_an_endpoint() -> Result<()> {
    use EndpointKind::{Accepted, Opened};
    let flow = Flow { local_port: 8080, remote: stranger(1), remote_port: 50_000 };
    let tcp = |way, flags| (way, flow.tcp(way, flags, b""), TCP);
    let rows = [
        ("the agent's SYN", tcp(Outbound, flags::SYN), Opened),
        ("a SYN-ACK to the agent", tcp(Inbound, flags::SYN_ACK), Opened),
        ("a SYN to the agent", tcp(Inbound, flags::SYN), Accepted),
        ("the agent's SYN-ACK", tcp(Outbound, flags::SYN_ACK), Accepted),
        ("the agent speaks first", tcp(Outbound, flags::ACK), Opened),
        ("the remote speaks first", tcp(Inbound, flags::ACK), Accepted),
        ("the agent's datagram", (Outbound, flow.udp(Outbound, b"?"), UDP), Opened),
        ("a datagram to the agent", (Inbound, flow.udp(Inbound, b"?"), UDP), Accepted),
    ];
    let mut arena = arena(calm())?;
    for (what, (direction, frame, protocol), kind) in rows {
        let agent = arena.agent(0)?;
        arena.run(direction, &frame.into())?;
        let (key, other) = match kind {
            Opened => (flow.opened(&agent, protocol), Accepted),
            Accepted => (flow.accepted(&agent, protocol), Opened),
        };
        let found: Vec<_> = arena.endpoints(agent.slot, kind)?.into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, [key], "{what}");
        assert_eq!(arena.endpoints(agent.slot, other)?, [], "{what}");
    }
    Ok(())
}

#[test]
fn answers_belong_to_the_endpoint_that_they_answer() -> Result<()> {
    let mut arena = arena(calm())?;
    let agent = arena.agent(0)?;
    let (asked, served) = (Flow::to(stranger(1), 53), Flow::from(stranger(2), 50_000, 53));
    arena.send(asked.udp(Outbound, b"?"))?;
    arena.receive(asked.udp(Inbound, b"!"))?;
    arena.receive(served.udp(Inbound, b"?"))?;
    arena.send(served.udp(Outbound, b"!"))?;
    let opened = arena.endpoints(agent.slot, EndpointKind::Opened)?;
    let accepted = arena.endpoints(agent.slot, EndpointKind::Accepted)?;
    assert_eq!(
        opened.iter().map(|(key, at)| (*key, at.packets)).collect::<Vec<_>>(),
        [(asked.opened(&agent, UDP), [1, 1])]
    );
    assert_eq!(
        accepted.iter().map(|(key, at)| (*key, at.packets)).collect::<Vec<_>>(),
        [(served.accepted(&agent, UDP), [1, 1])]
    );
    Ok(())
}

#[test]
fn a_servers_clients_are_one_endpoint_each_and_unusual_only_once_it_answers_with_data() -> Result<()> {
    let mut arena = arena(calm())?;
    let agent = arena.agent(0)?;
    for client in 1..=3 {
        for ephemeral in [50_000, 50_001, 50_002] {
            let flow = Flow::from(stranger(client), ephemeral, 8080);
            arena.receive(flow.tcp(Inbound, flags::SYN, b""))?;
            arena.send(flow.tcp(Outbound, flags::SYN_ACK, b""))?;
            arena.receive(flow.tcp(Inbound, flags::ACK, b"GET /"))?;
            arena.send(flow.tcp(Outbound, flags::ACK, b""))?;
        }
    }
    assert_eq!(unusual(&arena, &agent)?, 0, "knocking trips nobody");
    assert_eq!(arena.endpoints(agent.slot, EndpointKind::Accepted)?.len(), 3, "whatever ports clients use");
    assert_eq!(arena.endpoints(agent.slot, EndpointKind::Opened)?, []);
    for client in [1, 2, 2] {
        arena.send(Flow::from(stranger(client), 50_000, 8080).tcp(Outbound, flags::ACK, b"200 OK"))?;
    }
    assert_eq!(unusual(&arena, &agent)?, 2, "it served two");
    Ok(())
}

#[test]
fn an_endpoint_counts_once_in_a_window_and_again_in_the_next_epoch() -> Result<()> {
    let mut arena = arena(calm())?;
    let mut agent = arena.agent(0)?;
    for n in [1, 2, 1, 1, 2] {
        arena.send(Flow::to(stranger(n), 443).tcp(Outbound, flags::SYN, b""))?;
    }
    assert_eq!(unusual(&arena, &agent)?, 2);
    arena.receive(Flow::to(stranger(3), 443).tcp(Inbound, flags::SYN_ACK, b""))?;
    assert_eq!(unusual(&arena, &agent)?, 2, "an answer from somebody is not the agent's doing");
    arena.release(&mut agent)?;
    assert_eq!(unusual(&arena, &agent)?, 0);
    arena.send(Flow::to(stranger(1), 443).tcp(Outbound, flags::ACK, b""))?;
    arena.send(Flow::to(stranger(1), 443).tcp(Outbound, flags::ACK, b""))?;
    assert_eq!(unusual(&arena, &agent)?, 1);
    Ok(())
}

#[test]
fn typical_is_prefix_ports_protocol_and_kind_with_shorter_prefixes_pushed_down() -> Result<()> {
    let any = u16::MAX;
    let network = Ipv4Addr::new(10, 9, 0, 0);
    let rules = [
        rule(network, 16, PortRule { protocol: TCP, kinds: OPENED, first: 443, last: 444 }),
        rule(Ipv4Addr::new(10, 9, 1, 0), 24, PortRule { protocol: UDP, kinds: OPENED, first: 53, last: 53 }),
        rule(
            Ipv4Addr::new(10, 9, 1, 7),
            32,
            PortRule { protocol: ANY_PROTOCOL, kinds: ACCEPTED, first: 0, last: any },
        ),
    ];
    let mut arena = arena(calm())?;
    arena.expect(0, &rules)?;
    let (near, deep, host) = ([10, 9, 2, 1], [10, 9, 1, 1], [10, 9, 1, 7]);
    let opened = |remote: [u8; 4], port, protocol| (Flow::to(remote, port), protocol, Outbound);
    let accepted = |remote: [u8; 4], port, protocol| (Flow::from(remote, 50_000, port), protocol, Inbound);
    let rows = [
        ("in the short prefix", opened(near, 443, TCP), true),
        ("its last port", opened(near, 444, TCP), true),
        ("before its ports", opened(near, 442, TCP), false),
        ("after its ports", opened(near, 445, TCP), false),
        ("another protocol", opened(near, 443, UDP), false),
        ("outside of the prefix", opened([10, 10, 0, 1], 443, TCP), false),
        ("the longer prefix's own rule", opened(deep, 53, UDP), true),
        ("the shorter prefix's, pushed down", opened(deep, 443, TCP), true),
        ("the longer prefix's rule outside of it", opened(near, 53, UDP), false),
        ("pushed down twice", opened(host, 443, TCP), true),
        ("pushed down once", opened(host, 53, UDP), true),
        ("any protocol, accepted", accepted(host, 9999, UDP), true),
        ("accepted, where only opening is typical", accepted(deep, 443, TCP), false),
        ("opened, where only accepting is typical", opened(host, 9999, UDP), false),
    ];
    for (what, (flow, protocol, direction), typical) in rows {
        let agent = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
        let frame =
            if protocol == TCP { flow.tcp(direction, flags::SYN, b"") } else { flow.udp(direction, b"?") };
        let fate = arena.run(direction, &frame.into())?;
        assert_eq!(fate, if typical { Fate::Passed } else { Fate::Dropped }, "{what}");
        let key = if direction == Outbound {
            flow.opened(&agent, protocol)
        } else {
            flow.accepted(&agent, protocol)
        };
        assert_eq!(
            Typical::latest(arena.maps.endpoints.get(&key, 0)?.typical),
            typical,
            "{what}, as remembered"
        );
    }
    Ok(())
}

#[test]
fn a_new_profile_is_asked_again_about_known_endpoints() -> Result<()> {
    let flow = Flow::to([10, 9, 1, 1], 443);
    let https = PortRule { protocol: TCP, kinds: OPENED, first: 443, last: 443 };
    let mut arena = arena(calm())?;
    arena.install(1, &calm())?;
    arena.expect(1, &[rule(Ipv4Addr::new(10, 9, 0, 0), 16, https)])?;
    let mut agent = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    let mut send = |arena: &mut Arena, row| -> Result<Fate> {
        arena.change(&mut agent, |control| control.row = row)?;
        arena.send(flow.tcp(Outbound, flags::SYN, b""))
    };
    assert_eq!(send(&mut arena, 0)?, Fate::Dropped);
    assert_eq!(send(&mut arena, 1)?, Fate::Passed, "another row");
    assert_eq!(send(&mut arena, 0)?, Fate::Dropped, "and back");
    arena.expect(0, &[rule(Ipv4Addr::new(10, 9, 0, 0), 16, https)])?;
    assert_eq!(send(&mut arena, 0)?, Fate::Dropped, "a row in use is not read again");
    arena.install(0, &Profile { generation: 2, ..calm() })?;
    assert_eq!(send(&mut arena, 0)?, Fate::Passed, "the same row with another profile in it");
    Ok(())
}

#[test]
fn endpoints_beyond_the_cap_are_counted_and_hide_nothing() -> Result<()> {
    let mut arena = arena(Profile { endpoint_cap: 2, ..calm() })?;
    let https = PortRule { protocol: TCP, kinds: OPENED, first: 443, last: 443 };
    arena.expect(0, &[rule(Ipv4Addr::new(10, 9, 0, 0), 16, https)])?;
    let agent = arena.agent(0)?;
    let open = |arena: &Arena, n| arena.send(Flow::to(stranger(n), 443).tcp(Outbound, flags::SYN, b""));
    for n in [1, 2, 1] {
        open(&arena, n)?;
    }
    let overflow = |arena: &Arena| -> Result<u64> { Ok(arena.maps.ledger(agent.slot)?.endpoint_overflow) };
    assert_eq!((unusual(&arena, &agent)?, overflow(&arena)?), (2, 0));
    for (packets, n) in [(1, 3), (2, 3), (3, 4)] {
        assert_eq!(open(&arena, n)?, Fate::Passed);
        assert_eq!(
            (unusual(&arena, &agent)?, overflow(&arena)?),
            (2 + packets, packets),
            "every packet counts"
        );
    }
    arena.send(Flow::to([10, 9, 1, 1], 443).tcp(Outbound, flags::SYN, b""))?;
    assert_eq!(
        (unusual(&arena, &agent)?, overflow(&arena)?),
        (5, 4),
        "a typical one is not unusual for that"
    );
    // The other kind has a cap of its own.
    arena.receive(Flow::from(stranger(9), 50_000, 80).tcp(Inbound, flags::SYN, b""))?;
    assert_eq!(overflow(&arena)?, 4);
    // What the daemon removes makes room.
    arena.forget(&Flow::to(stranger(1), 443).opened(&agent, TCP))?;
    open(&arena, 3)?;
    open(&arena, 3)?;
    assert_eq!((unusual(&arena, &agent)?, overflow(&arena)?), (6, 4));
    assert_eq!(arena.endpoints(agent.slot, EndpointKind::Opened)?.len(), 2);
    Ok(())
}
