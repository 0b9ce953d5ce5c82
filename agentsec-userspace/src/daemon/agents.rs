//! Agents come and go: slots, rows, and what the core has to know.

use std::collections::BTreeMap;

use agentsec_common::agent::{Identity, Slot};
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::policy::{Control, Mode, State, TRIP_MASK};
use agentsec_common::profile::Profile;
use anyhow::Result;

use crate::clock;
use crate::config::{AgentConfig, Config, DEFAULT_PROFILE, Interface, Newcomer};
use crate::core::{AgentAdded, AgentSettings, BreakerSettings, Input};

use super::Daemon;
use super::roster::Member;

/// A profile in its row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The row.
    pub(super) index: u16,
    /// As in the row.
    pub(super) profile: Profile,
    /// Its window, nanoseconds.
    pub(super) window_ns: u64,
}

/// The section that configures an agent.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// Its name.
    pub(super) name: String,
    /// Whether it adopts interfaces by a pattern.
    pub(super) adopted: bool,
}

impl Section {
    /// The section of the agent `id`: its own, or that of a pattern which matches the interface it is named after.
    pub(super) fn of(config: &Config, id: &str) -> Option<Self> {
        if config.agents.get(id).is_some_and(|agent| matches!(agent.interface, Interface::Exact(_))) {
            return Some(Self { name: id.to_owned(), adopted: false });
        }
        let found = config.agent_on(id).filter(|found| found.adopted)?;
        Some(Self { name: found.section.to_owned(), adopted: true })
    }
}

impl Daemon {
    /// Gives an agent a slot in which everything starts from nothing.
    pub(super) fn assign(&mut self, id: &str) -> Result<Slot> {
        let slot = self.kernel.enforcer.assign(id)?;
        self.kernel.collector.clear_counters(slot)?;
        Ok(slot)
    }

    /// Makes an agent known to the core, and so puts its policy into force. Without a section it is one that
    /// nobody configures any more.
    pub(super) fn introduce(
        &mut self,
        slot: Slot,
        id: &str,
        section: Option<&Section>,
        pinned: Option<Control>,
    ) {
        let configured = section.map(|section| self.config.agents[&section.name].clone());
        let settings = match (&configured, section) {
            (Some(agent), Some(section)) => self.settings(id, &section.name, agent),
            _ => self.settings_of_nobody(pinned),
        };
        let exact = configured.as_ref().and_then(|agent| match &agent.interface {
            Interface::Exact(name) => Some(name.clone()),
            Interface::Pattern(_) => None,
        });
        let newcomer = match &configured {
            Some(agent) if exact.is_none() => newcomer_state(agent.newcomer),
            Some(_) => State::Closed,
            None => State::Open,
        };
        let window_ns = self.rows.get(&settings.profile_name).map_or(0, |row| row.window_ns);
        self.roster.insert(
            slot,
            Member {
                id: id.to_owned(),
                configured: exact.clone(),
                is_configured: configured.is_some(),
                settings: settings.clone(),
                window_ns,
                places: BTreeMap::new(),
            },
        );
        let added = AgentAdded {
            slot,
            id: id.to_owned(),
            interface: exact.unwrap_or_else(|| id.to_owned()),
            settings,
            newcomer,
            saved: self.state.take(id),
            pinned,
            trip_seq: self.kernel.collector.ledger(slot).trip_seq as u32 & TRIP_MASK,
            fresh_epoch: self.kernel.enforcer.next_epoch(slot),
            boot_id: self.boot_id.clone(),
        };
        self.handle(clock::now(), Input::AgentAdded(Box::new(added)));
    }

    fn settings(&self, id: &str, section: &str, agent: &AgentConfig) -> AgentSettings {
        let row = self.rows[&agent.profile];
        let never = &self.config.never_isolate;
        let starts_in_shadow =
            agent.newcomer == Newcomer::Shadow && matches!(agent.interface, Interface::Pattern(_));
        AgentSettings {
            profile_name: agent.profile.clone(),
            profile: row.profile,
            row: row.index,
            breaker: agent.breaker,
            mode: if starts_in_shadow && agent.mode == Mode::Enforce { Mode::Shadow } else { agent.mode },
            never_isolate: never.contains(id) || never.contains(section),
        }
    }

    /// Settings of an agent that is contained and no longer configured: nothing lets it out by itself.
    fn settings_of_nobody(&self, pinned: Option<Control>) -> AgentSettings {
        let row = self.rows[DEFAULT_PROFILE];
        AgentSettings {
            profile_name: DEFAULT_PROFILE.into(),
            profile: row.profile,
            row: row.index,
            breaker: BreakerSettings { auto_probe: false, ..BreakerSettings::default() },
            mode: pinned.map_or(Mode::Enforce, |control| control.mode),
            never_isolate: false,
        }
    }

    /// Forgets an agent: its slot is free for the next one.
    pub(super) fn forget(&mut self, slot: Slot, reason: &str) -> Result<()> {
        self.handle(clock::now(), Input::AgentRemoved { slot, reason: reason.to_owned() });
        self.roster.remove(slot);
        self.let_go(slot)
    }

    /// Takes an agent out of the kernel.
    pub(super) fn let_go(&mut self, slot: Slot) -> Result<()> {
        for (of, ifindex) in self.kernel.links.attached() {
            if of == slot {
                self.kernel.links.detach(slot, ifindex)?;
                self.kernel.enforcer.identify(ifindex, Identity::NONE)?;
            }
        }
        // No program runs for the slot any more, so its list can be emptied and its counts made even.
        let keys: Vec<_> =
            self.kernel.collector.endpoints().map(|(key, _)| key).filter(|key| key.slot == slot).collect();
        for key in keys {
            self.kernel.collector.remove_endpoint(&key)?;
        }
        for kind in [EndpointKind::Opened, EndpointKind::Accepted] {
            let live = self.live_endpoints(slot, kind);
            self.kernel.enforcer.add_endpoints_removed(slot, kind, live);
        }
        self.kernel.enforcer.release(slot)
    }
}

fn newcomer_state(newcomer: Newcomer) -> State {
    match newcomer {
        Newcomer::Closed | Newcomer::Shadow => State::Closed,
        Newcomer::HalfOpen => State::HalfOpen,
        Newcomer::Open => State::Open,
    }
}
