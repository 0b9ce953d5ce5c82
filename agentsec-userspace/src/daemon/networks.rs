//! What is around agents' interfaces: second ways into their namespaces, which are covered as well, and ways out
//! that no program of ours sees, which are told.

use std::collections::{BTreeMap, BTreeSet};

use agentsec_common::agent::Slot;
use anyhow::Result;
use futures::FutureExt;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::core::{Draft, EventKind, Time};
use crate::kernel::namespaces::{self, Findings, Scan, Uncovered, Why};

use super::Daemon;
use super::roster::{Key, Progress};

/// Between two looks when interfaces have changed.
const SHORTEST_NS: u64 = 1_000_000_000;
/// Between two looks when nothing has rung: a process that enters a namespace tells nobody.
const LONGEST_NS: u64 = 30_000_000_000;

/// When to look around, and a look that is being taken.
#[derive(Default)]
pub(super) struct Networks {
    rung: bool,
    last_ns: Option<u64>,
    /// Looking takes milliseconds for a thousand processes, in which the daemon has other things to do.
    looking: Option<JoinHandle<Result<Scan>>>,
}

impl Networks {
    /// Interfaces or cgroups have changed.
    pub(super) fn ring(&mut self) {
        self.rung = true;
    }

    fn is_due(&self, now_ns: u64) -> bool {
        let Some(last_ns) = self.last_ns else { return true };
        let since = now_ns.saturating_sub(last_ns);
        self.looking.is_none() && since >= if self.rung { SHORTEST_NS } else { LONGEST_NS }
    }

    /// What a look has found, once it is over.
    fn seen(&mut self) -> Option<Result<Scan>> {
        let looking = self.looking.take_if(|looking| looking.is_finished())?;
        Some(looking.now_or_never()?.unwrap_or_else(|error| Err(error.into())))
    }
}

impl Daemon {
    /// Looks around, when it is time to, and heeds what has been seen. The first look is waited for: what it finds
    /// is in force before the first packet is judged by it.
    pub(super) fn look_around(&mut self, now: Time) {
        if let Some(seen) = self.networks.seen() {
            self.heed(now, seen);
        }
        if !self.networks.is_due(now.mono_ns) {
            return;
        }
        let is_first = self.networks.last_ns.is_none();
        (self.networks.rung, self.networks.last_ns) = (false, Some(now.mono_ns));
        if self.attached_interfaces().is_empty() {
            return self.cover(&[]);
        }
        if is_first {
            self.heed(now, namespaces::scan());
        } else {
            self.networks.looking = Some(tokio::task::spawn_blocking(namespaces::scan));
        }
    }

    fn heed(&mut self, now: Time, seen: Result<Scan>) {
        let attached = self.attached_interfaces();
        match seen {
            Ok(scan) => {
                self.cover(&behind(&scan, &attached));
                let findings = namespaces::judge(&scan.host, &scan.namespaces, &attached);
                self.tell_uncovered(now, &findings);
            }
            Err(error) => self.complain("namespaces", &error),
        }
    }

    /// The interfaces with our programs, with their agents.
    pub(super) fn attached_interfaces(&self) -> BTreeMap<u32, Slot> {
        let seats = self.roster.iter().flat_map(|(slot, member)| {
            member
                .seats
                .iter()
                .filter(|(_, seat)| seat.progress == Progress::Attached)
                .map(move |(key, _)| (slot, key))
        });
        seats
            .filter_map(|(slot, key)| match key {
                Key::Interface(ifindex) => Some((*ifindex, slot)),
                Key::Cgroup(_) | Key::Address(_) => None,
            })
            .collect()
    }

    /// Tells the kernel which namespaces' packets are counted on interfaces, and so not at cgroups.
    fn cover(&mut self, cookies: &[u64]) {
        let told: Result<()> = self.kernel.enforcer.identities.set_covered(cookies);
        if let Err(error) = told {
            self.complain("namespaces", &error);
        }
    }

    /// Says what is new of ways out that nobody sees, and keeps all of them for `status`.
    fn tell_uncovered(&mut self, now: Time, findings: &Findings) {
        let mut by_slot = uncovered(findings);
        let mut news = Vec::new();
        for slot in self.roster.slots() {
            let Some(member) = self.roster.get_mut(slot) else { continue };
            let ways = by_slot.remove(&slot).unwrap_or_default();
            news.extend(ways.difference(&member.uncovered).map(|way| (member.id.clone(), way.clone())));
            member.uncovered = ways;
        }
        for (id, way) in news {
            let data = json!({ "what": "uncovered_interface", "interface": way });
            let draft = Draft { agent_id: Some(id), ..Draft::daemon(now, EventKind::Alert, data) };
            self.record(now, draft);
        }
    }
}

/// Ways out that no program of ours sees, by agent.
fn uncovered(findings: &Findings) -> BTreeMap<Slot, BTreeSet<String>> {
    let mut by_slot: BTreeMap<Slot, BTreeSet<String>> = BTreeMap::new();
    for way in &findings.uncovered {
        for slot in &way.slots {
            by_slot.entry(*slot).or_default().insert(describe(way));
        }
    }
    by_slot
}

/// Cookies of the namespaces that agents' interfaces lead to.
fn behind(scan: &Scan, attached: &BTreeMap<u32, Slot>) -> Vec<u64> {
    let ours = scan.host.iter().filter(|link| attached.contains_key(&link.ifindex));
    let numbers: BTreeSet<i32> = ours.filter_map(|link| link.peer_netns).collect();
    let is_behind = |nsid: Option<i32>| nsid.is_some_and(|nsid| numbers.contains(&nsid));
    scan.namespaces
        .iter()
        .filter(|namespace| is_behind(namespace.nsid))
        .map(|namespace| namespace.cookie)
        .collect()
}

/// A way out, in words.
fn describe(way: &Uncovered) -> String {
    let kind = if way.kind.is_empty() { "an interface" } else { &way.kind };
    let leads = match way.why {
        Why::Physical => "leads to a wire of its own".to_owned(),
        Why::Process => "leads to a process that may send what it reads anywhere".to_owned(),
        Why::HostInterface(ifindex) => {
            format!("leads to the host's interface number {ifindex}, which is no agent's")
        }
        Why::HostRoutes => "is a tunnel whose outer packets are the host's".to_owned(),
        Why::ThirdNamespace => "leads into a third namespace".to_owned(),
        Why::SeveralAgents(ifindex) => {
            format!("leads to the host's interface number {ifindex}, and could be any of several agents'")
        }
        Why::UnknownKind => "leads nobody knows where".to_owned(),
    };
    format!("{} in network namespace {} ({kind}) {leads}", way.name, way.namespace)
}
