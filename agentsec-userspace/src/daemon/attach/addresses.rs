//! Agents behind a shared link, known by their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use agentsec_common::agent::Slot;
use anyhow::{Result, bail};

use crate::config::{Datapath, Prefix};
use crate::core::Place;
use crate::kernel::hook::Hook;
use crate::kernel::identities::LinkPrefix;
use crate::kernel::links::{TakenOver, Target, is_taken};

use super::{Daemon, Interfaces, Key};

/// An address or prefix that should be known as an agent's.
struct Wanted {
    id: String,
    prefix: Prefix,
    link: String,
    key: LinkPrefix,
    datapath: Datapath,
}

impl Wanted {
    /// Whether to drop before the stack: where that is asked for, or worth its while, on a wire. Not on a veth, whose
    /// other side it would deprive of segmentation offload.
    fn is_before_stack(&self) -> bool {
        match self.datapath {
            Datapath::Auto => Path::new("/sys/class/net").join(&self.link).join("device").exists(),
            Datapath::Tc => false,
            Datapath::Xdp => true,
        }
    }
}

impl Daemon {
    pub(super) fn reconcile_addresses(&mut self, present: &Interfaces) {
        for (slot, key) in self.roster.places() {
            if let Key::Address(prefix) = key
                && !present.contains_key(&prefix.ifindex)
            {
                self.gone(slot, key);
            }
        }
        self.leave_links(present);
        let attached: BTreeSet<Key> = self.roster.attached().collect();
        let wanted = self.wanted_addresses(present);
        for wanted in wanted.iter().filter(|wanted| !attached.contains(&Key::Address(wanted.key))) {
            if let Err(error) = self.attach_address(wanted) {
                self.complain("attachments", &error);
            }
        }
    }

    /// Forgets the addresses that an earlier daemon knew and this one does not, and knows the others.
    pub(super) fn adopt_addresses(&mut self, taken: &TakenOver, present: &Interfaces) -> Result<()> {
        let wanted: BTreeMap<LinkPrefix, Wanted> =
            self.wanted_addresses(present).into_iter().map(|wanted| (wanted.key, wanted)).collect();
        let is_linked = |ifindex| {
            let hook = Hook::Link { ifindex };
            taken.attached.contains(&hook) || taken.halves.contains(&hook)
        };
        for (prefix, slot) in self.kernel.enforcer.identities.addresses()? {
            let is_known = self.roster.get(slot).is_some_and(|member| {
                // A contained agent keeps its addresses although nobody configures it any more.
                !member.is_configured || wanted.get(&prefix).is_some_and(|wanted| wanted.id == member.id)
            });
            if !is_known || !present.contains_key(&prefix.ifindex) || !is_linked(prefix.ifindex) {
                self.kernel.enforcer.identities.remove_address(prefix)?;
                continue;
            }
            let link = present[&prefix.ifindex].clone();
            let place = Place::Address { prefix: shown(&prefix), link: link.clone() };
            self.kernel.links.attach(Hook::Link { ifindex: prefix.ifindex }, Target::Interface(&link))?;
            // Again, because the datapath may be configured differently now, or somebody's program be gone.
            let remark = wanted.get(&prefix).and_then(|wanted| self.attach_before_stack(wanted));
            self.attached(slot, Key::Address(prefix), place, remark);
        }
        self.leave_stack_alone(&wanted)
    }

    /// Takes our XDP program off links whose agents are all configured to do without.
    fn leave_stack_alone(&mut self, wanted: &BTreeMap<LinkPrefix, Wanted>) -> Result<()> {
        let mut is_before_stack = BTreeMap::<u32, bool>::new();
        for wanted in wanted.values() {
            *is_before_stack.entry(wanted.key.ifindex).or_default() |= wanted.is_before_stack();
        }
        for (&ifindex, _) in is_before_stack.iter().filter(|(_, is_before)| !**is_before) {
            self.kernel.links.detach_xdp(ifindex)?;
        }
        Ok(())
    }

    /// Takes our programs off links with no agents behind them any more.
    fn leave_links(&mut self, present: &Interfaces) {
        let mut needed: BTreeSet<u32> =
            self.wanted_addresses(present).iter().map(|wanted| wanted.key.ifindex).collect();
        needed.extend(self.roster.places().iter().filter_map(|(_, key)| match key {
            Key::Address(prefix) => Some(prefix.ifindex),
            _ => None,
        }));
        for hook in self.kernel.links.attached() {
            if let Hook::Link { ifindex } = hook
                && !needed.contains(&ifindex)
                && let Err(error) = self.kernel.links.detach(hook)
            {
                self.complain("attachments", &error);
            }
        }
    }

    fn wanted_addresses(&self, present: &Interfaces) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (id, attachment) in self.config.addresses() {
            let Some((&ifindex, link)) = present.iter().find(|(_, name)| **name == attachment.link) else {
                continue;
            };
            for &prefix in &attachment.prefixes {
                let key = LinkPrefix { ifindex, address: prefix.address(), bits: prefix.mapped_length() };
                let (id, link) = (id.to_owned(), link.clone());
                wanted.push(Wanted { id, prefix, link, key, datapath: attachment.datapath });
            }
        }
        wanted
    }

    /// Policy first, then identity, then the programs.
    fn attach_address(&mut self, wanted: &Wanted) -> Result<()> {
        let slot = self.slot_for(&wanted.id)?;
        let place = Place::Address { prefix: wanted.prefix.short(), link: wanted.link.clone() };
        match self.try_attach_address(slot, wanted) {
            Ok(remark) => self.attached(slot, Key::Address(wanted.key), place, remark),
            Err(error) => {
                self.failed(slot, Key::Address(wanted.key), place, &error);
                return Err(error.context(format!("agent {}", wanted.id)));
            }
        }
        Ok(())
    }

    fn try_attach_address(&mut self, slot: Slot, wanted: &Wanted) -> Result<Option<String>> {
        if let Some(own) = wanted.prefix.single().filter(|address| is_local(*address)) {
            bail!("{own} is an address of this host: its processes are known by their cgroup");
        }
        self.kernel.enforcer.identities.add_address(wanted.key, slot)?;
        let hook = Hook::Link { ifindex: wanted.key.ifindex };
        if let Err(error) = self.kernel.links.attach(hook, Target::Interface(&wanted.link)) {
            self.kernel.enforcer.identities.remove_address(wanted.key)?;
            return Err(error);
        }
        Ok(self.attach_before_stack(wanted))
    }

    /// Drops before the stack where that is asked for or worth its while. Says why not, if it should and does not.
    fn attach_before_stack(&mut self, wanted: &Wanted) -> Option<String> {
        if !wanted.is_before_stack() {
            return None;
        }
        let error = self.kernel.links.attach_xdp(wanted.key.ifindex, &wanted.link).err()?;
        Some(if is_taken(&error) {
            format!("another XDP program is on {}: it stays, and ours drops at TC alone", wanted.link)
        } else {
            format!("{} cannot drop before the stack, and drops at TC alone: {error:#}", wanted.link)
        })
    }
}

fn shown(prefix: &LinkPrefix) -> String {
    Prefix::of(prefix.address, prefix.bits).short()
}

/// Whether this host itself has the address.
fn is_local(address: std::net::IpAddr) -> bool {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return false };
    interfaces.filter_map(|interface| interface.address).any(|found| match address {
        std::net::IpAddr::V4(address) => found.as_sockaddr_in().is_some_and(|found| found.ip() == address),
        std::net::IpAddr::V6(address) => found.as_sockaddr_in6().is_some_and(|found| found.ip() == address),
    })
}
