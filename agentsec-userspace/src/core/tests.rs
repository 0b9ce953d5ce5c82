//! The engine against a small model of the kernel and of the journal.

mod groups;
mod signals;

use super::draft::{Draft, EventKind};
use super::names::{ModeName, StateName};
use super::persist::AgentState;
use super::totals::{Losses, Totals};
use super::*;
use crate::config::ProfileConfig;
use agentsec_common::counters::Counters;
use agentsec_common::gate::{next_trip, state_in_force};
use agentsec_common::ledger::TripRecord;
use agentsec_common::notice::{Notice, NoticeKind};
use agentsec_common::policy::{Control, EPOCH_MASK, Mode, SlowSignals, State};
use agentsec_common::profile::{NO_LIMIT, PRESENT, Profile, Weights};
use agentsec_common::risk::{Cause, Signals};
use agentsec_common::window::BucketClock;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
const SLOT: u32 = 3;

fn profile() -> Profile {
    Profile {
        generation: 0,
        flags: PRESENT,
        bucket_multiplier: BucketClock::for_window(60 * SECOND).multiplier(),
        max_volume: 1000,
        anomalous_volume: NO_LIMIT,
        max_unusual_endpoints: u32::MAX,
        max_auth_failures_centi: 2000,
        anomalous_auth_failures_centi: 500,
        max_deviation_100us: u32::MAX,
        anomalous_deviation_100us: 1000,
        typical_endpoints: 2,
        quarantine_threshold: 700,
        weights: Weights::DEFAULT,
        probe_violations: 1,
        endpoint_cap: 4096,
        ..ProfileConfig::default().compile()
    }
}

fn settings() -> AgentSettings {
    AgentSettings {
        profile_name: "web".into(),
        profile: profile(),
        row: 5,
        breaker: BreakerSettings::default(),
        mode: Mode::Enforce,
        never_isolate: false,
        tags: vec!["batch".into()],
    }
}

fn added() -> AgentAdded {
    AgentAdded {
        slot: SLOT,
        id: "crawler".into(),
        places: vec![Place::Interface("veth7".into())],
        settings: settings(),
        newcomer: State::Closed,
        saved: None,
        pinned: None,
        trip_seq: 0,
        fresh_epoch: 0,
        boot_id: "boot".into(),
    }
}

/// A kernel with one agent, and the daemon around the engine.
struct World {
    engine: Engine,
    now: Time,
    control: Option<Control>,
    trip: TripRecord,
    counters: Counters,
    losses: Losses,
    signals: Signals,
    /// Everything the engine has commanded.
    commands: Vec<Command>,
    /// Trips whose events wait for the disk.
    unrecorded: Vec<TripRef>,
    disk_full: bool,
}

impl World {
    fn new(added: AgentAdded) -> Self {
        Self::with_guard(added, GuardSettings::default())
    }

    fn with_guard(added: AgentAdded, guard: GuardSettings) -> Self {
        let mut world = Self {
            engine: Engine::new(guard),
            now: Time { mono_ns: 1000 * SECOND, wall_ns: 1_700_000_000 * SECOND },
            control: added.pinned,
            trip: TripRecord::default(),
            counters: Counters::default(),
            losses: Losses::default(),
            signals: Signals::default(),
            commands: Vec::new(),
            unrecorded: Vec::new(),
            disk_full: false,
        };
        world.input(Input::AgentAdded(Box::new(added)));
        world
    }

    fn input(&mut self, input: Input) -> Vec<Command> {
        let commands = self.engine.handle(self.now, input);
        for command in &commands {
            match command {
                Command::SetControl { control, .. } => self.control = Some(*control),
                Command::Record(draft) => self.unrecorded.extend(draft.trip),
                Command::SetSignals { .. } | Command::Reply(_) => {}
            }
        }
        self.commands.extend(commands.clone());
        commands
    }

    /// The journal writes what waits.
    fn record(&mut self) {
        if self.disk_full {
            return;
        }
        for TripRef { slot, trip_seq } in std::mem::take(&mut self.unrecorded) {
            self.input(Input::Recorded { slot, trip_seq });
        }
    }

    fn observation(&self) -> Observation {
        Observation {
            slot: SLOT,
            trip_seq: self.trip.seq as u32,
            trip: Some(self.trip),
            signals: self.signals,
            violations: 0,
            totals: Totals::default(),
            losses: self.losses,
            counters: self.counters,
        }
    }

    fn tick(&mut self) -> Vec<Command> {
        let commands = self.input(Input::Observed(vec![self.observation()]));
        self.record();
        commands
    }

    fn pass(&mut self, seconds: u64) -> Vec<Command> {
        self.now.mono_ns += seconds * SECOND;
        self.now.wall_ns += seconds * SECOND;
        self.tick()
    }

    /// The kernel trips as it does: only from what is acknowledged, and not what is open or exempt.
    fn kernel_trips(&mut self, cause: Cause) {
        let Some(control) = self.control else { return };
        let open = self.in_force() == State::Open || control.mode == Mode::Exempt;
        if !open {
            let seq = next_trip(control.acked_trip);
            let epoch = control.epoch;
            self.trip = TripRecord {
                seq,
                epoch,
                cause: cause as u8,
                volume: 1500,
                packet_bytes: 600,
                at_ns: self.now.mono_ns,
                ..TripRecord::default()
            };
        }
    }

    fn in_force(&self) -> State {
        self.control.map_or(State::Open, |control| state_in_force(control, self.trip.seq))
    }

    fn operator(&mut self, request: Request) -> Result<Done, Refusal> {
        let commands = self.input(Input::Operator { request, by: "alice".into() });
        let Some(Command::Reply(mut outcomes)) = commands.last().cloned() else { panic!("{commands:?}") };
        outcomes.remove(0).1
    }

    fn quarantine(&mut self, hold: bool) -> Result<Done, Refusal> {
        self.operator(Request::Quarantine { target: Target::All, reason: "odd".into(), hold })
    }

    fn release(&mut self, force: bool) -> Result<Done, Refusal> {
        self.operator(Request::Release { target: Target::All, force })
    }

    fn events<'a>(&'a self, kind: EventKind) -> Vec<&'a Draft> {
        let draft = |command: &'a Command| match command {
            Command::Record(draft) if draft.kind == kind => Some(draft),
            _ => None,
        };
        self.commands.iter().filter_map(draft).collect()
    }

    fn saved(&self) -> AgentState {
        self.engine.states(self.now, "boot").remove(0)
    }
}

fn kinds(commands: &[Command]) -> Vec<&'static str> {
    let kind = |command: &Command| match command {
        Command::SetControl { .. } => "control",
        Command::SetSignals { .. } => "signals",
        Command::Record(_) => "record",
        Command::Reply(_) => "reply",
    };
    commands.iter().map(kind).collect()
}

#[test]
fn a_kernel_trip_is_recorded_acknowledged_cooled_down_probed_and_closed() {
    let mut world = World::new(added());
    world.tick();
    world.kernel_trips(Cause::VolumeLimit);
    let first = world.input(Input::Observed(vec![world.observation()]));
    assert_eq!(kinds(&first), ["record"], "no word before the event is on the disk");
    world.record();
    assert_eq!((world.control.unwrap().acked_trip, world.control.unwrap().state), (1, State::Open));
    assert!(world.pass(29).is_empty());
    assert_eq!(kinds(&world.pass(1)), ["record", "control"], "laxer: the event goes first");
    assert_eq!(world.in_force(), State::HalfOpen);
    world.pass(15);
    assert_eq!(world.in_force(), State::Closed);
    let actions = world.events(EventKind::ContainmentAction);
    let names: Vec<_> = actions.iter().map(|draft| draft.data["action_type"].as_str().unwrap()).collect();
    assert_eq!(names, ["QUARANTINE", "PROBE", "CLOSE"]);
    assert!(actions.iter().all(|draft| draft.correlation_id == actions[0].correlation_id), "one incident");
    assert_eq!(actions[0].data["trigger_reason"], "volume of 1500 bytes exceeds max_volume of 1000");
    assert_eq!(actions[0].data["to"], "OPEN");
}

#[test]
fn a_failed_probe_doubles_the_cool_down_up_to_its_maximum_and_a_clean_one_forgives() {
    let mut world = World::new(added());
    world.kernel_trips(Cause::VolumeLimit);
    world.tick();
    let mut cooldowns = Vec::new();
    for _ in 0..6 {
        cooldowns.push(world.engine.agent(SLOT).breaker.cooldown_ns / SECOND);
        world.pass(cooldowns.last().copied().unwrap());
        assert_eq!(world.in_force(), State::HalfOpen);
        world.kernel_trips(Cause::ProbeViolation);
        world.tick();
    }
    assert_eq!(cooldowns, [30, 60, 120, 240, 480, 600]);
    world.pass(600);
    world.pass(15);
    assert_eq!(world.in_force(), State::Closed);
    assert_eq!(world.engine.agent(SLOT).breaker.cooldown_ns, 30 * SECOND);
}

#[test]
fn a_full_disk_keeps_a_trip_open_and_a_release_says_that_it_is_unrecorded() {
    let mut world = World::new(added());
    world.disk_full = true;
    world.kernel_trips(Cause::VolumeLimit);
    world.tick();
    for _ in 0..5 {
        assert!(world.pass(100).is_empty());
        assert_eq!((world.in_force(), world.control.unwrap().acked_trip), (State::Open, 0));
    }
    world.input(Input::RecordFailed { slot: SLOT, trip_seq: 1 });
    assert_eq!(kinds(&world.tick()), ["record"], "given up by the journal: emitted again");
    assert!(world.release(false).unwrap().changed);
    assert_eq!((world.in_force(), world.control.unwrap().acked_trip), (State::HalfOpen, 1));
    let release = *world.events(EventKind::ContainmentAction).last().unwrap();
    assert_eq!(release.data["unrecorded_trip"], true);
    assert_eq!(release.data["trip"]["cause"], "max_volume");
    world.disk_full = false;
    world.record();
    assert_eq!(world.in_force(), State::HalfOpen, "a late record changes nothing");
}

#[test]
fn a_trip_found_at_start_is_recorded_then() {
    let pinned = Control { state: State::Closed, mode: Mode::Enforce, row: 5, epoch: 9, acked_trip: 4 };
    let mut world = World::new(AgentAdded { pinned: Some(pinned), trip_seq: 5, ..added() });
    world.trip = TripRecord { seq: 5, cause: Cause::Risk as u8, epoch: 9, ..TripRecord::default() };
    world.tick();
    let trip = world.events(EventKind::ContainmentAction)[0];
    assert_eq!(trip.data["found_at_start"], true);
    assert_eq!(world.control.unwrap(), Control { state: State::Open, epoch: 10, acked_trip: 5, ..pinned });
}

#[test]
fn a_record_that_stays_incomplete_is_recorded_without_it() {
    let mut world = World::new(added());
    let mut observed = Observation { trip_seq: 1, trip: None, ..world.observation() };
    assert!(world.input(Input::Observed(vec![observed.clone()])).is_empty());
    world.now.mono_ns += 2 * SECOND;
    assert_eq!(kinds(&world.input(Input::Observed(vec![observed.clone()]))), ["record"]);
    observed.trip_seq = 0;
    world.input(Input::Observed(vec![observed]));
    assert!(!world.engine.view(world.now, SLOT).unwrap().trip_unrecorded);
}

#[test]
fn a_quarantine_opens_first_and_a_second_one_adds_its_reason() {
    let mut world = World::new(added());
    let commands = world.input(Input::Operator {
        request: Request::Quarantine {
            target: Target::Agent("crawler".into()),
            reason: "odd".into(),
            hold: false,
        },
        by: "alice".into(),
    });
    assert_eq!(kinds(&commands), ["control", "record", "record", "reply"]);
    let epoch = world.control.unwrap().epoch;
    let again = world.quarantine(true).unwrap();
    assert!(again.changed && again.text.contains("held"), "{}", again.text);
    assert_eq!(world.control.unwrap().epoch, epoch);
    assert!(!world.quarantine(true).unwrap().changed);
    world.pass(100_000);
    assert_eq!(world.in_force(), State::Open, "a held agent does not probe by itself");
    assert!(world.release(false).unwrap().changed);
    assert_eq!(world.in_force(), State::HalfOpen);
    assert!(!world.release(false).unwrap().changed);
    assert!(world.release(true).unwrap().changed);
    assert_eq!(world.in_force(), State::Closed);
}

#[test]
fn agents_that_are_never_isolated_refuse_and_are_shadowed() {
    let never = AgentSettings { never_isolate: true, ..settings() };
    let mut world = World::new(AgentAdded { settings: never, ..added() });
    assert_eq!(world.control.unwrap().mode, Mode::Shadow);
    assert_eq!(world.quarantine(false), Err(Refusal::NeverIsolated));
    assert_eq!(
        world.operator(Request::Shadow { target: Target::All, off: true }),
        Err(Refusal::NeverIsolated)
    );
    let unknown = Request::Release { target: Target::Agent("x".into()), force: false };
    assert_eq!(world.operator(unknown), Err(Refusal::UnknownAgent));
}

#[test]
fn exemption_closes_and_ends_without_memory() {
    let mut world = World::new(added());
    world.disk_full = true;
    world.kernel_trips(Cause::Risk);
    world.tick();
    assert!(world.operator(Request::Exempt { target: Target::All, off: false }).unwrap().changed);
    let control = world.control.unwrap();
    assert_eq!((world.in_force(), control.mode, control.acked_trip), (State::Closed, Mode::Exempt, 1));
    assert_eq!(world.quarantine(false), Err(Refusal::Exempt));
    assert!(world.operator(Request::Exempt { target: Target::All, off: true }).unwrap().changed);
    assert_eq!(world.control.unwrap().mode, Mode::Enforce);
}

#[test]
fn a_trip_just_before_an_exemption_is_recorded_and_opens_nothing() {
    let mut world = World::new(added());
    world.kernel_trips(Cause::Risk);
    world.operator(Request::Exempt { target: Target::All, off: false }).unwrap();
    world.tick();
    let control = world.control.unwrap();
    assert_eq!((control.state, control.mode, control.acked_trip), (State::Closed, Mode::Exempt, 1));
    assert_eq!(world.events(EventKind::ContainmentAction).last().unwrap().data["to"], "CLOSED");
}

#[test]
fn slow_signals_trip_without_a_packet_and_fade() {
    let mut world = World::new(added());
    let signals = SlowSignals { auth_failures: 21, ..SlowSignals::default() };
    assert_eq!(kinds(&world.input(Input::Signals { slot: SLOT, signals })), ["signals"]);
    assert_eq!(kinds(&world.tick()), ["control", "record"]);
    let trip = world.events(EventKind::ContainmentAction)[0];
    assert_eq!(trip.data["tripped"]["by"], "daemon");
    assert_eq!(trip.data["trigger_reason"], "21 failed authentications exceed max_auth_failures of 20");
    assert_eq!(world.engine.view(world.now, SLOT).unwrap().risk_milli, 300);
    world.pass(11);
    assert_eq!(world.engine.view(world.now, SLOT).unwrap().risk_milli, 0);
}

#[test]
fn too_many_trips_alert_and_are_held_in_shadow_until_closed() {
    let guard = GuardSettings { trips: 1, window_ns: 3600 * SECOND, hold_in_shadow: true };
    let mut world = World::with_guard(added(), guard);
    world.kernel_trips(Cause::VolumeLimit);
    world.tick();
    world.release(true).unwrap();
    world.kernel_trips(Cause::VolumeLimit);
    world.tick();
    assert_eq!(world.events(EventKind::Alert).len(), 1);
    let control = world.control.unwrap();
    assert_eq!((control.state, control.mode), (State::Open, Mode::Shadow));
    world.release(true).unwrap();
    assert_eq!(world.control.unwrap().mode, Mode::Enforce, "and is enforced again once closed");
}

#[test]
fn drops_and_losses_are_told_at_most_every_five_seconds() {
    let mut world = World::new(added());
    world.counters.traffic[0].dropped_packets = 5;
    world.tick();
    assert!(world.events(EventKind::Drops).is_empty(), "what was before is not news");
    for _ in 0..10 {
        world.counters.traffic[0].dropped_packets += 2;
        world.counters.traffic[1].dropped_bytes += 30;
        world.losses.notices += 1;
        world.losses.flows += 2;
        world.losses.samples += 3;
        world.losses.flow_records += 4;
        world.losses.openings += 5;
        world.pass(1);
    }
    let drops = world.events(EventKind::Drops);
    assert_eq!(drops.len(), 2);
    assert_eq!(drops[1].data["dropped"], serde_json::json!({ "packets": 10, "bytes": 150 }));
    let losses = world.events(EventKind::Loss);
    assert_eq!(losses.len(), 2);
    let expected = serde_json::json!({
        "what": "kernel", "notices_lost": 5, "packets_without_endpoint": 0, "packets_without_flow": 10,
        "answers_without_endpoint": 0, "samples_lost": 15, "interactions_lost": 20, "requests_unread": 25, "packets_not_recorded": 0,
    });
    assert_eq!(losses[1].data, expected);
}

#[test]
fn notices_become_events() {
    let mut world = World::new(added());
    let notice = |kind| Notice { slot: SLOT, kind: kind as u8, remote_port: 53, ..Notice::default() };
    world.input(Input::Notice(notice(NoticeKind::NewEndpoint)));
    world.input(Input::Notice(notice(NoticeKind::Violation)));
    assert_eq!(world.events(EventKind::EndpointNew)[0].data["packet"]["remote_port"], 53);
    assert_eq!(world.events(EventKind::SecurityViolation)[0].data["policy_violated"], "profiles.web.typical");
    world.input(Input::Notice(Notice { kind: 99, ..notice(NoticeKind::Drop) }));
    assert!(world.input(Input::Notice(notice(NoticeKind::Trip))).is_empty());
}

#[test]
fn an_explanation_names_the_limit_the_packet_and_the_setting() {
    let mut world = World::new(added());
    world.kernel_trips(Cause::VolumeLimit);
    world.tick();
    let explanation = world.engine.explain(world.now, SLOT).unwrap();
    assert!(
        explanation
            .summary
            .starts_with("OPEN in mode enforce: everything is dropped; opened by the kernel at ")
    );
    assert_eq!(explanation.because, ["volume of 1500 bytes exceeds max_volume of 1000"]);
    assert_eq!(explanation.would_change, ["profiles.web.limits.max_volume is 1000 bytes"]);
    assert_eq!(explanation.packet.unwrap().bytes, 600);
    assert_eq!(explanation.next, "probe in 30 s");
}

#[test]
fn after_a_reboot_an_open_agent_is_open_and_cools_down_in_full() {
    let mut world = World::new(added());
    world.quarantine(false).unwrap();
    let saved = world.saved();
    let text = serde_json::to_string(&saved).unwrap();
    assert_eq!(serde_json::from_str::<AgentState>(&text).unwrap(), saved);
    // The wall clock has jumped a year ahead: that must not end the cool-down.
    let rebooted = AgentAdded { saved: Some(saved), boot_id: "other".into(), ..added() };
    let mut world = World::new(rebooted);
    world.now.wall_ns += 365 * 86_400 * SECOND;
    world.now.mono_ns += 29 * SECOND;
    world.tick();
    assert_eq!(world.in_force(), State::Open);
    world.pass(1);
    assert_eq!(world.in_force(), State::HalfOpen);
}

#[test]
fn a_trip_that_waits_for_the_disk_survives_a_reboot() {
    let mut world = World::new(added());
    world.disk_full = true;
    world.kernel_trips(Cause::VolumeLimit);
    world.tick();
    let saved = world.saved();
    let world = World::new(AgentAdded { saved: Some(saved), boot_id: "other".into(), ..added() });
    assert_eq!(world.control.unwrap().state, State::Open);
    assert_eq!(world.engine.view(world.now, SLOT).unwrap().tripped.unwrap().cause, "max_volume");
}

#[test]
fn the_pinned_word_wins_over_the_saved_state() {
    let world = World::new(added());
    let closed = world.saved();
    let pinned = Control { state: State::Open, mode: Mode::Enforce, row: 5, epoch: 7, acked_trip: 2 };
    let mut world =
        World::new(AgentAdded { saved: Some(closed), pinned: Some(pinned), trip_seq: 2, ..added() });
    world.trip.seq = 2;
    world.pass(100_000);
    assert_eq!(world.control, Some(pinned), "nobody knows why it is open, so it is held");
    assert!(world.release(false).unwrap().changed);

    world.quarantine(true).unwrap();
    let saved = world.saved();
    let view = world.engine.view(world.now, SLOT).unwrap();
    let again = World::new(AgentAdded { saved: Some(saved), pinned: world.control, trip_seq: 2, ..added() });
    let restored = again.engine.view(world.now, SLOT).unwrap();
    assert_eq!((restored.tripped, restored.hold, restored.epoch), (view.tripped, true, view.epoch));
    assert!(!kinds(&again.commands).contains(&"control"), "the word is right already");
}

#[test]
fn an_edited_mode_is_put_into_force_and_an_operators_mode_survives_a_restart() {
    let mut world = World::new(added());
    world.operator(Request::Shadow { target: Target::All, off: false }).unwrap();
    let saved = world.saved();
    assert_eq!((saved.mode, saved.configured_mode), (ModeName::Shadow, ModeName::Enforce));
    let same = AgentAdded { saved: Some(saved.clone()), pinned: world.control, ..added() };
    assert_eq!(World::new(same.clone()).control.unwrap().mode, Mode::Shadow);
    let edited = AgentSettings { mode: Mode::Exempt, ..settings() };
    assert_eq!(World::new(AgentAdded { settings: edited, ..same }).control.unwrap().mode, Mode::Exempt);
    assert_eq!(saved.state, StateName::Closed);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Trip(Cause),
    Tick,
    Pass(u64),
    Record,
    DiskFull(bool),
    RecordFailed,
    Quarantine(bool),
    Release(bool),
    Shadow(bool),
    Exempt(bool),
    Signals(u16),
    Configure(Mode, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let cause = prop_oneof![Just(Cause::VolumeLimit), Just(Cause::Risk), Just(Cause::ProbeViolation)];
    let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Shadow), Just(Mode::Exempt)];
    prop_oneof![
        3 => cause.prop_map(Step::Trip),
        4 => Just(Step::Tick),
        3 => (1u64..50).prop_map(Step::Pass),
        2 => Just(Step::Record),
        1 => any::<bool>().prop_map(Step::DiskFull),
        1 => Just(Step::RecordFailed),
        1 => any::<bool>().prop_map(Step::Quarantine),
        1 => any::<bool>().prop_map(Step::Release),
        1 => any::<bool>().prop_map(Step::Shadow),
        1 => any::<bool>().prop_map(Step::Exempt),
        1 => (0u16..30).prop_map(Step::Signals),
        1 => (mode, any::<bool>()).prop_map(|(mode, probe)| Step::Configure(mode, probe)),
    ]
}

fn take(world: &mut World, step: &Step) {
    let target = Target::All;
    match step.clone() {
        Step::Trip(cause) => world.kernel_trips(cause),
        Step::Tick => _ = world.input(Input::Observed(vec![world.observation()])),
        Step::Pass(seconds) => {
            world.now.mono_ns += seconds * SECOND;
            world.now.wall_ns += seconds * SECOND;
            world.input(Input::Observed(vec![world.observation()]));
        }
        Step::Record => world.record(),
        Step::DiskFull(full) => world.disk_full = full,
        Step::RecordFailed => {
            for TripRef { slot, trip_seq } in std::mem::take(&mut world.unrecorded) {
                world.input(Input::RecordFailed { slot, trip_seq });
            }
        }
        Step::Quarantine(hold) => _ = world.quarantine(hold),
        Step::Release(force) => _ = world.release(force),
        Step::Shadow(off) => _ = world.operator(Request::Shadow { target, off }),
        Step::Exempt(off) => _ = world.operator(Request::Exempt { target, off }),
        Step::Signals(auth_failures) => {
            let signals = SlowSignals { auth_failures, ..SlowSignals::default() };
            world.input(Input::Signals { slot: SLOT, signals });
        }
        Step::Configure(mode, auto_probe) => {
            let breaker = BreakerSettings { auto_probe, ..BreakerSettings::default() };
            let settings = Box::new(AgentSettings { mode, breaker, ..settings() });
            world.input(Input::AgentConfigured { slot: SLOT, settings });
        }
    }
}

fn is_operator(step: &Step) -> bool {
    matches!(step, Step::Release(_) | Step::Exempt(_) | Step::Configure(..))
}

proptest! {
    #[test]
    fn whatever_happens_the_breakers_rules_hold(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut world = World::new(added());
        for step in &steps {
            let (before, was_in_force) = (world.control.unwrap(), world.in_force());
            let breaker = world.engine.agent(SLOT).breaker.clone();
            let from = world.commands.len();
            take(&mut world, step);
            let after = world.control.unwrap();

            // Exempt agents are never dropped, so there the state in force means nothing.
            let contained = was_in_force == State::Open && before.mode != Mode::Exempt;
            if contained && world.in_force() != State::Open {
                let due = matches!(step, Step::Tick | Step::Pass(_)) && breaker.is_due(world.now);
                prop_assert!(due || is_operator(step), "left OPEN by {step:?}");
                prop_assert!(!(due && breaker.hold), "a held agent probed by itself");
            }
            let mut last = before;
            for command in &world.commands[from..] {
                let Command::SetControl { control, .. } = command else { continue };
                let moved = (last.state, last.mode) != (control.state, control.mode);
                let epochs = control.epoch.wrapping_sub(last.epoch) & EPOCH_MASK;
                // A release over an unrecorded trip is two transitions in one word.
                prop_assert!(epochs <= 2 && (epochs > 0 || !moved), "{last:?} -> {control:?}");
                last = *control;
            }
            if after.acked_trip != before.acked_trip {
                prop_assert!(matches!(step, Step::Record) || is_operator(step), "acknowledged by {step:?}");
                prop_assert_eq!(u64::from(after.acked_trip), world.trip.seq);
            }
        }
    }

    #[test]
    fn the_epoch_changes_exactly_with_state_or_mode(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut world = World::new(added());
        for step in &steps {
            let events = world.events(EventKind::ContainmentAction).len();
            let epoch = world.control.unwrap().epoch;
            take(&mut world, step);
            let breaker = world.engine.agent(SLOT).breaker.clone();
            if world.control.unwrap().epoch != epoch && !matches!(step, Step::Record) {
                prop_assert!(world.events(EventKind::ContainmentAction).len() > events, "every transition has an event");
            }
            prop_assert_eq!(breaker.control(settings().row), world.control.unwrap(), "the kernel has the engine's word");
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_commands(steps in prop::collection::vec(any_step(), 1..60)) {
        let run = || {
            let mut world = World::new(added());
            steps.iter().for_each(|step| take(&mut world, step));
            world.commands
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn a_restart_at_any_point_never_opens_what_was_contained(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut world = World::new(added());
        steps.iter().for_each(|step| take(&mut world, step));
        let saved = world.saved();
        let settings = world.engine.agent(SLOT).settings.clone();
        let restarted = World::new(AgentAdded {
            saved: Some(saved), pinned: world.control, trip_seq: world.trip.seq as u32, settings, ..added()
        });
        prop_assert_eq!(restarted.control, world.control);
    }
}
