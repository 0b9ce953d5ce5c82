//! What is around agents' interfaces: second ways into their namespaces, which are covered as well, and ways out
//! that no program of ours sees, which are told.

use std::collections::{BTreeMap, BTreeSet};

use agentsec_common::agent::Slot;
use anyhow::Result;
use serde_json::json;

use crate::core::{Draft, EventKind, Time};
use crate::kernel::namespaces::{self, Scan, Uncovered, Why};

use super::Daemon;
use super::roster::{Key, Progress};

/// Between two looks when interfaces have changed.
const SHORTEST_NS: u64 = 1_000_000_000;
/// Between two looks when nothing has rung: a process that enters a namespace tells nobody.
const LONGEST_NS: u64 = 30_000_000_000;

/// When to look around, and what was told.
#[derive(Default)]
pub(super) struct Networks {
    rung: bool,
    last_ns: Option<u64>,
}

impl Networks {
    /// Interfaces have changed.
    pub(super) fn ring(&mut self) {
        self.rung = true;
    }

    fn is_due(&self, now_ns: u64) -> bool {
        let Some(last_ns) = self.last_ns else { return true };
        let since = now_ns.saturating_sub(last_ns);
        since >= if self.rung { SHORTEST_NS } else { LONGEST_NS }
    }
}

impl Daemon {
    /// Looks around, when it is time to.
    pub(super) fn look_around(&mut self, now: Time) {
        if !self.networks.is_due(now.mono_ns) {
            return;
        }
        self.networks = Networks { rung: false, last_ns: Some(now.mono_ns) };
        let attached = self.attached_interfaces();
        if attached.is_empty() {
            return self.cover(&[]);
        }
        match namespaces::scan() {
            Ok(scan) => {
                self.cover(&behind(&scan, &attached));
                let findings = namespaces::judge(&scan.host, &scan.namespaces, &attached);
                self.tell_uncovered(now, &findings.uncovered);
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
    fn tell_uncovered(&mut self, now: Time, uncovered: &[Uncovered]) {
        let mut by_slot: BTreeMap<Slot, BTreeSet<String>> = BTreeMap::new();
        for way in uncovered {
            for slot in &way.slots {
                by_slot.entry(*slot).or_default().insert(describe(way));
            }
        }
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
