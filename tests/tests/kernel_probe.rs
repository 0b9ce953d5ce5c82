//! Probation: what is typical passes as far as the byte bucket reaches.

use agentsec_common::agent::Direction::{Inbound, Outbound};
use agentsec_common::bucket::Bucket;
use agentsec_common::ledger::violations_in;
use agentsec_common::policy::{Mode, State};
use agentsec_common::profile::Profile;
use agentsec_tests::kernel_rig::frames::{Flow, flags};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::table::typical;
use agentsec_tests::kernel_rig::{Agent, Arena, Fate, Skb};
use anyhow::Result;

/// So slow that no test sees it refill: 1,000 bytes a second.
const SLOW: u64 = 1_000;

fn arena(burst: u64, min_charge: u32) -> Result<Arena> {
    let mut arena = Arena::new()?;
    arena.install(0, &Profile { probe: Bucket::new(SLOW, burst, min_charge), ..calm() })?;
    arena.expect(0, &typical())?;
    Ok(arena)
}

fn to_server(bytes: usize) -> Vec<u8> {
    let flow = Flow::to([10, 9, 0, 10], 443);
    flow.tcp(Outbound, flags::ACK, &vec![0; bytes - flow.tcp(Outbound, flags::ACK, &[]).len()])
}

fn violations(arena: &Arena, agent: &Agent) -> Result<u32> {
    Ok(violations_in(arena.maps.ledger(agent.slot)?.violations, agent.control.epoch))
}

#[test]
fn typical_traffic_passes_until_the_burst_is_spent_and_being_too_quick_is_no_violation() -> Result<()> {
    let mut arena = arena(100_000, 0)?;
    let agent = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    let mut passed = 0;
    while arena.send(to_server(1_000))? == Fate::Passed {
        passed += 1_000;
        assert!(passed <= 101_000, "a burst of 100,000 bytes, and what refills meanwhile");
    }
    assert!(passed >= 99_000, "{passed} bytes of 100,000");
    assert_eq!(arena.tally(&agent, Outbound)?.dropped, (1_000, 1));
    assert_eq!(violations(&arena, &agent)?, 0);
    assert_eq!(arena.maps.ledger(agent.slot)?.trip_seq, 0);
    Ok(())
}

#[test]
fn small_packets_cost_the_least_charge_and_segments_cost_it_each() -> Result<()> {
    let mut arena = arena(100_000, 10_000)?;
    let agent = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    let mut passed = 0;
    while arena.send(to_server(60))? == Fate::Passed {
        passed += 1;
    }
    assert!((9..=10).contains(&passed), "{passed} packets of 10,000 in 100,000 bytes");
    let segmented = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    assert_eq!(arena.send(Skb::from(to_server(1_454)).segmented(100, 14))?, Fate::Dropped, "14 segments");
    assert_eq!(arena.send(Skb::from(to_server(554)).segmented(100, 5))?, Fate::Passed, "5 segments");
    assert_eq!(arena.tally(&segmented, Outbound)?.passed.1, 5);
    assert_eq!(arena.tally(&agent, Outbound)?.passed.1, passed);
    Ok(())
}

#[test]
fn both_directions_share_the_bucket() -> Result<()> {
    let mut arena = arena(3_000, 0)?;
    arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    let flow = Flow::to([10, 9, 0, 10], 443);
    assert_eq!(arena.send(to_server(1_000))?, Fate::Passed);
    let reply = flow.tcp(Inbound, flags::ACK, &[0; 1_400]);
    assert_eq!(arena.receive(reply.as_slice())?, Fate::Passed);
    assert_eq!(arena.send(to_server(1_000))?, Fate::Dropped);
    Ok(())
}

#[test]
fn what_is_not_typical_spends_nothing_and_each_is_a_violation() -> Result<()> {
    let mut arena = Arena::new()?;
    let probe = Bucket::new(SLOW, 1_500, 0);
    arena.install(0, &Profile { probe, probe_violations: 1_000, ..calm() })?;
    arena.expect(0, &typical())?;
    let agent = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    for _ in 0..50 {
        let stranger = Flow::to([203, 0, 113, 9], 443).tcp(Outbound, flags::ACK, &[0; 1_000]);
        assert_eq!(arena.send(stranger)?, Fate::Dropped);
    }
    assert_eq!(violations(&arena, &agent)?, 50);
    assert_eq!(arena.send(to_server(1_500))?, Fate::Passed, "the bucket is whole");
    Ok(())
}

#[test]
fn shadow_mode_passes_what_the_bucket_would_not_and_counts_it() -> Result<()> {
    let mut arena = arena(1_500, 0)?;
    let agent = arena.agent_in(State::HalfOpen, Mode::Shadow, 0)?;
    for _ in 0..3 {
        assert_eq!(arena.send(to_server(1_000))?, Fate::Passed);
    }
    let counters = arena.maps.counters(agent.slot)?;
    assert_eq!((counters.would_drop_packets, counters.would_drop_bytes), (2, 2_000));
    Ok(())
}

#[test]
fn a_closed_agent_has_no_bucket() -> Result<()> {
    let mut arena = arena(1_500, 0)?;
    arena.agent(0)?;
    for _ in 0..10 {
        assert_eq!(arena.send(to_server(1_000))?, Fate::Passed);
    }
    Ok(())
}
