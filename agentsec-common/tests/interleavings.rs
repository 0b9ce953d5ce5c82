//! The interleavings of two CPUs and the daemon over one agent's two words, up to three preemptions each.
//!
//! The words are the daemon's `control` and the kernel's `trip_seq`, with the functions that both sides use. A
//! CPU judges a packet, trips by compare-exchange and reads the state again before its verdict; the daemon
//! records a trip before it acknowledges it, and opens and releases in between.

use agentsec_common::gate::{Verdict, next_trip, state_in_force, verdict};
use agentsec_common::policy::{Control, Mode, State, TRIP_MASK};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
use loom::thread;
use std::sync::atomic as ghost;

/// One agent's words, and what an observer outside knows.
struct Agent {
    control: AtomicU64,
    trip_seq: AtomicU64,
    /// The sequence before the first trip.
    start: u32,
    /// The latest trip that has completed, counted from `start`, or [`QUARANTINED`]. Part of the model, because
    /// "after" means that a CPU has learnt of it, not that its clock says so.
    contained: AtomicU64,
    /// Compare-exchanges won. Of the standard library: no scheduling happens at it.
    wins: ghost::AtomicU32,
    /// The latest trip that the daemon has decided to release, counted from `start`. Likewise.
    released: ghost::AtomicU64,
}

/// Later than every trip, and never released.
const QUARANTINED: u64 = u64::MAX;

fn closed(acked_trip: u32) -> Control {
    Control { state: State::Closed, mode: Mode::Enforce, row: 0, epoch: 0, acked_trip }
}

impl Agent {
    fn new(acked_trip: u32) -> Arc<Self> {
        Arc::new(Self {
            control: AtomicU64::new(closed(acked_trip).to_word()),
            trip_seq: AtomicU64::new(acked_trip.into()),
            start: acked_trip,
            contained: AtomicU64::new(0),
            wins: ghost::AtomicU32::new(0),
            released: ghost::AtomicU64::new(0),
        })
    }

    fn control(&self) -> Control {
        Control::from_word(self.control.load(SeqCst)).expect("the daemon never removes the policy")
    }

    fn in_force(&self) -> (State, Mode) {
        let control = self.control();
        (state_in_force(control, self.trip_seq.load(SeqCst)), control.mode)
    }

    /// How many trips after the first sequence `seq` is.
    fn count(&self, seq: u64) -> u64 {
        ((seq as u32).wrapping_sub(self.start) & TRIP_MASK).into()
    }

    /// One packet on one CPU. `trips` says whether it is one that crosses a limit.
    fn packet(&self, trips: bool) {
        // Read first: what is contained now must not pass a packet that is judged from here on.
        let mut contained = self.contained.load(SeqCst);
        let control = self.control();
        let seen = state_in_force(control, self.trip_seq.load(SeqCst));
        if seen == State::Open {
            return;
        }
        let (acked, next) = (u64::from(control.acked_trip), next_trip(control.acked_trip));
        if trips && self.trip_seq.compare_exchange(acked, next, SeqCst, SeqCst).is_ok() {
            self.wins.fetch_add(1, SeqCst);
            contained = self.count(next);
            self.contained.fetch_max(contained, SeqCst);
        }
        let (state, mode) = self.in_force();
        if verdict(state, mode, true) == Verdict::Pass {
            let released = self.released.load(SeqCst);
            assert!(contained <= released, "a packet judged after trip {contained} passed");
        }
    }
}

/// The daemon: the only writer of `control`.
struct Daemon {
    agent: Arc<Agent>,
    control: Control,
    recorded: Vec<u64>,
}

impl Daemon {
    fn new(agent: &Arc<Agent>) -> Self {
        Self { agent: agent.clone(), control: agent.control(), recorded: Vec::new() }
    }

    fn store(&mut self, state: State) {
        self.control = Control { state, epoch: self.control.epoch + 1, ..self.control };
        self.agent.control.store(self.control.to_word(), SeqCst);
    }

    /// Records a trip that is not acknowledged, then acknowledges it together with OPEN.
    fn observe(&mut self) -> bool {
        let seq = self.agent.trip_seq.load(SeqCst);
        if seq as u32 & TRIP_MASK == self.control.acked_trip {
            return false;
        }
        self.recorded.push(seq);
        self.control.acked_trip = seq as u32 & TRIP_MASK;
        self.store(State::Open);
        true
    }

    /// Lets packets pass again after the trips that are acknowledged.
    fn release(&mut self, state: State) {
        let count = self.agent.count(self.control.acked_trip.into());
        self.agent.released.store(count, SeqCst);
        self.store(state);
    }

    fn quarantine(&mut self) {
        self.store(State::Open);
        self.agent.contained.fetch_max(QUARANTINED, SeqCst);
    }
}

/// Runs two CPUs beside `daemon`, and checks that every win is recorded exactly once.
fn explore(acked_trip: u32, packets: [&'static [bool]; 2], daemon: fn(&mut Daemon)) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let agent = Agent::new(acked_trip);
        let cpus = packets.map(|packets| {
            let agent = agent.clone();
            thread::spawn(move || packets.iter().for_each(|&trips| agent.packet(trips)))
        });
        // The daemon has a thread of its own: from the model's main thread, loom does not explore what it reads
        // after the CPUs have moved.
        let mut started = Daemon::new(&agent);
        let daemon = thread::spawn(move || {
            daemon(&mut started);
            started
        });
        for cpu in cpus {
            cpu.join().expect("a CPU's assertion holds");
        }
        let mut running = daemon.join().expect("the daemon has no assertion");
        // A daemon that was restarted meanwhile looks once more.
        running.observe();
        let expected = (0..agent.wins.load(SeqCst)).scan(acked_trip, |acked, _| {
            let seq = next_trip(*acked);
            *acked = seq as u32;
            Some(seq)
        });
        let expected = expected.collect::<Vec<_>>();
        assert_eq!(running.recorded, expected, "every win is recorded exactly once, in order");
    });
}

#[test]
fn two_cpus_that_trip_at_once_make_one_trip_and_neither_passes() {
    explore(7, [&[true], &[true]], |daemon| _ = daemon.observe());
}

#[test]
fn a_packet_behind_the_one_that_tripped_does_not_pass() {
    explore(TRIP_MASK, [&[true, false], &[false]], |daemon| _ = daemon.observe());
}

#[test]
fn a_release_loses_no_trip_of_a_cpu_that_lags() {
    explore(0, [&[true], &[true]], |daemon| {
        if daemon.observe() {
            daemon.release(State::HalfOpen);
        }
    });
}

#[test]
fn a_release_to_closed_can_trip_again_and_both_trips_are_recorded() {
    explore(TRIP_MASK - 1, [&[true], &[true]], |daemon| {
        if daemon.observe() {
            daemon.release(State::Closed);
            daemon.observe();
        }
    });
}

#[test]
fn an_operators_quarantine_races_a_trip_and_neither_is_lost() {
    explore(3, [&[true], &[false]], |daemon| {
        daemon.quarantine();
        daemon.observe();
    });
}

#[test]
fn a_probe_that_closes_races_a_trip_and_the_trip_wins() {
    explore(3, [&[true, false], &[true]], |daemon| {
        // From what it saw before the trip: the acknowledged sequence stays, so the trip stays in force.
        daemon.store(State::Closed);
    });
}
