//! Carries out what the core decides, in its order.

use agentsec_common::gate::state_in_force;
use agentsec_common::policy::State;

use std::time::Duration;

use serde_json::json;

use crate::clock;
use crate::core::time::rfc3339;
use crate::core::{Command, Done, Draft, EventKind, Input, Refusal, Time, TripRef};
use crate::record::writer::Told as Written;

use super::Daemon;

/// The most that a word or an answer waits for the state file, and once only: a disk that is slower is not waited for again.
/// A crash before the file is written holds the agent, which is safe.
const QUICK: Duration = Duration::from_secs(1);

/// How complaints about the log begin.
const REFUSES: &str = "events: the log takes none; they wait";
const UNPUBLISHED: &str = "events: they are kept, in no tile and under no signature yet";

/// What an operator is answered: one outcome per agent.
pub(super) type Outcomes = Vec<(String, Result<Done, Refusal>)>;

impl Daemon {
    /// Gives the core an input and carries out its commands; answers of an operator's request are returned.
    pub(super) fn handle(&mut self, now: Time, input: Input) -> Outcomes {
        let mut answers = Vec::new();
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let commands = self.engine.handle(now, input);
            let mut drafts = Vec::new();
            for command in commands {
                match command {
                    // Consecutive events are written together; anything else waits for them.
                    Command::Record(draft) => {
                        self.bundles.note(&draft);
                        drafts.push(draft);
                    }
                    other => {
                        inputs.extend(self.write(std::mem::take(&mut drafts)));
                        self.carry_out(other, &mut answers);
                    }
                }
            }
            inputs.extend(self.write(drafts));
        }
        answers
    }

    fn carry_out(&mut self, command: Command, answers: &mut Outcomes) {
        match command {
            Command::SetControl { slot, control } => {
                self.state.touch();
                self.changed = true;
                if self.kernel.enforcer.control(slot).is_some_and(|before| {
                    let trip_seq = self.kernel.collector.ledger(slot).trip_seq;
                    state_in_force(before, trip_seq) == State::Open
                }) {
                    // The kernel drops already, so the word can wait until the file says why, if the disk is quick.
                    self.save();
                    self.settle_state();
                }
                let opens = control.state == State::Open
                    && self.kernel.enforcer.control(slot).is_none_or(|before| before.state != State::Open);
                self.kernel.enforcer.set_control(slot, control);
                if opens {
                    self.keep_recording(slot);
                }
            }
            Command::SetSignals { slot, signals, valid_until_ns } => {
                self.kernel.enforcer.set_signals(slot, signals, valid_until_ns);
            }
            Command::Reply(outcomes) => answers.extend(outcomes),
            Command::Record(_) => {}
        }
    }

    /// Hands events to the log; what the core has to hear of it now.
    fn write(&mut self, drafts: Vec<Draft>) -> Vec<Input> {
        if drafts.is_empty() {
            return Vec::new();
        }
        let refused = self.log.write(drafts);
        refused
            .into_iter()
            .map(|trip| Input::RecordFailed { slot: trip.slot, trip_seq: trip.trip_seq })
            .collect()
    }

    /// Records one event that the core did not make.
    pub(super) fn record(&mut self, now: Time, draft: Draft) {
        for input in self.write(vec![draft]) {
            self.handle(now, input);
        }
    }

    /// Records events that the core did not make, together.
    pub(super) fn record_all(&mut self, now: Time, drafts: Vec<Draft>) {
        for input in self.write(drafts) {
            self.handle(now, input);
        }
    }

    /// What the log says of events that it was handed.
    pub(super) fn hear_log(&mut self, written: Written) {
        match written {
            Written::Recorded(trips) => {
                let now = clock::now();
                for TripRef { slot, trip_seq } in trips {
                    self.handle(now, Input::Recorded { slot, trip_seq });
                }
            }
            Written::Refuses(error) => {
                self.complain_anew(REFUSES, &anyhow::Error::new(error));
            }
            Written::Unpublished(error) => {
                if self.log.counts().queued == 0 {
                    // It takes events again.
                    self.alerts.retain(|alert| !alert.starts_with(REFUSES));
                }
                self.complain_anew(UNPUBLISHED, &anyhow::Error::new(error));
            }
            Written::Fine => self.alerts.retain(|alert| !alert.starts_with("events:")),
        }
    }

    /// Complains, in the place of an earlier complaint that begins in the same way.
    fn complain_anew(&mut self, about: &str, error: &anyhow::Error) {
        let complaint = format!("{about}: {error:#}");
        self.alerts.retain(|alert| *alert == complaint || !alert.starts_with(about));
        self.complain(about, error);
    }

    /// Whether the log's disk answers: operators see it as long as it does not.
    pub(super) fn watch_log(&mut self, now: Time) {
        let is_silent = self.silence.is_silent(now, self.log.counts());
        // One that refuses has said why.
        let refuses = self.alerts.iter().any(|alert| alert.starts_with("events:"));
        let trouble = (is_silent && !refuses).then(|| "the disk does not answer; events wait".to_owned());
        self.tell_trouble("log", trouble);
    }

    /// Tells a step of the wall clock: times in the log before and after it do not compare.
    pub(super) fn watch_clock(&mut self, now: Time) {
        let Some(step_ns) = self.clock_steps.step(now) else { return };
        let (seconds, way) =
            (step_ns.unsigned_abs() as f64 / 1e9, if step_ns < 0 { "back" } else { "ahead" });
        let data = json!({
            "what": "clock_stepped",
            "why": format!("the wall clock went {seconds:.3} s {way}: it was set, or this host slept"),
            "step_ms": step_ns / 1_000_000,
            "expected": rfc3339(now.wall_ns.saturating_add_signed(step_ns.saturating_neg())),
        });
        self.record(now, Draft::daemon(now, EventKind::Alert, data));
    }

    /// Waits until the state file says what was saved, unless the disk is slow.
    pub(super) fn settle_state(&self) {
        self.state.wait(QUICK);
    }

    /// Saves every breaker's details beside the loop, if they have changed.
    pub(super) fn save(&mut self) {
        if !self.state.is_dirty() {
            return;
        }
        let states = self.engine.states(clock::now(), &self.boot_id);
        if let Err(error) = self.state.save(states) {
            self.complain("state", &error);
        }
    }

    /// Whether a file is saved: operators see it as long as it is not.
    pub(super) fn tell_trouble(&mut self, about: &str, trouble: Option<String>) {
        match trouble {
            Some(trouble) => self.complain(about, &anyhow::Error::msg(trouble)),
            None => self.alerts.retain(|alert| !alert.starts_with(&format!("{about}:"))),
        }
    }
}
