//! The kernel and the daemon judge alike: the same numbers, the same decision, the same score.
//!
//! The daemon's side is [`agentsec_common::risk`] in this process; the kernel's is the loaded object. They are
//! built from the same source, by different compilers for different machines, and only the kernel's reads its
//! numbers from windows, words and packets.
//!
//! That the suite can fail was tried, with objects of deliberately broken rules (see
//! [`OBJECT_VARIABLE`](agentsec_tests::kernel_rig::OBJECT_VARIABLE)): `>=` for `>` in `judge`, once in the volume limit
//! and once in the threshold, and a `recheck` that always passes each fail this comparison and several tests of
//! `kernel_limits`. The tables there expect literal numbers, so an error that both sides share fails them too.

use agentsec_common::agent::Direction::{self, Inbound, Outbound};
use agentsec_common::gate::next_trip;
use agentsec_common::policy::{Control, EPOCH_MASK, Mode, SlowSignals, State, TRIP_MASK};
use agentsec_common::profile::{COUNT_INBOUND, COUNT_OUTBOUND, NO_LIMIT, PRESENT, Profile, Weights};
use agentsec_common::risk::{Cause, Signals, judge, score};
use agentsec_common::typical::{OPENED, PortRule};
use agentsec_common::window::{BUCKETS, BucketClock, Moment, Stamp, Step};
use agentsec_tests::kernel_rig::frames::{Flow, path, stranger};
use agentsec_tests::kernel_rig::profiles::{calm, rule};
use agentsec_tests::kernel_rig::{Agent, Arena, Fate, coarse_ns};
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use std::collections::BTreeMap;

const PAIRS: u16 = 10_000;
const SEED: u64 = 0x0a6e_0075_ec00_0001;
const HOUR_NS: u64 = 3600 * 1_000_000_000;
const TYPICAL: [u8; 4] = [10, 9, 0, 10];

/// One profile and one set of numbers, and the packet that makes the kernel look at them.
struct Pair {
    control: Control,
    profile: Profile,
    /// Window words that hold the volume and the unusual endpoints before the packet.
    volume: [u64; BUCKETS],
    unusual: [u64; BUCKETS],
    /// When the latest unusual endpoint was counted, as the kernel stamps it.
    unusual_latest: u64,
    slow: SlowSignals,
    slow_until_ns: u64,
    direction: Direction,
    frame: Vec<u8>,
    /// What the numbers are with the packet: the daemon's side of the comparison.
    signals: Signals,
}

/// A number at, near or far from one of `lines`.
fn near(rng: &mut Rng, lines: &[u64], greatest: u64) -> u64 {
    let line = lines[rng.usize(..lines.len())].min(greatest);
    let number = match rng.u8(..6) {
        0 => 0,
        1 => line.saturating_sub(1),
        2 => line,
        3 => line + 1,
        4 => rng.u64(..=line.saturating_mul(2)),
        _ => rng.u64(..=greatest),
    };
    number.min(greatest)
}

fn maybe<T>(rng: &mut Rng, limit: T, none: T) -> T {
    if rng.u8(..3) == 0 { limit } else { none }
}

fn random_profile(rng: &mut Rng, generation: u16) -> Profile {
    let weight = |rng: &mut Rng| if rng.u8(..20) == 0 { rng.u16(..) } else { rng.u16(..500) };
    let few = |rng: &mut Rng| if rng.bool() { rng.u32(..20) } else { rng.u32(..60_000) };
    let bytes = |rng: &mut Rng| if rng.bool() { rng.u64(..4000) } else { rng.u64(..1 << 38) };
    let counted = [COUNT_OUTBOUND, COUNT_INBOUND, COUNT_OUTBOUND | COUNT_INBOUND, 0][rng.usize(..4)];
    let max_volume = bytes(rng);
    let max_unusual_endpoints = few(rng);
    let max_auth_failures_centi = few(rng);
    Profile {
        flags: PRESENT | counted,
        generation,
        bucket_multiplier: BucketClock::for_window(rng.u64(6..=24) * HOUR_NS).multiplier(),
        max_volume: maybe(rng, max_volume, NO_LIMIT),
        anomalous_volume: bytes(rng),
        max_unusual_endpoints: maybe(rng, max_unusual_endpoints, u32::MAX),
        max_auth_failures_centi: maybe(rng, max_auth_failures_centi, u32::MAX),
        anomalous_auth_failures_centi: few(rng),
        anomalous_deviation_100us: few(rng),
        typical_endpoints: few(rng),
        quarantine_threshold: rng.u16(..=1000),
        weights: Weights {
            auth: weight(rng),
            volume: weight(rng),
            endpoints: weight(rng),
            endpoints_cap: weight(rng),
            deviation: weight(rng),
            requests: weight(rng),
            anomalous: weight(rng),
        },
        ..calm()
    }
}

/// Window words that sum to `amount` at `now`, spread over buckets that stay in the window for a bucket more.
fn window(rng: &mut Rng, now: Moment, mut amount: u64) -> [u64; BUCKETS] {
    let mut words = [0; BUCKETS];
    for age in 0..BUCKETS as u64 - 1 {
        let last = age == BUCKETS as u64 - 2;
        let part = if last { amount } else { rng.u64(..=amount) };
        let then = Moment { bucket: now.bucket.wrapping_sub(age), epoch: now.epoch };
        words[then.index()] = match then.step(0, part) {
            Step::Restart(word) => word,
            Step::Add | Step::Full => part,
        };
        amount -= part;
    }
    words
}

/// A packet: its direction, its frame, and whether it is a new unusual endpoint.
fn random_packet(rng: &mut Rng, n: u16) -> (Direction, Vec<u8>, bool) {
    let bytes = rng.usize(60..1400);
    match rng.u8(..4) {
        0 => (Inbound, Flow::to(stranger(n), 443).udp_of(Inbound, bytes), false),
        1 => (Outbound, Flow::to(TYPICAL, 443).udp_of(Outbound, bytes), false),
        2 => (Outbound, path(Outbound).arp_request(TYPICAL.into(), TYPICAL.into()), false),
        _ => (Outbound, Flow::to(stranger(n), 443).udp_of(Outbound, bytes), true),
    }
}

fn random_pair(rng: &mut Rng, n: u16) -> Pair {
    let control = Control {
        state: State::Closed,
        mode: Mode::Enforce,
        row: 0,
        epoch: rng.u32(..=EPOCH_MASK),
        acked_trip: rng.u32(..=TRIP_MASK),
    };
    let mut profile = random_profile(rng, n);
    let (direction, frame, is_unusual) = random_packet(rng, n);
    let counted = if direction == Inbound { COUNT_INBOUND } else { COUNT_OUTBOUND };
    let bytes = if profile.flags & counted != 0 { frame.len() as u64 } else { 0 };
    let volume = near(rng, &[profile.max_volume, profile.anomalous_volume], 1 << 38).max(bytes);
    let unusual = near(rng, &[profile.max_unusual_endpoints.into(), 3], 100_000).max(is_unusual.into());
    let limits = [profile.max_auth_failures_centi / 100, profile.anomalous_auth_failures_centi / 100];
    let auth = near(rng, &limits.map(u64::from), 0xffff);
    let deviation = near(rng, &[profile.anomalous_deviation_100us.into()], 0xffff);
    let slow = SlowSignals {
        auth_failures: auth as u16,
        deviation_100us: deviation as u16,
        extra_milli: if rng.bool() { 0 } else { rng.u16(..=1000) },
    };
    let is_fresh = rng.u8(..8) != 0;
    let told = if is_fresh { slow } else { SlowSignals::default() };
    let signals = Signals {
        volume,
        unusual_endpoints: unusual as u32,
        auth_failures_centi: u32::from(told.auth_failures) * 100,
        deviation_100us: told.deviation_100us.into(),
        requests: 0,
        anomalous_requests: 0,
        extra_milli: told.extra_milli,
    };
    if rng.bool() {
        // Half of the scores lie on the threshold or next to it.
        profile.quarantine_threshold = (score(&signals, &profile).total() + rng.u16(..3)).saturating_sub(1);
    }
    let now_ns = coarse_ns();
    let now = profile.bucket_clock().moment(now_ns, control.epoch);
    Pair {
        control,
        profile,
        volume: window(rng, now, volume - bytes),
        unusual: window(rng, now, unusual - u64::from(is_unusual)),
        unusual_latest: Stamp::at(now).to_word(),
        slow,
        slow_until_ns: if is_fresh { now_ns + HOUR_NS } else { now_ns.saturating_sub(3 << 30) },
        direction,
        frame,
        signals,
    }
}

/// Lets the kernel decide, and compares.
fn compare(arena: &mut Arena, agent: &Agent, pair: &Pair) -> Result<Option<Cause>> {
    let mut ledger = arena.maps.ledger(agent.slot)?;
    ledger.trip_seq = pair.control.acked_trip.into();
    (ledger.volume, ledger.unusual) = (pair.volume, pair.unusual);
    ledger.unusual_latest = pair.unusual_latest;
    arena.maps.ledger.set(agent.slot, ledger, 0)?;
    arena.install(0, &pair.profile)?;
    arena.control(agent.slot, pair.control)?;
    arena.signals(agent.slot, pair.slow, pair.slow_until_ns)?;

    let fate = arena.run(pair.direction, &pair.frame.as_slice().into())?;
    let after = arena.maps.ledger(agent.slot)?;
    let Some(cause) = judge(&pair.signals, &pair.profile) else {
        ensure!(
            fate == Fate::Passed && after.trip_seq == ledger.trip_seq,
            "the kernel trips: {:?}",
            after.trip
        );
        return Ok(None);
    };
    let trip = after.trip;
    ensure!(fate == Fate::Dropped, "the kernel lets it pass, for the daemon it is {cause:?}");
    ensure!(after.trip_seq == next_trip(pair.control.acked_trip) && trip.seq == after.trip_seq, "{trip:?}");
    ensure!(Cause::from_byte(trip.cause) == Some(cause), "cause {}, not {cause:?}", trip.cause);
    let numbers = Signals {
        volume: trip.volume,
        unusual_endpoints: trip.unusual_endpoints,
        auth_failures_centi: trip.auth_failures_centi,
        deviation_100us: trip.deviation_100us,
        requests: trip.requests,
        anomalous_requests: trip.anomalous_requests,
        extra_milli: pair.signals.extra_milli,
    };
    ensure!(numbers == pair.signals, "numbers {numbers:?}");
    let terms = score(&pair.signals, &pair.profile);
    let all = [
        terms.auth,
        terms.volume,
        terms.endpoints,
        terms.deviation,
        terms.requests,
        terms.anomalous,
        terms.extra,
        terms.total(),
    ];
    ensure!(trip.terms == all, "terms {:?}, not {all:?}", trip.terms);
    Ok(Some(cause))
}

#[test]
fn the_daemons_score_equals_the_kernels_over_ten_thousand_random_pairs() -> Result<()> {
    println!("seed {SEED:#x}");
    let mut rng = Rng::with_seed(SEED);
    let mut arena = Arena::new()?;
    let port = PortRule { protocol: 17, kinds: OPENED, first: 443, last: 443 };
    arena.expect(0, &[rule(std::net::Ipv4Addr::from(TYPICAL), 32, port)])?;
    arena.install(0, &calm())?;
    let agent = arena.agent(0)?;
    let mut decisions = BTreeMap::<String, u32>::new();
    for n in 0..PAIRS {
        let pair = random_pair(&mut rng, n);
        let context = || format!("pair {n} of seed {SEED:#x}: {:?} and {:?}", pair.signals, pair.profile);
        let cause = compare(&mut arena, &agent, &pair).with_context(context)?;
        let total = score(&pair.signals, &pair.profile).total();
        let at_threshold = cause.is_none() && total > 0 && total == pair.profile.quarantine_threshold;
        *decisions.entry(format!("{cause:?}, at the threshold: {at_threshold}")).or_default() += 1;
    }
    // The comparison is worth something only if every decision came up often.
    println!("{decisions:?}");
    assert_eq!(decisions.len(), 6, "no trip, none at the threshold, and four causes: {decisions:?}");
    assert!(decisions.values().all(|&times| times >= 200), "{decisions:?}");
    Ok(())
}
