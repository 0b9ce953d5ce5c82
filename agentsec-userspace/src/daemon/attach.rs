//! Interfaces come and go: whatever has changed, the whole list is compared with what is attached.

use std::collections::{BTreeMap, BTreeSet};

use agentsec_common::agent::{Identity, Slot};
use agentsec_common::policy::State;
use anyhow::{Context, Result};

use crate::clock;
use crate::core::{AttachmentChange, Input};
use crate::kernel::hook::Hook;
use crate::kernel::interfaces;
use crate::kernel::links::{TakenOver, Target};

use super::Daemon;
use super::roster::{Place, Progress};

/// More interfaces than this at once are attached with expedited grace periods.
const EXPEDITED_ATTACHMENTS: usize = 4;

/// An interface that an agent should be attached to.
struct Wanted {
    ifindex: u32,
    interface: String,
    id: String,
}

impl Daemon {
    /// Attaches what has appeared, and notices what has gone.
    pub(super) fn reconcile(&mut self) {
        match interfaces::list() {
            Ok(present) => {
                self.notice_gone(&present);
                self.notice_renamed(&present);
                self.attach_wanted(&present);
                self.notice_missing();
            }
            Err(error) => self.complain("interfaces", &error),
        }
    }

    /// Takes over the attachments of an earlier daemon.
    pub(super) fn adopt_links(&mut self, taken: &TakenOver) -> Result<()> {
        let present = interfaces::list()?;
        for &hook in &taken.attached {
            let Hook::Interface { slot, ifindex } = hook else { continue };
            let interface = present.get(&ifindex).cloned().unwrap_or_else(|| format!("#{ifindex}"));
            if self.roster.get(slot).is_none() {
                // Its agent was let go while this link's pin could not be removed.
                self.kernel.links.detach(Hook::Interface { slot, ifindex })?;
                continue;
            }
            self.kernel.enforcer.identities.interface(ifindex, Identity::of(slot))?;
            self.attached(slot, ifindex, interface);
        }
        for &hook in &taken.halves {
            let Hook::Interface { slot, ifindex } = hook else { continue };
            if self.roster.get(slot).is_none() {
                self.kernel.links.detach(Hook::Interface { slot, ifindex })?;
                continue;
            }
            self.kernel.enforcer.identities.interface(ifindex, Identity::of(slot))?;
            if let Some(interface) = present.get(&ifindex) {
                // Also of an agent that is contained and no longer configured: no later look would complete it.
                self.kernel.links.attach(hook, Target::Interface(interface))?;
                self.attached(slot, ifindex, interface.clone());
            }
        }
        for hook in &taken.gone {
            let Hook::Interface { ifindex, .. } = *hook else { continue };
            if self.roster.owner(ifindex).is_none() {
                self.kernel.enforcer.identities.interface(ifindex, Identity::NONE)?;
            }
        }
        Ok(())
    }

    /// Attaches again where it has failed.
    pub(super) fn retry_attachments(&mut self) {
        let failed = self.roster.iter().any(|(_, member)| {
            member.places.values().any(|place| matches!(place.progress, Progress::Failed(_)))
        });
        if failed {
            self.reconcile();
        }
    }

    fn notice_gone(&mut self, present: &BTreeMap<u32, String>) {
        let gone: Vec<(Slot, u32)> = self
            .roster
            .iter()
            .flat_map(|(slot, member)| member.places.keys().map(move |ifindex| (slot, *ifindex)))
            .filter(|(_, ifindex)| !present.contains_key(ifindex))
            .collect();
        for (slot, ifindex) in gone {
            match self.kernel.links.is_alive(Hook::Interface { slot, ifindex }) {
                // It has moved to another namespace, with our programs on it.
                Ok(true) => {}
                Ok(false) => self.gone(slot, ifindex),
                Err(error) => self.complain("attachments", &error),
            }
        }
    }

    fn gone(&mut self, slot: Slot, ifindex: u32) {
        if let Err(error) = self.remove_attachment(slot, ifindex) {
            self.complain("attachments", &error);
        }
        let Some(member) = self.roster.get_mut(slot) else { return };
        let Some(place) = member.places.remove(&ifindex) else { return };
        let ephemeral = member.configured.is_none() && member.places.is_empty();
        let change = AttachmentChange::Missing;
        self.handle(clock::now(), Input::Attachment { slot, interface: place.interface, change });
        // An adopted agent is its interface; but whoever is contained stays known, should it come back.
        if ephemeral
            && self
                .engine
                .view(clock::now(), slot)
                .is_some_and(|view| State::from(view.state) == State::Closed)
            && let Err(error) = self.forget(slot, "its interface is gone")
        {
            self.complain("agents", &error);
        }
    }

    fn remove_attachment(&mut self, slot: Slot, ifindex: u32) -> Result<()> {
        self.kernel.links.detach(Hook::Interface { slot, ifindex })?;
        self.kernel.enforcer.identities.interface(ifindex, Identity::NONE)
    }

    fn notice_renamed(&mut self, present: &BTreeMap<u32, String>) {
        let slots = self.roster.slots();
        for slot in slots {
            let Some(member) = self.roster.get_mut(slot) else { continue };
            for (ifindex, place) in &mut member.places {
                if let Some(name) = present.get(ifindex).filter(|name| **name != place.interface) {
                    place.interface.clone_from(name);
                }
            }
        }
    }

    fn attach_wanted(&mut self, present: &BTreeMap<u32, String>) {
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

    fn wanted(&self, present: &BTreeMap<u32, String>) -> Vec<Wanted> {
        // Gathered once: asked of each member for each interface, it would be a million questions at a thousand.
        let attached: BTreeSet<u32> = self.roster.attached().collect();
        let want = |(ifindex, interface): (&u32, &String)| {
            let found = self.config.agent_on(interface)?;
            Some(Wanted { ifindex: *ifindex, interface: interface.clone(), id: found.id.to_owned() })
        };
        present.iter().filter(|(ifindex, _)| !attached.contains(ifindex)).filter_map(want).collect()
    }

    /// Policy first, then identity, then the programs: no packet meets a program that does not know it.
    fn attach(&mut self, wanted: &Wanted) -> Result<()> {
        let slot = match self.roster.slot_of(&wanted.id) {
            Some(slot) => slot,
            None => {
                let slot = self.assign(&wanted.id)?;
                self.introduce(slot, &wanted.id, None);
                slot
            }
        };
        self.kernel.enforcer.identities.interface(wanted.ifindex, Identity::of(slot))?;
        let hook = Hook::Interface { slot, ifindex: wanted.ifindex };
        let attached = self.kernel.links.attach(hook, Target::Interface(&wanted.interface));
        match attached {
            Ok(()) => self.attached(slot, wanted.ifindex, wanted.interface.clone()),
            Err(error) => {
                self.kernel.enforcer.identities.interface(wanted.ifindex, Identity::NONE)?;
                self.failed(slot, wanted, &error);
                return Err(error).with_context(|| format!("agent {}", wanted.id));
            }
        }
        Ok(())
    }

    fn attached(&mut self, slot: Slot, ifindex: u32, interface: String) {
        let place = Place { interface: interface.clone(), progress: Progress::Attached };
        if let Some(member) = self.roster.get_mut(slot) {
            member.places.insert(ifindex, place);
        }
        let change = AttachmentChange::Attached { ifindex };
        self.handle(clock::now(), Input::Attachment { slot, interface, change });
    }

    fn failed(&mut self, slot: Slot, wanted: &Wanted, error: &anyhow::Error) {
        let text = format!("{error:#}");
        let place = Place { interface: wanted.interface.clone(), progress: Progress::Failed(text.clone()) };
        if let Some(member) = self.roster.get_mut(slot) {
            member.places.insert(wanted.ifindex, place);
        }
        let change = AttachmentChange::Failed { error: text };
        self.handle(clock::now(), Input::Attachment { slot, interface: wanted.interface.clone(), change });
    }

    /// Says of configured interfaces that are not there that they are awaited.
    fn notice_missing(&mut self) {
        let missing: Vec<(Slot, String)> = self
            .roster
            .iter()
            .filter(|(_, member)| member.places.is_empty())
            .filter_map(|(slot, member)| Some((slot, member.configured.clone()?)))
            .collect();
        for (slot, interface) in missing {
            let change = AttachmentChange::Missing;
            self.handle(clock::now(), Input::Attachment { slot, interface, change });
        }
    }
}
