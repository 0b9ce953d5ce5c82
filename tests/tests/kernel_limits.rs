//! What trips a circuit in the kernel: limits, slow signals and the score, on the exact packet.

use agentsec_common::agent::Direction::{Inbound, Outbound};
use agentsec_common::ledger::{Ledger, violations_in};
use agentsec_common::packet::Class;
use agentsec_common::policy::{Mode, SlowSignals, State};
use agentsec_common::profile::{COUNT_OUTBOUND, PRESENT, Profile, Weights};
use agentsec_common::risk::Cause;
use agentsec_tests::kernel_rig::frames::{Flow, address, flags, stranger};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::{Agent, Arena, Fate, Tally, coarse_ns};
use anyhow::Result;

const HOUR_NS: u64 = 3600 * 1_000_000_000;

/// An arena with one profile, in row 0, for which nothing is typical.
fn arena(profile: Profile) -> Result<Arena> {
    let mut arena = Arena::new()?;
    arena.install(0, &profile)?;
    Ok(arena)
}

/// A frame of exactly `bytes` to the nth stranger.
fn frame(n: u16, bytes: usize) -> Vec<u8> {
    Flow::to(stranger(n), 9).udp_of(Outbound, bytes)
}

fn ledger(arena: &Arena, agent: &Agent) -> Result<Ledger> {
    arena.maps.ledger(agent.slot)
}

#[test]
fn exactly_the_volume_limit_passes_and_one_byte_more_is_dropped_and_not_counted_as_passed() -> Result<()> {
    let mut arena = arena(Profile { max_volume: 1000, ..calm() })?;
    let exact = arena.agent(0)?;
    for bytes in [400, 400, 200] {
        assert_eq!(arena.send(frame(1, bytes))?, Fate::Passed);
    }
    assert_eq!(ledger(&arena, &exact)?.trip_seq, 0, "at the limit, not over it");
    assert_eq!(arena.tally(&exact, Outbound)?, Tally { passed: (1000, 3), dropped: (0, 0) });

    let over = arena.agent(0)?;
    for (bytes, fate) in [(400, Fate::Passed), (400, Fate::Passed), (201, Fate::Dropped), (60, Fate::Dropped)]
    {
        assert_eq!(arena.send(frame(1, bytes))?, fate, "{bytes}");
    }
    assert_eq!(
        arena.receive(Flow::to(stranger(1), 9).udp_of(Inbound, 70))?,
        Fate::Dropped,
        "and what is sent to it"
    );
    assert_eq!(arena.tally(&over, Outbound)?, Tally { passed: (800, 2), dropped: (261, 2) });
    assert_eq!(arena.tally(&over, Inbound)?, Tally { passed: (0, 0), dropped: (70, 1) });
    Ok(())
}

#[test]
fn a_trip_names_its_cause_its_numbers_and_its_packet() -> Result<()> {
    let weights = Weights {
        auth: 1,
        volume: 20,
        endpoints: 3000,
        endpoints_cap: 300,
        deviation: 4,
        ..Weights::DEFAULT
    };
    let mut arena = arena(Profile { max_volume: 500, anomalous_volume: 100, weights, ..calm() })?;
    let agent = arena.agent(0)?;
    let before = coarse_ns();
    let flow = Flow { local_port: 41_000, remote: stranger(7), remote_port: 443 };
    arena.send(flow.udp_of(Outbound, 400))?;
    assert_eq!(arena.send(flow.udp_of(Outbound, 101))?, Fate::Dropped);
    let ledger = ledger(&arena, &agent)?;
    let trip = ledger.trip;
    assert_eq!((ledger.trip_seq, trip.seq), (1, 1), "the record is complete");
    assert!((before..=coarse_ns()).contains(&trip.at_ns));
    assert_eq!(Cause::from_byte(trip.cause), Some(Cause::VolumeLimit));
    assert_eq!((trip.volume, trip.unusual_endpoints), (501, 1), "the packet included");
    assert_eq!((trip.auth_failures_centi, trip.deviation_100us), (0, 0));
    assert_eq!((trip.epoch, trip.row, trip.packet_bytes), (agent.control.epoch, 0, 101));
    assert_eq!((trip.remote, trip.remote_port, trip.local_port), (address(flow.remote), 443, 41_000));
    assert_eq!((trip.protocol, trip.direction, trip.class), (17, Outbound as u8, Class::Ipv4 as u8));
    // 3000 per endpoint over 1000 typical ones.
    assert_eq!(trip.terms, [0, 20, 3, 0, 0, 0, 0, 23]);
    Ok(())
}

#[test]
fn a_released_agent_starts_again_with_fresh_windows() -> Result<()> {
    let mut arena = arena(Profile { max_volume: 1000, max_unusual_endpoints: 2, ..calm() })?;
    let mut agent = arena.agent(0)?;
    for round in 1..=3 {
        assert_eq!(arena.send(frame(1, 600))?, Fate::Passed, "round {round}");
        assert_eq!(arena.send(frame(2, 400))?, Fate::Passed, "round {round}");
        assert_eq!(arena.send(frame(1, 60))?, Fate::Dropped, "round {round}");
        let found = ledger(&arena, &agent)?;
        assert_eq!((found.trip_seq, found.trip.seq, found.trip.epoch), (round, round, agent.control.epoch));
        assert_eq!((found.trip.volume, found.trip.unusual_endpoints), (1060, 2), "nothing of earlier rounds");
        arena.release(&mut agent)?;
    }
    assert_eq!(arena.tally(&agent, Outbound)?, Tally { passed: (3000, 6), dropped: (180, 3) });
    Ok(())
}

#[test]
fn acknowledging_another_trip_does_not_open_the_gate() -> Result<()> {
    let mut arena = arena(Profile { max_volume: 100, ..calm() })?;
    let mut agent = arena.agent(0)?;
    assert_eq!(arena.send(frame(1, 101))?, Fate::Dropped);
    arena.change(&mut agent, |control| control.epoch += 1)?;
    assert_eq!(arena.send(frame(1, 60))?, Fate::Dropped, "an epoch without an acknowledgement");
    arena.change(&mut agent, |control| control.acked_trip = 2)?;
    assert_eq!(arena.send(frame(1, 60))?, Fate::Dropped, "a trip that has not happened");
    arena.change(&mut agent, |control| control.acked_trip = 1)?;
    assert_eq!(arena.send(frame(1, 60))?, Fate::Passed);
    Ok(())
}

#[test]
fn exactly_the_endpoint_limit_passes_and_one_more_trips() -> Result<()> {
    let mut arena = arena(Profile { max_unusual_endpoints: 3, ..calm() })?;
    let agent = arena.agent(0)?;
    for n in [1, 2, 3, 1, 2, 3] {
        assert_eq!(arena.send(frame(n, 100))?, Fate::Passed, "{n}");
    }
    assert_eq!(arena.send(frame(4, 100))?, Fate::Dropped);
    let trip = ledger(&arena, &agent)?.trip;
    assert_eq!((Cause::from_byte(trip.cause), trip.unusual_endpoints), (Some(Cause::EndpointLimit), 4));
    assert_eq!(trip.remote, address(stranger(4)));
    assert_eq!(arena.tally(&agent, Outbound)?, Tally { passed: (600, 6), dropped: (100, 1) });
    Ok(())
}

#[test]
fn only_the_directions_that_the_profile_counts_are_volume() -> Result<()> {
    let mut arena = arena(Profile { flags: PRESENT | COUNT_OUTBOUND, max_volume: 100, ..calm() })?;
    let agent = arena.agent(0)?;
    let inbound = Flow::from(stranger(1), 9, 9).udp_of(Inbound, 500);
    assert_eq!(arena.receive(inbound.as_slice())?, Fate::Passed);
    assert_eq!(arena.send(frame(1, 100))?, Fate::Passed);
    assert_eq!(arena.receive(inbound)?, Fate::Passed);
    assert_eq!(arena.send(frame(1, 60))?, Fate::Dropped);
    assert_eq!(ledger(&arena, &agent)?.trip.volume, 160);
    Ok(())
}

#[test]
fn a_profile_that_counts_both_directions_adds_them() -> Result<()> {
    let mut arena = arena(Profile { max_volume: 100, ..calm() })?;
    let agent = arena.agent(0)?;
    assert_eq!(arena.send(frame(1, 50))?, Fate::Passed);
    assert_eq!(arena.receive(Flow::to(stranger(1), 9).udp_of(Inbound, 51))?, Fate::Dropped);
    let trip = ledger(&arena, &agent)?.trip;
    assert_eq!((trip.volume, trip.direction), (101, Inbound as u8));
    Ok(())
}

/// What a set of slow signals makes of one small packet.
struct Slow {
    what: &'static str,
    signals: SlowSignals,
    trips: Option<Cause>,
}

#[test]
fn slow_signals_enter_the_judgement_until_they_expire() -> Result<()> {
    let profile = Profile {
        max_auth_failures_centi: 1000,
        anomalous_auth_failures_centi: 300,
        anomalous_deviation_100us: 1000,
        quarantine_threshold: 499,
        ..calm()
    };
    let mut arena = arena(profile)?;
    let of = |auth_failures, deviation_100us, extra_milli| SlowSignals {
        auth_failures,
        deviation_100us,
        extra_milli,
    };
    let rows = [
        Slow { what: "every number at its threshold", signals: of(3, 1000, 499), trips: None },
        Slow { what: "one term alone", signals: of(4, 1000, 0), trips: None },
        Slow { what: "the other term alone", signals: of(3, 1001, 0), trips: None },
        Slow { what: "two terms", signals: of(4, 1001, 0), trips: Some(Cause::Risk) },
        Slow { what: "a term and extra risk", signals: of(4, 0, 200), trips: Some(Cause::Risk) },
        Slow { what: "a term and not enough extra risk", signals: of(4, 0, 199), trips: None },
        Slow { what: "extra risk alone", signals: of(0, 0, 500), trips: Some(Cause::Risk) },
        Slow { what: "failures at their limit", signals: of(10, 0, 0), trips: None },
        Slow { what: "failures over their limit", signals: of(11, 0, 0), trips: Some(Cause::AuthLimit) },
        Slow {
            what: "everything at its greatest",
            signals: of(u16::MAX, u16::MAX, 1000),
            trips: Some(Cause::AuthLimit),
        },
    ];
    for Slow { what, signals, trips } in rows {
        for (valid_until, counts) in
            [(coarse_ns() + HOUR_NS, true), (coarse_ns().saturating_sub(3 << 30), false)]
        {
            let agent = arena.agent(0)?;
            arena.signals(agent.slot, signals, valid_until)?;
            let expected = trips.filter(|_| counts);
            let fate = if expected.is_some() { Fate::Dropped } else { Fate::Passed };
            assert_eq!(arena.send(frame(1, 60))?, fate, "{what}, valid: {counts}");
            let ledger = ledger(&arena, &agent)?;
            assert_eq!(Cause::from_byte(ledger.trip.cause), expected, "{what}, valid: {counts}");
            if expected.is_some() {
                let named =
                    (ledger.trip.auth_failures_centi, ledger.trip.deviation_100us, ledger.trip.terms[6]);
                assert_eq!(
                    named,
                    (
                        u32::from(signals.auth_failures) * 100,
                        signals.deviation_100us.into(),
                        signals.extra_milli
                    ),
                    "{what}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_score_at_the_threshold_passes_and_one_above_it_trips() -> Result<()> {
    for (extra_milli, fate) in [(300, Fate::Passed), (301, Fate::Dropped)] {
        // The article's volume term and what the daemon adds.
        let mut arena = arena(Profile { anomalous_volume: 59, quarantine_threshold: 700, ..calm() })?;
        let agent = arena.agent(0)?;
        arena.signals(
            agent.slot,
            SlowSignals { extra_milli, ..SlowSignals::default() },
            coarse_ns() + HOUR_NS,
        )?;
        assert_eq!(arena.send(frame(1, 60))?, fate, "{}", 400 + extra_milli);
        let ledger = ledger(&arena, &agent)?;
        assert_eq!(ledger.trip_seq, u64::from(fate == Fate::Dropped));
        if fate == Fate::Dropped {
            assert_eq!(ledger.trip.terms, [0, 400, 0, 0, 0, 0, 301, 701]);
        }
    }
    Ok(())
}

#[test]
fn two_signals_that_only_together_cross_trip_on_the_packet_that_joins_them() -> Result<()> {
    let weights = Weights { volume: 350, endpoints: 351, endpoints_cap: 351, ..Weights::DEFAULT };
    let profile = Profile {
        anomalous_volume: 1000,
        typical_endpoints: 1,
        quarantine_threshold: 700,
        weights,
        ..calm()
    };
    let mut arena = arena(profile)?;
    let one = arena.agent(0)?;
    assert_eq!(arena.send(frame(1, 60))?, Fate::Passed, "an unusual endpoint alone");
    assert_eq!(arena.send(frame(1, 940))?, Fate::Passed, "up to the expected volume");
    assert_eq!(ledger(&arena, &one)?.trip_seq, 0);
    assert_eq!(arena.send(frame(1, 61))?, Fate::Dropped, "both");
    let trip = ledger(&arena, &one)?.trip;
    assert_eq!(
        (Cause::from_byte(trip.cause), trip.terms),
        (Some(Cause::Risk), [0, 350, 351, 0, 0, 0, 0, 701])
    );
    assert_eq!(trip.packet_bytes, 61);
    Ok(())
}

#[test]
fn shadow_mode_trips_and_lets_pass_and_exempt_agents_are_not_judged() -> Result<()> {
    let mut arena = arena(Profile { max_volume: 100, ..calm() })?;
    for (mode, trips, would_drop) in [(Mode::Shadow, 1, (180, 3)), (Mode::Exempt, 0, (0, 0))] {
        let agent = arena.agent_in(State::Closed, mode, 0)?;
        for bytes in [100, 60, 60, 60] {
            assert_eq!(arena.send(frame(1, bytes))?, Fate::Passed, "{mode:?}");
        }
        let counters = arena.maps.counters(agent.slot)?;
        assert_eq!(arena.tally(&agent, Outbound)?, Tally { passed: (280, 4), dropped: (0, 0) }, "{mode:?}");
        assert_eq!((counters.would_drop_bytes, counters.would_drop_packets), would_drop, "{mode:?}");
        assert_eq!(ledger(&arena, &agent)?.trip_seq, trips, "{mode:?}");
    }
    Ok(())
}

#[test]
fn violations_on_probation_trip_when_they_are_too_many_and_start_again_with_an_epoch() -> Result<()> {
    let mut arena = arena(Profile { probe_violations: 3, ..calm() })?;
    let mut agent = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    for round in 1..=2 {
        for n in 1..=3 {
            assert_eq!(ledger(&arena, &agent)?.trip_seq, round - 1, "not yet");
            assert_eq!(arena.send(frame(n, 60))?, Fate::Dropped);
            // What others send cannot fail its probe.
            assert_eq!(
                arena.receive(Flow::from(stranger(50), 9, 9).tcp(Inbound, flags::SYN, b""))?,
                Fate::Dropped
            );
        }
        let found = ledger(&arena, &agent)?;
        assert_eq!(
            (found.trip_seq, Cause::from_byte(found.trip.cause)),
            (round, Some(Cause::ProbeViolation))
        );
        assert_eq!((found.trip.remote, found.trip.epoch), (address(stranger(3)), agent.control.epoch));
        assert_eq!(violations_in(found.violations, agent.control.epoch), 3);
        arena.release(&mut agent)?;
        arena.change(&mut agent, |control| control.state = State::HalfOpen)?;
    }
    Ok(())
}

#[test]
fn a_trip_sequence_wraps_within_its_bits() -> Result<()> {
    let last = agentsec_common::policy::TRIP_MASK;
    let mut arena = arena(Profile { max_volume: 100, ..calm() })?;
    let mut agent = arena.agent(0)?;
    let mut found = ledger(&arena, &agent)?;
    found.trip_seq = last.into();
    arena.maps.ledger.set(agent.slot, found, 0)?;
    assert_eq!(arena.send(frame(1, 60))?, Fate::Dropped, "a trip that nobody has acknowledged");
    arena.change(&mut agent, |control| control.acked_trip = last)?;
    assert_eq!(arena.send(frame(1, 60))?, Fate::Passed);
    assert_eq!(arena.send(frame(1, 60))?, Fate::Dropped);
    assert_eq!(ledger(&arena, &agent)?.trip_seq, 0);
    arena.release(&mut agent)?;
    assert_eq!(arena.send(frame(1, 60))?, Fate::Passed);
    Ok(())
}
