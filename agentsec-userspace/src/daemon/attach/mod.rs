//! Places come and go: whatever has changed, all that is there is compared with what is attached.

mod addresses;
pub(super) mod cgroups;
mod interfaces;

use std::collections::BTreeMap;

use agentsec_common::agent::{Identity, Slot};
use agentsec_common::policy::State;
use anyhow::Result;
use serde_json::json;

use crate::clock;
use crate::core::{AttachmentChange, Draft, EventKind, Input, Place};
use crate::kernel;
use crate::kernel::hook::Hook;
use crate::kernel::interfaces::Link;
use crate::kernel::links::TakenOver;

use super::Daemon;
use super::roster::{Key, Progress, Seat};

/// Interfaces by index, with their names.
type Interfaces = BTreeMap<u32, String>;

impl Daemon {
    /// Attaches what has appeared, and notices what has gone.
    pub(super) fn reconcile(&mut self) {
        match kernel::interfaces::links() {
            Ok(links) => {
                let present = named(&links);
                self.reconcile_interfaces(&present);
                self.attach_seconds(&links);
                self.reconcile_addresses(&present);
                self.repair_filters();
            }
            Err(error) => self.complain("interfaces", &error),
        }
        self.reconcile_cgroups();
        self.notice_missing();
    }

    /// Takes over the attachments of an earlier daemon.
    pub(super) fn adopt_links(&mut self, taken: &TakenOver) -> Result<()> {
        let present = named(&kernel::interfaces::links()?);
        self.adopt_interfaces(taken, &present)?;
        self.adopt_addresses(taken, &present)?;
        for &hook in &taken.repaired {
            self.say_repaired(hook);
        }
        self.adopt_cgroups()
    }

    /// Attaches again where it has failed.
    pub(super) fn retry_attachments(&mut self) {
        let failed = |seat: &Seat| matches!(seat.progress, Progress::Failed(_));
        if self.roster.iter().any(|(_, member)| member.seats.values().any(failed)) {
            self.reconcile();
        }
    }

    /// Puts filters back that somebody has taken off, and says so. Links cannot be taken off.
    pub(super) fn repair_filters(&mut self) {
        for (hook, result) in self.kernel.links.repair() {
            match result {
                Ok(()) => self.say_repaired(hook),
                Err(error) => self.complain("a filter that was taken off", &error),
            }
        }
    }

    /// Until this moment the packets of the hook's agents passed unseen.
    pub(super) fn say_repaired(&mut self, hook: Hook) {
        let (ifindex, agent_id) = match hook {
            Hook::Interface { slot, ifindex } => {
                (ifindex, self.roster.get(slot).map(|member| member.id.clone()))
            }
            Hook::Link { ifindex } => (ifindex, None),
            Hook::Cgroup { .. } | Hook::Sockets => return,
        };
        let now = clock::now();
        let data =
            json!({ "alert": "filter_removed", "ifindex": ifindex, "hook": "clsact", "repaired": true });
        self.record(now, Draft { agent_id, ..Draft::daemon(now, EventKind::Alert, data) });
        let who = format!("interface #{ifindex}: somebody has taken our clsact filter off; it is back");
        self.complain("attachments", &anyhow::anyhow!(who));
    }

    /// Slot of an agent, which becomes known if it is not yet.
    fn slot_for(&mut self, id: &str) -> Result<Slot> {
        if let Some(slot) = self.roster.slot_of(id) {
            return Ok(slot);
        }
        let slot = self.assign(id)?;
        self.introduce(slot, id, None);
        Ok(slot)
    }

    /// Our programs see the agent at a place.
    fn attached(&mut self, slot: Slot, key: Key, place: Place, remark: Option<String>) {
        let seat = Seat { place: place.clone(), progress: Progress::Attached, remark };
        if let Some(member) = self.roster.get_mut(slot) {
            member.seats.insert(key, seat);
        }
        let number = match key {
            Key::Interface(ifindex) => u64::from(ifindex),
            Key::Cgroup(id) => id,
            Key::Address(prefix) => u64::from(prefix.ifindex),
        };
        let change = AttachmentChange::Attached { number };
        self.handle(clock::now(), Input::Attachment { slot, place, change });
    }

    /// They do not, and should.
    fn failed(&mut self, slot: Slot, key: Key, place: Place, error: &anyhow::Error) {
        let error = format!("{error:#}");
        let progress = Progress::Failed(error.clone());
        if let Some(member) = self.roster.get_mut(slot) {
            member.seats.insert(key, Seat { place: place.clone(), progress, remark: None });
        }
        let change = AttachmentChange::Failed { error };
        self.handle(clock::now(), Input::Attachment { slot, place, change });
    }

    /// A place is there no more.
    fn gone(&mut self, slot: Slot, key: Key) {
        if let Err(error) = self.unidentify(slot, key) {
            self.complain("attachments", &error);
        }
        let Some(member) = self.roster.get_mut(slot) else { return };
        let Some(seat) = member.seats.remove(&key) else { return };
        let homeless = member.is_adopted && member.seats.is_empty();
        let change = AttachmentChange::Missing;
        self.handle(clock::now(), Input::Attachment { slot, place: seat.place, change });
        // An adopted agent is its place; but whoever is contained stays known, should it come back.
        if homeless
            && self
                .engine
                .view(clock::now(), slot)
                .is_some_and(|view| State::from(view.state) == State::Closed)
            && let Err(error) = self.forget(slot, "its interface or cgroup is gone")
        {
            self.complain("agents", &error);
        }
    }

    /// Makes the kernel forget whose place it is.
    pub(super) fn unidentify(&mut self, slot: Slot, key: Key) -> Result<()> {
        let identities = &mut self.kernel.enforcer.identities;
        match key {
            Key::Interface(ifindex) => {
                self.kernel.links.detach(Hook::Interface { slot, ifindex })?;
                identities.interface(ifindex, Identity::NONE)
            }
            Key::Cgroup(id) => identities.remove_cgroup(id),
            Key::Address(prefix) => identities.remove_address(prefix),
        }
    }

    /// Says of configured places that are not there that they are awaited.
    fn notice_missing(&mut self) {
        let missing: Vec<(Slot, Place)> = self
            .roster
            .iter()
            .flat_map(|(slot, member)| member.missing().map(move |place| (slot, place.clone())))
            .collect();
        for (slot, place) in missing {
            let change = AttachmentChange::Missing;
            self.handle(clock::now(), Input::Attachment { slot, place, change });
        }
    }
}

fn named(links: &[Link]) -> Interfaces {
    links.iter().map(|link| (link.ifindex, link.name.clone())).collect()
}
