//! Agents known by their cgroup: one pair of programs at the root of the tree sees every socket.

use std::collections::{BTreeMap, BTreeSet};

use agentsec_common::agent::Slot;
use anyhow::{Context, Result, anyhow, bail};

use crate::core::Place;
use crate::kernel::cgroups::{Cgroup, Tree};
use crate::kernel::hook::Hook;
use crate::kernel::identities::CgroupId;
use crate::kernel::links::Target;

use super::{Daemon, Key};

const COUNTS_TWICE: &str = "this kernel (before 6.15) does not tell a packet's network namespace: what the cgroup's \
                            processes send from behind an agent's interface counts here as well";

/// What the daemon knows of the tree of cgroups.
#[derive(Default)]
pub(in crate::daemon) struct Cgroups {
    /// Cgroups that were looked at and are nobody's.
    strangers: BTreeSet<u64>,
    /// Why packet sockets are not denied to agents, if they are not; nothing before the first agent.
    pub(in crate::daemon) packet_sockets: Option<Result<(), String>>,
}

impl Cgroups {
    /// Strangers may be somebody's by now.
    pub(in crate::daemon) fn look_again(&mut self) {
        self.strangers.clear();
    }
}

impl Daemon {
    pub(in crate::daemon) fn reconcile_cgroups(&mut self) {
        let is_seated = self.roster.places().iter().any(|(_, key)| matches!(key, Key::Cgroup(_)));
        if !self.config.has_cgroups() && !is_seated {
            return self.leave_cgroups(None);
        }
        if let Err(error) = self.try_reconcile_cgroups() {
            self.complain("cgroups", &error);
        }
    }

    fn try_reconcile_cgroups(&mut self) -> Result<()> {
        let tree = Tree::find()?;
        let present = self.cgroups_at(&tree)?;
        let ids: BTreeSet<u64> = present.iter().map(|cgroup| cgroup.id).collect();
        for (slot, key) in self.roster.places() {
            if let Key::Cgroup(id) = key
                && !ids.contains(&id)
            {
                self.gone(slot, key);
            }
        }
        self.cgroups.strangers.retain(|id| ids.contains(id));
        let hooked = self.hook_cgroups(&tree).map_err(|error| format!("{error:#}"));
        let attached: BTreeSet<Key> = self.roster.attached().collect();
        for cgroup in present {
            if !attached.contains(&Key::Cgroup(cgroup.id)) && !self.cgroups.strangers.contains(&cgroup.id) {
                self.attach_cgroup(&cgroup, hooked.as_ref().err());
            }
        }
        Ok(())
    }

    /// Knows the cgroups again that an earlier daemon has known, and forgets those that are no agent's any more.
    pub(in crate::daemon) fn adopt_cgroups(&mut self) -> Result<()> {
        let known = self.kernel.enforcer.identities.cgroups()?;
        if known.is_empty() {
            return Ok(());
        }
        let tree = Tree::find()?;
        let paths: BTreeMap<u64, String> =
            self.cgroups_at(&tree)?.into_iter().map(|cgroup| (cgroup.id, cgroup.path)).collect();
        for (id, slot) in known {
            let kept = paths.get(&id).filter(|path| self.is_still(slot, path));
            match kept {
                Some(path) => self.attached(slot, Key::Cgroup(id), Place::Cgroup(path.clone()), None),
                None => self.kernel.enforcer.identities.remove_cgroup(id)?,
            }
        }
        Ok(())
    }

    /// Whether the cgroup is the agent's still: a contained one keeps its cgroups although nobody configures it.
    fn is_still(&self, slot: Slot, path: &str) -> bool {
        self.roster.get(slot).is_some_and(|member| {
            !member.is_configured || self.config.agent_in(path).is_some_and(|found| found.id == member.id)
        })
    }

    /// The cgroups in which agents can be, parents first.
    fn cgroups_at(&self, tree: &Tree) -> Result<Vec<Cgroup>> {
        let below = self.config.daemon.cgroup_root.as_deref().unwrap_or_default();
        let mut listing = tree.list(below)?;
        if !below.is_empty()
            && let Some(root) = tree.get(below)?
        {
            listing.cgroups.insert(0, root);
        }
        Ok(listing.cgroups)
    }

    /// Puts the programs on the cgroup under which agents are.
    fn hook_cgroups(&mut self, tree: &Tree) -> Result<()> {
        let root = self.config.daemon.cgroup_root.as_deref().unwrap_or_default();
        let id = match root {
            "" => tree.root_id(),
            path => match tree.get(path)? {
                Some(cgroup) => cgroup.id,
                // Nobody can be in it, and so nobody is missed.
                None => return Ok(()),
            },
        };
        if !tree.is_whole() {
            bail!("only a part of the cgroup tree is mounted here, whose levels are not the kernel's");
        }
        let hook = Hook::Cgroup { id };
        let directory = tree.directory(root)?;
        self.kernel.links.attach(hook, Target::Cgroup(&directory))?;
        self.leave_cgroups(Some(hook));
        self.deny_packet_sockets();
        Ok(())
    }

    /// Takes our programs off every cgroup but one.
    fn leave_cgroups(&mut self, except: Option<Hook>) {
        for hook in self.kernel.links.attached() {
            let is_left = match hook {
                Hook::Cgroup { .. } => Some(hook) != except,
                Hook::Sockets => except.is_none(),
                Hook::Interface { .. } | Hook::Link { .. } => false,
            };
            if is_left && let Err(error) = self.kernel.links.detach(hook) {
                self.complain("cgroups", &error);
            }
        }
    }

    /// A cgroup's programs never see a packet socket's frames, so agents get none, where the kernel lets us say so.
    fn deny_packet_sockets(&mut self) {
        if self.cgroups.packet_sockets.is_none() {
            let denied = self.kernel.links.attach(Hook::Sockets, Target::Everything);
            self.cgroups.packet_sockets = Some(denied.map_err(|error| format!("{error:#}")));
        }
    }

    fn attach_cgroup(&mut self, cgroup: &Cgroup, unhooked: Option<&String>) {
        let Some(id) = self.config.agent_in(&cgroup.path).map(|found| found.id.to_owned()) else {
            if let Some(why) = self.config.unnameable(&cgroup.path) {
                self.complain("cgroups", &anyhow!("{}: {why}", cgroup.path));
            }
            self.cgroups.strangers.insert(cgroup.id);
            return;
        };
        if let Err(error) = self.try_attach_cgroup(cgroup, &id, unhooked) {
            self.complain("cgroups", &error.context(format!("agent {id}")));
        }
    }

    /// Policy first, then identity.
    fn try_attach_cgroup(&mut self, cgroup: &Cgroup, id: &str, unhooked: Option<&String>) -> Result<()> {
        let slot = self.slot_for(id)?;
        let (key, place) = (Key::Cgroup(cgroup.id), Place::Cgroup(cgroup.path.clone()));
        let identified = match (unhooked, self.agent_around(&cgroup.path)) {
            (Some(error), _) => Err(anyhow!("{error}")),
            (None, Some(outer)) => {
                Err(anyhow!("{} lies in a cgroup of agent {outer}, which it belongs to", cgroup.path))
            }
            (None, None) => self
                .kernel
                .enforcer
                .identities
                .add_cgroup(CgroupId { id: cgroup.id, level: cgroup.level }, slot),
        };
        match identified {
            Ok(()) => {
                let remark = self.counts_twice().then(|| COUNTS_TWICE.to_owned());
                self.attached(slot, key, place, remark);
            }
            Err(error) => {
                self.failed(slot, key, place, &error);
                return Err(error).with_context(|| cgroup.path.clone());
            }
        }
        Ok(())
    }

    /// Whether what a cgroup sends from behind an agent's interface is counted at both.
    fn counts_twice(&self) -> bool {
        !self.kernel.links.tells_namespace()
            && self.config.agents.values().any(|agent| agent.interface.is_some())
    }

    /// The agent in one of whose cgroups the one at `path` lies. The kernel takes the outermost, and so do we.
    fn agent_around(&self, path: &str) -> Option<String> {
        let is_around = |place: &Place| match place {
            Place::Cgroup(outer) => {
                path.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            _ => false,
        };
        let around =
            |seat: &super::Seat| is_around(&seat.place) && seat.progress == super::Progress::Attached;
        let (_, member) = self.roster.iter().find(|(_, member)| member.seats.values().any(around))?;
        Some(member.id.clone())
    }
}
