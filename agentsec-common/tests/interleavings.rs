//! Every interleaving of two CPUs and the daemon over one agent's two words.
//!
//! The words are the daemon's `control` and the kernel's `trip_seq`, with the functions that both sides use. A
//! CPU judges a packet, trips by compare-exchange and reads the state again before its verdict; the daemon
//! records a trip before it acknowledges it, and opens and releases in between.

use agentsec_common::gate::{Verdict, next_trip, state_in_force, verdict};
use agentsec_common::policy::{Control, Mode, State, TRIP_MASK};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use loom::thread;

/// One agent's words, and what an observer outside knows.
struct Agent {
    control: AtomicU64,
    trip_seq: AtomicU64,
    /// Compare-exchanges won.
    wins: AtomicUsize,
    /// A trip has completed and nobody has decided to release since.
    contained: AtomicBool,
}

fn closed(acked_trip: u32) -> Control {
    Control { state: State::Closed, mode: Mode::Enforce, row: 0, epoch: 0, acked_trip }
}

impl Agent {
    fn new(acked_trip: u32) -> Arc<Self> {
        Arc::new(Self {
            control: AtomicU64::new(closed(acked_trip).to_word()),
            trip_seq: AtomicU64::new(acked_trip.into()),
            wins: AtomicUsize::new(0),
            contained: AtomicBool::new(false),
        })
    }

    fn control(&self) -> Control {
        Control::from_word(self.control.load(SeqCst)).expect("the daemon never removes the policy")
    }

    fn in_force(&self) -> (State, Mode) {
        let control = self.control();
        (state_in_force(control, self.trip_seq.load(SeqCst)), control.mode)
    }

    /// One packet on one CPU. `trips` says whether it is one that crosses a limit.
    fn packet(&self, trips: bool) -> Verdict {
        // Read first: whoever is contained now must not pass a packet that is judged from here on.
        let contained = self.contained.load(SeqCst);
        let control = self.control();
        let seen = state_in_force(control, self.trip_seq.load(SeqCst));
        if seen == State::Open {
            return verdict(seen, control.mode, true);
        }
        let mut tripped = false;
        if trips {
            let (acked, next) = (u64::from(control.acked_trip), next_trip(control.acked_trip));
            tripped = self.trip_seq.compare_exchange(acked, next, SeqCst, SeqCst).is_ok();
            if tripped {
                self.wins.fetch_add(1, SeqCst);
                self.contained.store(true, SeqCst);
            }
        }
        let (state, mode) = self.in_force();
        let verdict = verdict(state, mode, true);
        if contained && verdict == Verdict::Pass {
            assert!(!self.contained.load(SeqCst), "a packet judged after the trip passed");
        }
        if tripped && verdict == Verdict::Pass {
            assert!(!self.contained.load(SeqCst), "the packet that tripped passed");
        }
        verdict
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

    /// Decides to release; what the kernel does from here on is about the next trip.
    fn release(&mut self, state: State) {
        self.agent.contained.store(false, SeqCst);
        self.store(state);
    }

    fn quarantine(&mut self) {
        self.store(State::Open);
        self.agent.contained.store(true, SeqCst);
    }
}

/// Runs two CPUs beside `daemon`, and checks that every win is recorded exactly once.
fn explore(acked_trip: u32, packets: [&'static [bool]; 2], daemon: fn(&mut Daemon)) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(move || {
        let agent = Agent::new(acked_trip);
        let cpus = packets.map(|packets| {
            let agent = agent.clone();
            thread::spawn(move || packets.iter().for_each(|&trips| _ = agent.packet(trips)))
        });
        let mut running = Daemon::new(&agent);
        daemon(&mut running);
        for cpu in cpus {
            cpu.join().expect("a CPU's assertion holds");
        }
        // A daemon that was restarted meanwhile looks once more.
        running.observe();
        let expected = (0..agent.wins.load(SeqCst) as u32).scan(acked_trip, |acked, _| {
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
