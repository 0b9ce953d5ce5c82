//! What the interfaces of namespaces mean for the agents in them.

use std::collections::{BTreeMap, BTreeSet};

use agentsec_common::agent::Slot;

use super::Namespace;
use crate::kernel::interfaces::Link;

/// What there is around agents' interfaces. Each list is in the order of the interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Host interfaces that are agents' as well, and are not attached yet.
    pub seconds: Vec<Second>,
    /// Ways out of agents' namespaces that pass none of our programs.
    pub uncovered: Vec<Uncovered>,
    /// Interfaces on top of an agent's host side. What they carry counts as the agent's.
    pub children: Vec<Child>,
    /// Agents' interfaces that are ports of a bridge, a bond or the like. The programs sit on the port, so this is
    /// only worth knowing.
    pub bridged: Vec<Bridged>,
    /// Namespaces that agents' interfaces lead to and that have not been looked into.
    pub unseen: Vec<Unseen>,
}

/// A host interface that leads into an agent's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Second {
    /// Its number on the host.
    pub ifindex: u32,
    /// Its name there.
    pub name: String,
    /// Whose it is.
    pub slot: Slot,
}

/// A way out of an agent's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncovered {
    /// The agents that can take it.
    pub slots: BTreeSet<Slot>,
    /// The namespace's inode number.
    pub namespace: u64,
    /// The interface's number in there.
    pub ifindex: u32,
    /// Its name in there.
    pub name: String,
    /// Its kind, as in [`Link::kind`].
    pub kind: String,
    /// Where it leads.
    pub why: Why,
}

/// Where an uncovered interface leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// To a wire of its own.
    Physical,
    /// To a process that reads what is sent and may be anywhere.
    Process,
    /// To this host interface, which is no agent's.
    HostInterface(u32),
    /// Out by way of the host's routes: a tunnel whose outer packets are the host's.
    HostRoutes,
    /// Into a third namespace.
    ThirdNamespace,
    /// Into a namespace of several agents, by a host interface (this one) that could be any of theirs.
    SeveralAgents(u32),
    /// It is of a kind that is not known here.
    UnknownKind,
}

/// An interface on top of an agent's host side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The inode number of the namespace it is in; none for the host's.
    pub namespace: Option<u64>,
    /// Its number in there.
    pub ifindex: u32,
    /// Its name in there.
    pub name: String,
    /// Its kind, as in [`Link::kind`].
    pub kind: String,
    /// The agent's interface, by its number on the host.
    pub on: u32,
    /// The agent.
    pub slot: Slot,
}

/// An agent's interface that is a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridged {
    /// The agent's interface.
    pub ifindex: u32,
    /// What it is a port of.
    pub master: u32,
    /// The agent.
    pub slot: Slot,
}

/// A namespace that was not looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// The agent's interface that leads there, by its number on the host.
    pub ifindex: u32,
    /// The agent.
    pub slot: Slot,
}

/// Judges what [`super::scan`] has found. `attached` are the host interfaces that have our programs, with their
/// agents.
#[must_use]
pub fn judge(host: &[Link], namespaces: &[Namespace], attached: &BTreeMap<u32, Slot>) -> Findings {
    let here = Here { host, attached, agents: agents(host, attached), ends: ends(host) };
    let mut findings = Findings { seconds: here.seconds(), ..Findings::default() };
    let seconds = findings.seconds.iter().map(|second| (second.ifindex, second.slot));
    let covered: BTreeMap<u32, Slot> =
        seconds.chain(attached.iter().map(|(index, slot)| (*index, *slot))).collect();
    findings.children.extend(host.iter().filter_map(|link| child(link, None, None, &covered)));
    for namespace in namespaces {
        let inside = namespace.links.iter();
        findings.children.extend(
            inside
                .filter_map(|link| child(link, Some(namespace.inode), Some(namespace.host_nsid?), &covered)),
        );
        findings.uncovered.extend(here.uncovered(namespace, &covered));
    }
    findings.bridged = here.bridged(&covered);
    findings.unseen = here.unseen(namespaces);
    findings
}

/// Kinds that are two ends, each sending what the other one gets.
fn is_pair(kind: &str) -> bool {
    matches!(kind, "veth" | "netkit" | "vxcan")
}

/// Kinds that sit on another interface and share its wire.
fn is_child(kind: &str) -> bool {
    matches!(kind, "macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "vlan" | "macsec")
}

/// Kinds that lead nowhere but through other interfaces of their namespace, which are judged themselves; tunnels
/// are here as well, as long as their outer packets stay in the namespace.
fn stays_inside(kind: &str) -> bool {
    const BUNDLES: [&str; 9] = ["bridge", "bond", "team", "vrf", "hsr", "dummy", "ifb", "nlmon", "vcan"];
    const TUNNELS: [&str; 21] = [
        "amt",
        "bareudp",
        "batadv",
        "erspan",
        "geneve",
        "gre",
        "gretap",
        "gtp",
        "ip6erspan",
        "ip6gre",
        "ip6gretap",
        "ip6tnl",
        "ipip",
        "ovpn",
        "pfcp",
        "sit",
        "vti",
        "vti6",
        "vxlan",
        "wireguard",
        "xfrm",
    ];
    BUNDLES.contains(&kind) || TUNNELS.contains(&kind)
}

/// The agents behind each number that the host has for a namespace.
fn agents(host: &[Link], attached: &BTreeMap<u32, Slot>) -> BTreeMap<i32, BTreeSet<Slot>> {
    let mut agents: BTreeMap<i32, BTreeSet<Slot>> = BTreeMap::new();
    for link in host.iter().filter(|link| is_pair(&link.kind)) {
        if let (Some(slot), Some(nsid)) = (attached.get(&link.ifindex), link.peer_netns) {
            agents.entry(nsid).or_default().insert(*slot);
        }
    }
    agents
}

/// The host's end of each pair, by the host's number for the other end's namespace and that end's number there.
fn ends(host: &[Link]) -> BTreeMap<(i32, u32), u32> {
    let pairs = host.iter().filter(|link| is_pair(&link.kind));
    pairs.filter_map(|link| Some(((link.peer_netns?, link.lower?), link.ifindex))).collect()
}

/// An interface on top of an agent's. `host_nsid` is the number for the host in the link's namespace, none if
/// that is the host's.
fn child(
    link: &Link,
    namespace: Option<u64>,
    host_nsid: Option<i32>,
    covered: &BTreeMap<u32, Slot>,
) -> Option<Child> {
    let on = link.lower.filter(|_| is_child(&link.kind) && link.peer_netns == host_nsid)?;
    let slot = *covered.get(&on)?;
    let (name, kind) = (link.name.clone(), link.kind.clone());
    Some(Child { namespace, ifindex: link.ifindex, name, kind, on, slot })
}

struct Here<'a> {
    host: &'a [Link],
    attached: &'a BTreeMap<u32, Slot>,
    /// By the host's number for the namespace they are in.
    agents: BTreeMap<i32, BTreeSet<Slot>>,
    ends: BTreeMap<(i32, u32), u32>,
}

impl Here<'_> {
    /// Pairs from the host into the namespace of exactly one agent, without programs yet.
    fn seconds(&self) -> Vec<Second> {
        let new =
            self.host.iter().filter(|link| is_pair(&link.kind) && !self.attached.contains_key(&link.ifindex));
        let whose = |link: &Link| {
            self.agents.get(&link.peer_netns?).filter(|slots| slots.len() == 1)?.first().copied()
        };
        new.filter_map(|link| {
            Some(Second { ifindex: link.ifindex, name: link.name.clone(), slot: whose(link)? })
        })
        .collect()
    }

    fn uncovered(&self, namespace: &Namespace, covered: &BTreeMap<u32, Slot>) -> Vec<Uncovered> {
        let Some((nsid, slots)) = namespace.nsid.and_then(|nsid| self.agents.get_key_value(&nsid)) else {
            return Vec::new();
        };
        let ways = namespace.links.iter().filter_map(|link| {
            let why = self.leads(link, *nsid, namespace.host_nsid, covered)?;
            Some(Uncovered {
                slots: slots.clone(),
                namespace: namespace.inode,
                ifindex: link.ifindex,
                name: link.name.clone(),
                kind: link.kind.clone(),
                why,
            })
        });
        ways.collect()
    }

    /// Where an interface of the namespace `nsid` leads past our programs; none if it does not.
    fn leads(
        &self,
        link: &Link,
        nsid: i32,
        host_nsid: Option<i32>,
        covered: &BTreeMap<u32, Slot>,
    ) -> Option<Why> {
        let Some(peer) = link.peer_netns else {
            return match link.kind.as_str() {
                _ if link.loopback => None,
                "tun" => Some(Why::Process),
                "" => Some(Why::Physical),
                // It leads to the other interface, which is here as well and judged itself.
                _ if link.lower.is_some() => None,
                kind => (!stays_inside(kind)).then_some(Why::UnknownKind),
            };
        };
        if is_pair(&link.kind) {
            // The host's end tells for sure, also where this namespace has no number for the host.
            let end = self.ends.get(&(nsid, link.ifindex));
            return match end {
                Some(end) if covered.contains_key(end) => None,
                Some(end) => Some(Why::SeveralAgents(*end)),
                None => Some(Why::ThirdNamespace),
            };
        }
        if Some(peer) != host_nsid {
            return Some(Why::ThirdNamespace);
        }
        match link.lower {
            // It is told as a child.
            Some(on) if is_child(&link.kind) && covered.contains_key(&on) => None,
            Some(on) => Some(Why::HostInterface(on)),
            None => Some(Why::HostRoutes),
        }
    }

    fn bridged(&self, covered: &BTreeMap<u32, Slot>) -> Vec<Bridged> {
        let ports = self.host.iter().filter_map(|link| {
            Some(Bridged { ifindex: link.ifindex, master: link.master?, slot: *covered.get(&link.ifindex)? })
        });
        ports.collect()
    }

    fn unseen(&self, namespaces: &[Namespace]) -> Vec<Unseen> {
        let seen: BTreeSet<i32> = namespaces.iter().filter_map(|namespace| namespace.nsid).collect();
        let elsewhere = |link: &&Link| link.peer_netns.is_some_and(|nsid| !seen.contains(&nsid));
        let agents = self.host.iter().filter(|link| is_pair(&link.kind)).filter(elsewhere);
        agents
            .filter_map(|link| {
                Some(Unseen { ifindex: link.ifindex, slot: *self.attached.get(&link.ifindex)? })
            })
            .collect()
    }
}
