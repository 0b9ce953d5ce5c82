//! Carries out what the core decides, in its order.

use agentsec_common::gate::state_in_force;
use agentsec_common::policy::State;

use crate::clock;
use crate::core::{Command, Done, Draft, Input, Refusal, Time};

use super::Daemon;

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
                    Command::Record(draft) => drafts.push(draft),
                    other => {
                        inputs.extend(self.write(now, std::mem::take(&mut drafts)));
                        self.carry_out(other, &mut answers);
                    }
                }
            }
            inputs.extend(self.write(now, drafts));
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
                    // The kernel drops already, so the word can wait until the file says why.
                    self.save();
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

    /// Writes events; what the core has to hear of it.
    fn write(&mut self, now: Time, drafts: Vec<Draft>) -> Vec<Input> {
        if drafts.is_empty() {
            return Vec::new();
        }
        self.outcome(now, drafts)
    }

    /// Records one event that the core did not make.
    pub(super) fn record(&mut self, now: Time, draft: Draft) {
        for input in self.outcome(now, vec![draft]) {
            self.handle(now, input);
        }
    }

    /// Tries again to write what waits.
    pub(super) fn flush(&mut self, now: Time) {
        if self.journal.waiting() == 0 && self.journal.lost() == 0 {
            return;
        }
        for input in self.outcome(now, Vec::new()) {
            self.handle(now, input);
        }
    }

    fn outcome(&mut self, now: Time, drafts: Vec<Draft>) -> Vec<Input> {
        let waiting = self.journal.waiting() as u64 + drafts.len() as u64;
        let outcome = self.journal.write(now, drafts);
        let refused = outcome.refused.len() as u64;
        self.events_written += waiting.saturating_sub(self.journal.waiting() as u64 + refused);
        if let Some(error) = outcome.error {
            self.complain(
                "events",
                &anyhow::Error::new(error).context("the log takes none; they wait in memory"),
            );
        } else if outcome.durable {
            self.alerts.retain(|alert| !alert.starts_with("events:"));
        }
        let recorded = outcome
            .recorded
            .into_iter()
            .map(|trip| Input::Recorded { slot: trip.slot, trip_seq: trip.trip_seq });
        let failed = outcome
            .refused
            .into_iter()
            .map(|trip| Input::RecordFailed { slot: trip.slot, trip_seq: trip.trip_seq });
        recorded.chain(failed).collect()
    }

    /// Saves every breaker's details, if they have changed. What fails is tried again with the next turn.
    pub(super) fn save(&mut self) {
        if !self.state.is_dirty() {
            return;
        }
        let states = self.engine.states(clock::now(), &self.boot_id);
        match self.state.save(states) {
            Ok(()) => self.alerts.retain(|alert| !alert.starts_with("state:")),
            Err(error) => self.complain("state", &error),
        }
    }
}
