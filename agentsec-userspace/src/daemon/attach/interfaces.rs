//! Interfaces that are each one agent's.

use std::collections::BTreeSet;

use agentsec_common::agent::Identity;
use anyhow::{Context, Result};

use crate::core::Place;
use crate::kernel::hook::Hook;
use crate::kernel::interfaces::Link;
use crate::kernel::links::{TakenOver, Target};
use crate::kernel::namespaces;

use super::{Daemon, Interfaces, Key};

/// More interfaces than this at once are attached with expedited grace periods.
const EXPEDITED_ATTACHMENTS: usize = 4;

/// An interface that an agent should be attached to.
struct Wanted {
    ifindex: u32,
    interface: String,
    id: String,
}

impl Daemon {
    pub(super) fn reconcile_interfaces(&mut self, present: &Interfaces) {
        self.notice_gone(present);
        self.notice_renamed(present);
        self.attach_wanted(present);
    }

    pub(super) fn adopt_interfaces(&mut self, taken: &TakenOver, present: &Interfaces) -> Result<()> {
        for &hook in &taken.attached {
            let Hook::Interface { slot, ifindex } = hook else { continue };
            let interface = present.get(&ifindex).cloned().unwrap_or_else(|| format!("#{ifindex}"));
            if self.roster.get(slot).is_none() {
                // Its agent was let go while this link's pin could not be removed.
                self.kernel.links.detach(hook)?;
                continue;
            }
            self.kernel.enforcer.identities.interface(ifindex, Identity::of(slot))?;
            self.attached(slot, Key::Interface(ifindex), Place::Interface(interface), None);
        }
        for &hook in &taken.halves {
            let Hook::Interface { slot, ifindex } = hook else { continue };
            if self.roster.get(slot).is_none() {
                self.kernel.links.detach(hook)?;
                continue;
            }
            self.kernel.enforcer.identities.interface(ifindex, Identity::of(slot))?;
            if let Some(interface) = present.get(&ifindex) {
                // Also of an agent that is contained and no longer configured: no later look would complete it.
                self.kernel.links.attach(hook, Target::Interface(interface))?;
                self.attached(slot, Key::Interface(ifindex), Place::Interface(interface.clone()), None);
            }
        }
        for hook in &taken.gone {
            let Hook::Interface { ifindex, .. } = *hook else { continue };
            if self.roster.owner(Key::Interface(ifindex)).is_none() {
                self.kernel.enforcer.identities.interface(ifindex, Identity::NONE)?;
            }
        }
        Ok(())
    }

    /// An interface that nobody has configured, but that leads into the namespace of an agent, is that agent's.
    pub(super) fn attach_seconds(&mut self, links: &[Link]) {
        let attached = self.attached_interfaces();
        for second in namespaces::judge(links, &[], &attached).seconds {
            let Some(id) = self.roster.get(second.slot).map(|member| member.id.clone()) else { continue };
            if self.config.addresses().any(|(_, address)| address.link == second.name) {
                continue;
            }
            let wanted = Wanted { ifindex: second.ifindex, interface: second.name, id };
            if let Err(error) = self.attach(&wanted) {
                self.complain("attachments", &error);
            }
        }
    }

    fn notice_gone(&mut self, present: &Interfaces) {
        for (slot, key) in self.roster.places() {
            let Key::Interface(ifindex) = key else { continue };
            if present.contains_key(&ifindex) {
                continue;
            }
            match self.kernel.links.is_alive(Hook::Interface { slot, ifindex }) {
                // It has moved to another namespace, with our programs on it.
                Ok(true) => {}
                Ok(false) => self.gone(slot, key),
                Err(error) => self.complain("attachments", &error),
            }
        }
    }

    fn notice_renamed(&mut self, present: &Interfaces) {
        for slot in self.roster.slots() {
            let Some(member) = self.roster.get_mut(slot) else { continue };
            for (key, seat) in &mut member.seats {
                let (Key::Interface(ifindex), Place::Interface(name)) = (key, &mut seat.place) else {
                    continue;
                };
                if let Some(now) = present.get(ifindex).filter(|now| *now != name) {
                    name.clone_from(now);
                }
            }
        }
    }

    fn attach_wanted(&mut self, present: &Interfaces) {
        let wanted = self.wanted(present);
        if wanted.len() > EXPEDITED_ATTACHMENTS {
            self.kernel.links.expedite();
        }
        for wanted in wanted {
            if let Err(error) = self.attach(&wanted) {
                self.complain("attachments", &error);
            }
        }
        self.kernel.links.settle();
    }

    fn wanted(&self, present: &Interfaces) -> Vec<Wanted> {
        // Gathered once: asked of each member for each interface, it would be a million questions at a thousand.
        let attached: BTreeSet<Key> = self.roster.attached().collect();
        let want = |(ifindex, interface): (&u32, &String)| {
            let found = self.config.agent_on(interface)?;
            Some(Wanted { ifindex: *ifindex, interface: interface.clone(), id: found.id.to_owned() })
        };
        let is_new = |(ifindex, _): &(&u32, &String)| !attached.contains(&Key::Interface(**ifindex));
        present.iter().filter(is_new).filter_map(want).collect()
    }

    /// Policy first, then identity, then the programs: no packet meets a program that does not know it.
    fn attach(&mut self, wanted: &Wanted) -> Result<()> {
        let slot = self.slot_for(&wanted.id)?;
        let (ifindex, interface) = (wanted.ifindex, &wanted.interface);
        self.kernel.enforcer.identities.interface(ifindex, Identity::of(slot))?;
        let hook = Hook::Interface { slot, ifindex };
        let (key, place) = (Key::Interface(ifindex), Place::Interface(interface.clone()));
        match self.kernel.links.attach(hook, Target::Interface(interface)) {
            Ok(()) => {
                self.attached(slot, key, place, None);
                Ok(())
            }
            Err(error) => {
                self.kernel.enforcer.identities.interface(ifindex, Identity::NONE)?;
                self.failed(slot, key, place, &error);
                Err(error).with_context(|| format!("agent {}", wanted.id))
            }
        }
    }
}
