//! Two CPUs on one agent, and time that passes: what a limit promises holds there too.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use agentsec_common::agent::Direction::{self, Inbound, Outbound};
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::notice::NoticeKind;
use agentsec_common::profile::Profile;
use agentsec_common::window::{BucketClock, SHORTEST_NS};
use agentsec_tests::kernel_rig::frames::{Flow, stranger};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::{Agent, Arena, Fate, Skb, coarse_ns};
use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Runs `work(0)` and `work(1)` at the same time, each on a CPU of its own.
fn on_two_cpus(work: impl Fn(u16) -> Result<()> + Sync) -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("asking for our CPUs")?;
    let cpus: Vec<_> =
        (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).take(2).collect();
    ensure!(cpus.len() == 2, "this needs a machine with two CPUs");
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let threads: Vec<_> = (0u16..)
            .zip(cpus)
            .map(|(n, cpu)| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    let mut own = CpuSet::new();
                    let pinned = own.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &own));
                    // Before any error, because the other one waits.
                    start.wait();
                    pinned.with_context(|| format!("pinning to CPU {cpu}"))?;
                    work(n)
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Passed and dropped over both directions: bytes and packets.
fn totals(arena: &Arena, agent: &Agent) -> Result<[u64; 4]> {
    let (out, inward) = (arena.tally(agent, Outbound)?, arena.tally(agent, Inbound)?);
    Ok([
        out.passed.0 + inward.passed.0,
        out.passed.1 + inward.passed.1,
        out.dropped.0 + inward.dropped.0,
        out.dropped.1 + inward.dropped.1,
    ])
}

fn trips_told(arena: &mut Arena) -> Result<usize> {
    Ok(arena.maps.notices()?.iter().filter(|notice| notice.kind == NoticeKind::Trip as u8).count())
}

#[test]
fn two_cpus_together_pass_not_a_byte_over_the_limit_and_trip_once() -> Result<()> {
    const BYTES: u64 = 100;
    const WITHIN: u64 = 6_000;
    const EACH: u32 = 5_000;
    let mut arena = Arena::new()?;
    // Not a whole number of packets, so that "not over" and "as much as fits" differ.
    arena.install(0, &Profile { max_volume: WITHIN * BYTES + BYTES / 2, ..calm() })?;
    for ways in [[Outbound, Outbound], [Outbound, Inbound]] {
        for round in 0..40 {
            let agent = arena.agent(0)?;
            on_two_cpus(|cpu| {
                let way: Direction = ways[usize::from(cpu)];
                let skb = Skb::from(Flow::to(stranger(cpu), 9).udp_of(way, BYTES as usize));
                arena.run_repeatedly(way, &skb, EACH).map(drop)
            })?;
            let [passed_bytes, passed, dropped_bytes, dropped] = totals(&arena, &agent)?;
            let what = format!("round {round} {ways:?}: {passed} passed, {dropped} dropped");
            assert_eq!(passed + dropped, 2 * u64::from(EACH), "{what}");
            assert_eq!((passed_bytes, dropped_bytes), (passed * BYTES, dropped * BYTES), "{what}");
            assert!(passed <= WITHIN, "over the limit: {what}");
            // One packet within the limit may be in flight on the other CPU when this one trips.
            assert!(passed >= WITHIN - 1, "{what}");
            let ledger = arena.maps.ledger(agent.slot)?;
            assert_eq!((ledger.trip_seq, ledger.trip.seq, trips_told(&mut arena)?), (1, 1, 1), "{what}");
        }
    }
    Ok(())
}

#[test]
fn every_release_gives_two_cpus_exactly_one_limit_more() -> Result<()> {
    const BYTES: u64 = 100;
    const WITHIN: u64 = 1_000;
    const ROUNDS: u64 = 30;
    let mut arena = Arena::new()?;
    arena.install(0, &Profile { max_volume: WITHIN * BYTES, ..calm() })?;
    let mut agent = arena.agent(0)?;
    for round in 1..=ROUNDS {
        on_two_cpus(|cpu| {
            let skb = Skb::from(Flow::to(stranger(cpu), 9).udp_of(Outbound, BYTES as usize));
            arena.run_repeatedly(Outbound, &skb, 1_500).map(drop)
        })?;
        let [_, passed, _, dropped] = totals(&arena, &agent)?;
        assert_eq!(passed + dropped, round * 3_000);
        assert!(((WITHIN - 1) * round..=WITHIN * round).contains(&passed), "{passed} after {round} rounds");
        assert_eq!((arena.maps.ledger(agent.slot)?.trip_seq, trips_told(&mut arena)?), (round, 1));
        arena.release(&mut agent)?;
    }
    Ok(())
}

#[test]
fn two_cpus_that_sweep_reach_not_an_endpoint_more_than_the_limit() -> Result<()> {
    const LIMIT: u32 = 40;
    let mut arena = Arena::new()?;
    arena.install(0, &Profile { max_unusual_endpoints: LIMIT, ..calm() })?;
    for round in 0..30 {
        let agent = arena.agent(0)?;
        on_two_cpus(|cpu| {
            (0..LIMIT as u16).try_for_each(|n| {
                let frame = Flow::to(stranger(cpu * 1000 + n), 443).udp(Outbound, b"?");
                arena.send(frame).map(drop)
            })
        })?;
        let [_, passed, _, dropped] = totals(&arena, &agent)?;
        assert_eq!(passed + dropped, u64::from(LIMIT) * 2, "round {round}");
        let all = arena.endpoints(agent.slot, EndpointKind::Opened)?;
        let reached = all.iter().filter(|(_, endpoint)| endpoint.packets[0] > 0).count();
        assert!((LIMIT as usize - 1..=LIMIT as usize).contains(&reached), "round {round}: {reached} reached");
        assert_eq!(arena.maps.ledger(agent.slot)?.trip_seq, 1, "round {round}");
        assert_eq!(trips_told(&mut arena)?, 1, "round {round}");
    }
    Ok(())
}

#[test]
fn two_cpus_that_reach_for_the_same_endpoint_at_once_do_not_pass_it_over_the_limit() -> Result<()> {
    const LIMIT: u32 = 40;
    let mut arena = Arena::new()?;
    arena.install(0, &Profile { max_unusual_endpoints: LIMIT, ..calm() })?;
    // A race of nanoseconds: with the stamp set before the count, about every fifth round lost it.
    for round in 0..150 {
        let agent = arena.agent(0)?;
        on_two_cpus(|_| {
            (0..2 * LIMIT as u16)
                .try_for_each(|n| arena.send(Flow::to(stranger(n), 443).udp(Outbound, b"?")).map(drop))
        })?;
        let all = arena.endpoints(agent.slot, EndpointKind::Opened)?;
        let reached = all.iter().filter(|(_, endpoint)| endpoint.packets[0] > 0).count();
        assert!(reached <= LIMIT as usize, "round {round}: {reached} reached");
        assert_eq!(arena.maps.ledger(agent.slot)?.trip_seq, 1, "round {round}");
    }
    Ok(())
}

/// A packet and the readings of the kernel's clock around it.
struct Sent {
    before_ns: u64,
    after_ns: u64,
    bytes: u64,
}

#[test]
fn a_window_never_under_counts_while_its_buckets_rotate() -> Result<()> {
    let clock = BucketClock::for_window(SHORTEST_NS);
    let mut arena = Arena::new()?;
    arena.install(0, &Profile { bucket_multiplier: clock.multiplier(), ..calm() })?;
    let agent = arena.agent(0)?;
    let mut sent: Vec<Sent> = Vec::new();
    let start = coarse_ns();
    // Eight buckets are rotated through nearly three times.
    while coarse_ns() - start < 3 * SHORTEST_NS {
        let bytes = 60 + sent.len() as u64 % 977;
        let before_ns = coarse_ns();
        assert_eq!(arena.send(Flow::to(stranger(1), 9).udp_of(Outbound, bytes as usize))?, Fate::Passed);
        let now = coarse_ns();
        sent.push(Sent { before_ns, after_ns: now, bytes });
        let sum = clock.moment(now, agent.control.epoch).sum(&arena.maps.ledger(agent.slot)?.volume);
        let surely = sent.iter().filter(|packet| now - packet.before_ns <= SHORTEST_NS);
        let surely: u64 = surely.map(|packet| packet.bytes).sum();
        assert!(sum >= surely, "{sum} is less than the {surely} of the last second");
        // At most one bucket more, each a seventh of the window and a little for rounding.
        let longest = SHORTEST_NS / 7 * 8 + 16 * (1 << 20);
        let possibly = sent.iter().filter(|packet| now - packet.after_ns <= longest);
        let possibly: u64 = possibly.map(|packet| packet.bytes).sum();
        assert!(sum <= possibly, "{sum} is more than the {possibly} of the last second and a bucket");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[test]
fn a_limit_holds_within_a_window_and_comes_back_after_it() -> Result<()> {
    let multiplier = BucketClock::for_window(SHORTEST_NS).multiplier();
    let mut arena = Arena::new()?;
    arena.install(0, &Profile { bucket_multiplier: multiplier, max_volume: 1000, ..calm() })?;
    let frame = |bytes| Flow::to(stranger(1), 9).udp_of(Outbound, bytes);
    for _ in 0..2 {
        let agent = arena.agent(0)?;
        for _ in 0..2 {
            assert_eq!(arena.send(frame(1000))?, Fate::Passed);
            // Longer than a window and its spare bucket, on however slow a machine.
            thread::sleep(Duration::from_millis(1500));
        }
        let before = coarse_ns();
        assert_eq!(arena.send(frame(1000))?, Fate::Passed);
        let fate = arena.send(frame(60))?;
        if coarse_ns() - before <= SHORTEST_NS {
            assert_eq!(fate, Fate::Dropped, "both within a second");
            assert_eq!(arena.maps.ledger(agent.slot)?.trip.volume, 1060);
        }
    }
    Ok(())
}

#[test]
fn what_began_a_window_still_counts_at_its_end() -> Result<()> {
    let multiplier = BucketClock::for_window(SHORTEST_NS).multiplier();
    let mut arena = Arena::new()?;
    arena.install(0, &Profile { bucket_multiplier: multiplier, max_volume: 1000, ..calm() })?;
    let send = |arena: &Arena, bytes| arena.send(Flow::to(stranger(1), 9).udp_of(Outbound, bytes));
    let mut agents = Vec::new();
    // In every phase of a bucket, so that for most the first packet lies in the oldest one at the end.
    for _ in 0..10 {
        agents.push((arena.agent(0)?, coarse_ns()));
        assert_eq!(send(&arena, 600)?, Fate::Passed);
        thread::sleep(Duration::from_millis(14));
    }
    for (agent, before) in agents {
        while coarse_ns() - before < SHORTEST_NS / 100 * 97 {
            thread::sleep(Duration::from_millis(1));
        }
        arena.turn(&agent)?;
        let fate = send(&arena, 401)?;
        // Late by a busy machine, it proves nothing.
        if coarse_ns() - before <= SHORTEST_NS {
            assert_eq!(fate, Fate::Dropped, "both within a second");
        }
    }
    Ok(())
}

#[test]
fn slow_signals_fade_by_themselves() -> Result<()> {
    let mut arena = Arena::new()?;
    arena.install(0, &Profile { max_auth_failures_centi: 0, ..calm() })?;
    let signals = agentsec_common::policy::SlowSignals { auth_failures: 1, ..Default::default() };
    let frame = Flow::to(stranger(1), 9).udp_of(Outbound, 100);
    let alive = arena.agent(0)?;
    arena.signals(alive.slot, signals, coarse_ns() + (30 << 30))?;
    assert_eq!(arena.send(frame.as_slice())?, Fate::Dropped, "half a minute is not over");
    let faded = arena.agent(0)?;
    arena.signals(faded.slot, signals, coarse_ns())?;
    // They are rounded up to the next 2^30 ns.
    thread::sleep(Duration::from_millis(1200));
    assert_eq!(arena.send(frame)?, Fate::Passed, "their writer is dead");
    Ok(())
}
