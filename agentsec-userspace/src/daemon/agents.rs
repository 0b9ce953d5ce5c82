//! Agents come and go: slots, rows, and what the core has to know.

use std::collections::{BTreeMap, BTreeSet};

use agentsec_common::agent::{Identity, Slot};
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::policy::{Control, Mode, State, TRIP_MASK};
use agentsec_common::profile::Profile;
use anyhow::Result;

use crate::clock;
use crate::config::{AgentConfig, DEFAULT_PROFILE, Match, Prefix};
use crate::core::{AgentAdded, AgentSettings, BreakerSettings, Input, Place};

use crate::kernel::hook::Hook;

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
        let awaited = match &found {
            Some(found) if !found.adopted => awaited(found.agent),
            _ => Vec::new(),
        };
        let newcomer = found.as_ref().map_or(State::Open, Match::newcomer_state);
        let is_configured = found.is_some();
        let settings = match &found {
            Some(found) => self.config.settings(found, self.rows[&found.agent.profile].index),
            None => self.settings_of_nobody(pinned),
        };
        let window_ns = self.rows[&settings.profile_name].window_ns;
        let places = awaited.clone();
        let member = Member {
            id: id.to_owned(),
            is_adopted: !is_configured || found.as_ref().is_some_and(|found| found.adopted),
            is_configured,
            awaited,
            settings: settings.clone(),
            window_ns,
            seats: BTreeMap::new(),
            uncovered: BTreeSet::new(),
        };
        self.roster.insert(slot, member);
        let added = AgentAdded {
            slot,
            id: id.to_owned(),
            places,
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
    pub(super) fn settings_of_nobody(&self, pinned: Option<Control>) -> AgentSettings {
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
        for hook in self.kernel.links.attached() {
            if let Hook::Interface { slot: of, ifindex } = hook
                && of == slot
            {
                self.kernel.links.detach(hook)?;
                self.kernel.enforcer.identities.interface(ifindex, Identity::NONE)?;
            }
        }
        let identities = &mut self.kernel.enforcer.identities;
        for (id, _) in identities.cgroups()?.into_iter().filter(|(_, of)| *of == slot) {
            identities.remove_cgroup(id)?;
        }
        for (prefix, _) in identities.addresses()?.into_iter().filter(|(_, of)| *of == slot) {
            identities.remove_address(prefix)?;
        }
        // No program runs for the slot any more, so its list can be emptied and its counts made even.
        let keys: Vec<_> =
            self.kernel.collector.endpoints().map(|(key, _)| key).filter(|key| key.slot == slot).collect();
        for key in keys {
            self.kernel.collector.remove_endpoint(&key)?;
            self.kernel.collector.remove_responses(&key)?;
        }
        for kind in [EndpointKind::Opened, EndpointKind::Accepted] {
            let live = self.live_endpoints(slot, kind);
            self.kernel.enforcer.add_endpoints_removed(slot, kind, live);
        }
        self.forget_flows(slot)?;
        self.kernel.enforcer.release(slot)
    }
}

/// The places that an agent's section names.
pub(super) fn awaited(agent: &AgentConfig) -> Vec<Place> {
    let interface = agent.exact_interface().map(|name| Place::Interface(name.to_owned()));
    let cgroup = agent.cgroup.as_ref().and_then(|cgroup| cgroup.selector().exact());
    let cgroup = cgroup.map(|path| Place::Cgroup(path.to_owned()));
    let addresses = agent.address.iter().flat_map(|address| {
        let place = |prefix: &Prefix| Place::Address { prefix: prefix.short(), link: address.link.clone() };
        address.prefixes.iter().map(place)
    });
    interface.into_iter().chain(cgroup).chain(addresses).collect()
}
