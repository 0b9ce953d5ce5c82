//! What the kernel tells at once: about what, how often, and what is counted when it cannot.

use agentsec_common::agent::Direction::{Inbound, Outbound};
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::notice::{NOTICES_PER_SECOND, Notice, NoticeKind};
use agentsec_common::packet::Class;
use agentsec_common::policy::{Mode, State};
use agentsec_common::profile::Profile;
use agentsec_tests::kernel_rig::frames::{Flow, address, flags, stranger};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::{Agent, Arena, Sizes, coarse_ns, second};
use anyhow::Result;

fn arena(profile: Profile) -> Result<Arena> {
    let mut arena = Arena::new()?;
    arena.install(0, &profile)?;
    Ok(arena)
}

fn kinds(notices: &[Notice]) -> Vec<NoticeKind> {
    notices.iter().filter_map(|notice| NoticeKind::from_byte(notice.kind)).collect()
}

/// A notice of `kind` about one frame of `bytes` of the flow, but for its time.
fn about(agent: &Agent, flow: Flow, kind: NoticeKind, protocol: u8, bytes: usize) -> Notice {
    Notice {
        at_ns: 0,
        slot: agent.slot,
        epoch: agent.control.epoch,
        remote: address(flow.remote),
        packet_bytes: bytes as u32,
        local_port: flow.local_port,
        remote_port: flow.remote_port,
        kind: kind as u8,
        protocol,
        direction: Outbound as u8,
        endpoint_kind: EndpointKind::Opened as u8,
        class: Class::Ipv4 as u8,
        reserved: 0,
        detail: 0,
    }
}

#[test]
fn a_new_endpoint_a_violation_a_trip_and_a_drop_are_told_with_their_packet() -> Result<()> {
    let mut arena = arena(Profile { max_volume: 200, probe_violations: 2, ..calm() })?;
    let before = coarse_ns();
    let flow = Flow::to(stranger(1), 443);
    let one = arena.agent(0)?;
    for bytes in [100, 100, 70] {
        arena.send(flow.udp_of(Outbound, bytes))?;
    }
    let two = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    arena.send(flow.udp_of(Outbound, 80))?;
    let three = arena.agent_in(State::Open, Mode::Enforce, 0)?;
    arena.send(flow.udp_of(Outbound, 90))?;
    let mut found = arena.maps.notices()?;
    for notice in &mut found {
        assert!((before..=coarse_ns()).contains(&notice.at_ns));
        notice.at_ns = 0;
    }
    let expected = [
        about(&one, flow, NoticeKind::NewEndpoint, 17, 100),
        about(&one, flow, NoticeKind::Trip, 17, 70),
        about(&two, flow, NoticeKind::Violation, 17, 80),
        about(&three, flow, NoticeKind::Drop, 17, 90),
    ];
    assert_eq!(found, expected);
    Ok(())
}

#[test]
fn what_is_typical_or_has_no_endpoint_or_only_knocks_is_not_told() -> Result<()> {
    let mut arena = arena(calm())?;
    arena.agent(0)?;
    let client = Flow::from(stranger(2), 50_000, 80);
    arena.receive(client.tcp(Inbound, flags::SYN, b""))?;
    arena.send(client.tcp(Outbound, flags::SYN_ACK, b""))?;
    arena.send(
        agentsec_tests::kernel_rig::frames::path(Outbound)
            .arp_request([10, 9, 0, 2].into(), [10, 9, 0, 1].into()),
    )?;
    assert_eq!(kinds(&arena.maps.notices()?), []);
    arena.send(client.tcp(Outbound, flags::ACK, b"data"))?;
    assert_eq!(kinds(&arena.maps.notices()?), [NoticeKind::NewEndpoint]);
    Ok(())
}

#[test]
fn drops_are_told_at_most_once_a_second() -> Result<()> {
    let mut arena = arena(calm())?;
    arena.agent_in(State::Open, Mode::Enforce, 0)?;
    let before = second();
    for n in 0..500 {
        arena.send(Flow::to(stranger(n), 443).udp(Outbound, b"data"))?;
    }
    let seconds = (second() - before + 1) as usize;
    let notices = arena.maps.notices()?;
    assert!((1..=seconds).contains(&notices.len()), "{} in {seconds} seconds", notices.len());
    assert!(notices.iter().all(|notice| notice.kind == NoticeKind::Drop as u8));
    Ok(())
}

#[test]
fn a_sweep_spends_its_agents_budget_and_the_rest_is_counted_as_lost() -> Result<()> {
    const SWEPT: u16 = 1000;
    let mut arena = arena(Profile { max_unusual_endpoints: u32::from(SWEPT), ..calm() })?;
    let agent = arena.agent(0)?;
    let before = second();
    for n in 0..SWEPT {
        arena.send(Flow::to(stranger(n), 443).tcp(Outbound, flags::SYN, b""))?;
    }
    let seconds = (second() - before + 1) as usize;
    let told = arena.maps.notices()?.len();
    let lost = arena.maps.ledger(agent.slot)?.notices_lost as usize;
    assert_eq!(told + lost, usize::from(SWEPT), "told or lost, and nothing else");
    let budget = NOTICES_PER_SECOND as usize;
    assert!((budget..=seconds * budget).contains(&told), "{told} in {seconds} seconds");

    // A trip is told whatever was spent, and another agent has a budget of its own.
    arena.send(Flow::to(stranger(SWEPT), 443).tcp(Outbound, flags::SYN, b""))?;
    let last = arena.maps.notices()?;
    assert_eq!(kinds(&last).last(), Some(&NoticeKind::Trip));
    arena.agent(0)?;
    arena.send(Flow::to(stranger(0), 443).tcp(Outbound, flags::SYN, b""))?;
    assert_eq!(kinds(&arena.maps.notices()?), [NoticeKind::NewEndpoint]);
    Ok(())
}

#[test]
fn a_full_ring_loses_notices_and_counts_every_one() -> Result<()> {
    let mut arena = Arena::sized(Sizes { ring_bytes: 4096, ..Sizes::default() })?;
    arena.install(0, &Profile { max_unusual_endpoints: NOTICES_PER_SECOND, ..calm() })?;
    let agents: Vec<_> = (0..4).map(|_| arena.agent(0)).collect::<Result<_>>()?;
    // Within the budget of every agent, and together more than the ring holds.
    for agent in &agents {
        arena.turn(agent)?;
        for n in 0..NOTICES_PER_SECOND as u16 {
            arena.send(Flow::to(stranger(n), 443).tcp(Outbound, flags::SYN, b""))?;
        }
    }
    let lost: u64 =
        agents.iter().map(|agent| Ok(arena.maps.ledger(agent.slot)?.notices_lost)).sum::<Result<_>>()?;
    let told = arena.maps.notices()?.len() as u64;
    assert_eq!(told + lost, u64::from(NOTICES_PER_SECOND) * 4);
    // Each record has eight bytes before it.
    assert_eq!(told, 4096 / (size_of::<Notice>() as u64 + 8));
    // Enforcement goes on, and the ring takes more once it is read.
    arena.send(Flow::to(stranger(999), 443).tcp(Outbound, flags::SYN, b""))?;
    assert_eq!(arena.maps.ledger(agents[3].slot)?.trip_seq, 1);
    assert_eq!(kinds(&arena.maps.notices()?).last(), Some(&NoticeKind::Trip));
    Ok(())
}
