//! The flight recorder's daemon side: who has a recorder, how often packets are recorded at the agent's risk, and what is read
//! and kept when a circuit opens.

use std::collections::BTreeSet;
use std::time::Duration;

use agentsec_common::agent::Slot;
use agentsec_common::gate::state_in_force;
use agentsec_common::policy::{Control, State};
use agentsec_common::recorder::{Orders, generation_of, no_recorder};
use anyhow::{Context, Result};
use serde_json::json;

use crate::api::{Recorded, RequestError};
use crate::clock;
use crate::core::{Draft, EventKind, Time};
use crate::recorder::{About, Keeper, Kept, Outcome, Recording, name_of};

use super::{Daemon, RunOptions};

/// What the daemon keeps about recorders. Which recorder is whose is in the kernel's words, and nowhere else.
#[derive(Debug)]
pub(super) struct Recorders {
    about: About,
    /// `None` when there is no directory or thread for it; why is among the alerts.
    keeper: Result<Keeper>,
}

impl Recorders {
    pub(super) fn start(options: &RunOptions, host: String) -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let about = About { host, kernel: release.trim().into() };
        let keeper = Kept::open(&options.state_dir)
            .and_then(|kept| Keeper::start(kept, about.clone()))
            .context("recordings of trips cannot be kept as files");
        Self { about, keeper }
    }
}

impl Recorders {
    /// What every recording says of where it was made.
    pub(super) fn about(&self) -> &About {
        &self.about
    }
}

impl Daemon {
    /// Tells the kernel what to record of each agent now, and operators what could not be kept.
    pub(super) fn keep_recorders(&mut self, now: Time) {
        let mut free = None;
        let mut all_have = true;
        for slot in self.roster.slots() {
            all_have &= self.order(now, slot, &mut free);
        }
        if all_have {
            self.alerts.retain(|alert| !alert.starts_with("recorder: no recorder"));
        } else {
            let most = self.config.recorder.max_agents;
            let error = anyhow::anyhow!("no recorder is free for some agents: recorder.max_agents is {most}");
            self.complain("recorder", &error);
        }
        self.tell_outcomes(now);
    }

    /// Tells the kernel what to record of one agent; false, when it should have a recorder and there is none. While a circuit is
    /// OPEN, its recorder stays as it is: it holds what came before.
    fn order(&self, now: Time, slot: Slot, free: &mut Option<BTreeSet<u32>>) -> bool {
        let Some(member) = self.roster.get(slot) else { return true };
        if self.is_open(slot) {
            return true;
        }
        let word = self.kernel.enforcer.recorder(slot);
        let generation = generation_of(word);
        let sampling = self.config.sampling(&member.settings.profile_name);
        let risk = self.engine.standing(now, slot).map_or(0, |(_, risk)| risk);
        let mut recorder = Orders::from_word(word).map(|orders| orders.recorder);
        let is_wanted = sampling.one_in_at(risk).is_some();
        if is_wanted && recorder.is_none() {
            recorder = free.get_or_insert_with(|| self.free_recorders()).pop_first();
        }
        let depth = self.config.recorder.depth_log2;
        let orders = recorder.and_then(|recorder| sampling.orders(risk, recorder, depth, generation));
        let wanted = orders.map_or(no_recorder(generation), Orders::to_word);
        if wanted != word {
            self.kernel.enforcer.set_recorder(slot, wanted);
        }
        orders.is_some() || !is_wanted
    }

    fn free_recorders(&self) -> BTreeSet<u32> {
        let words = self.roster.iter().map(|(slot, _)| self.kernel.enforcer.recorder(slot));
        let used: BTreeSet<u32> = words.filter_map(Orders::from_word).map(|orders| orders.recorder).collect();
        (0..self.config.recorder.max_agents).filter(|recorder| !used.contains(recorder)).collect()
    }

    fn is_open(&self, slot: Slot) -> bool {
        let trip_seq = self.kernel.collector.ledger(slot).trip_seq;
        let open = |control: Control| state_in_force(control, trip_seq) == State::Open;
        self.kernel.enforcer.control(slot).is_some_and(open)
    }

    /// What is recorded of an agent at this moment; `None` when it has no recorder. What comes of it holds no credentials that
    /// [`crate::recorder::redact`] knows.
    pub(super) fn recording_of(&self, slot: Slot) -> Option<Recording> {
        let member = self.roster.get(slot)?;
        let orders = Orders::from_word(self.kernel.enforcer.recorder(slot))?;
        let held = self.kernel.records.read(slot, orders);
        let ledger = self.kernel.collector.ledger(slot);
        let recording = Recording::read(&member.id, &held.entries, clock::now());
        Some(Recording {
            torn: recording.torn + held.torn,
            recorded: ledger.recorded,
            lost: ledger.recorder_lost,
            is_frozen: self.is_open(slot),
            ..recording
        })
    }

    /// A circuit is OPEN: what was recorded before is kept as a file, once. Where evidence is encrypted it is in the bundle
    /// only, and nowhere in clear.
    pub(super) fn keep_recording(&mut self, slot: Slot) {
        if self.config.bundles.enabled && !self.config.bundles.recipients.is_empty() {
            return;
        }
        let Some(recording) = self.recording_of(slot).filter(|recording| !recording.packets.is_empty())
        else {
            return;
        };
        let name = name_of(&recording, &self.boot_id);
        let most = self.config.recorder.keep as usize;
        let handed = match &self.recorders.keeper {
            Ok(keeper) => keeper.keep(recording, name, most),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        if let Err(error) = handed {
            self.complain("recorder", &error);
        }
    }

    /// Keeps the recordings of circuits that were found OPEN: the daemon may have died before it did.
    pub(super) fn keep_recordings_at_start(&mut self) {
        if let Err(error) = &self.recorders.keeper {
            let error = anyhow::anyhow!("{error:#}");
            self.complain("recorder", &error);
        }
        for slot in self.roster.slots() {
            if self.is_open(slot) {
                self.keep_recording(slot);
            }
        }
    }

    /// Lets recordings go that are older than is wanted.
    pub(super) fn expire_recordings(&self) {
        if let (Ok(keeper), Some(expire_ns)) = (&self.recorders.keeper, self.config.recorder.expire_ns) {
            keeper.expire(Duration::from_nanos(expire_ns));
        }
    }

    fn tell_outcomes(&mut self, now: Time) {
        let Ok(keeper) = &self.recorders.keeper else { return };
        for outcome in keeper.outcomes() {
            match outcome {
                Outcome::Kept(agent, Err(error)) => {
                    let data = json!({ "what": "recording", "agent": agent, "error": format!("{error:#}") });
                    self.record(now, Draft::daemon(now, EventKind::Loss, data));
                    self.complain("recorder", &error.context(agent));
                }
                Outcome::Kept(_, Ok(_)) => {}
                Outcome::Stay(error) => {
                    let error = anyhow::Error::new(error).context("recordings that have expired stay");
                    self.complain("recorder", &error);
                }
            }
        }
    }

    /// Answers the API.
    pub(super) fn recorded(&self, agent: &str) -> Result<Recorded, RequestError> {
        let slot = self.roster.slot_of(agent).ok_or_else(|| RequestError::no_agent(agent))?;
        let orders = Orders::from_word(self.kernel.enforcer.recorder(slot));
        let recording = self.recording_of(slot).unwrap_or_else(|| Recording::read(agent, &[], clock::now()));
        let name = name_of(&recording, &self.boot_id);
        let kept = self.recorders.keeper.as_ref().ok().and_then(|keeper| keeper.find(&name));
        Ok(Recorded { recording, about: self.recorders.about.clone(), kept, orders })
    }
}
