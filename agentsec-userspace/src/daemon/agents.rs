//! Agents come and go: slots, rows, and what the core has to know.

use std::collections::BTreeMap;

use agentsec_common::agent::{Identity, Slot};
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::policy::{Control, Mode, State, TRIP_MASK};
use agentsec_common::profile::Profile;
use anyhow::Result;

use crate::clock;
use crate::config::{DEFAULT_PROFILE, Match};
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

impl Daemon {
    /// Gives an agent a slot in which everything starts from nothing.
    pub(super) fn assign(&mut self, id: &str) -> Result<Slot> {
        let slot = self.kernel.enforcer.assign(id)?;
        self.kernel.collector.clear_counters(slot)?;
        Ok(slot)
    }

    /// Makes an agent known to the core, and so puts its policy into force. One that nobody configures any more
    /// is known as it is in the pins.
    pub(super) fn introduce(&mut self, slot: Slot, id: &str, pinned: Option<Control>) {
        let found = self.config.agent_called(id);
        let exact = found.as_ref().and_then(|found| found.agent.exact_interface()).map(str::to_owned);
        let newcomer = found.as_ref().map_or(State::Open, Match::newcomer_state);
        let is_configured = found.is_some();
        let settings = match &found {
            Some(found) => self.config.settings(found, self.rows[&found.agent.profile].index),
            None => self.settings_of_nobody(pinned),
        };
        let window_ns = self.rows[&settings.profile_name].window_ns;
        let interface = exact.clone().unwrap_or_else(|| id.to_owned());
        let member = Member {
            id: id.to_owned(),
            configured: exact,
            is_configured,
            settings: settings.clone(),
            window_ns,
            places: BTreeMap::new(),
        };
        self.roster.insert(slot, member);
        let added = AgentAdded {
            slot,
            id: id.to_owned(),
            interface,
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
            tags: Vec::new(),
        }
    }

    /// Forgets an agent: its slot is free for the next one.
    pub(super) fn forget(&mut self, slot: Slot, reason: &str) -> Result<()> {
        self.handle(clock::now(), Input::AgentRemoved { slot, reason: reason.to_owned() });
        self.roster.remove(slot);
        self.let_go(slot)
    }

    /// Lets agents go that are no longer configured, once an operator has released them.
    pub(super) fn forget_released(&mut self) {
        let now = clock::now();
        let is_closed = |slot: Slot| {
            self.engine.view(now, slot).is_some_and(|view| State::from(view.state) == State::Closed)
        };
        let released: Vec<Slot> = self
            .roster
            .iter()
            .filter(|(slot, member)| !member.is_configured && is_closed(*slot))
            .map(|(slot, _)| slot)
            .collect();
        for slot in released {
            if let Err(error) = self.forget(slot, "released, and no longer configured") {
                self.complain("agents", &error);
            }
        }
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
