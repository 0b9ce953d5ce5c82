//! Who is where: the agents by slot, the places where they meet the kernel, and what became of those.

use std::collections::{BTreeMap, BTreeSet};

use agentsec_common::agent::Slot;
use agentsec_common::profile::Profile;

use crate::core::{AgentSettings, Place};
use crate::kernel::identities::LinkPrefix;

/// How the kernel knows a place of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// An interface, by index.
    Interface(u32),
    /// A cgroup, by id.
    Cgroup(u64),
    /// An address or prefix behind a link.
    Address(LinkPrefix),
}

/// What became of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Our programs see the agent there.
    Attached,
    /// They do not: why.
    Failed(String),
}

/// One place of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// What it is called.
    pub(super) place: Place,
    /// Whether our programs see the agent there.
    pub(super) progress: Progress,
    /// What an operator should know of it all the same.
    pub(super) remark: Option<String>,
}

/// One agent.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its id.
    pub(super) id: String,
    /// Whether a pattern has adopted it: it goes with its last place.
    pub(super) is_adopted: bool,
    /// Whether the configuration still has it.
    pub(super) is_configured: bool,
    /// Places that the configuration names.
    pub(super) awaited: Vec<Place>,
    /// As configured.
    pub(super) settings: AgentSettings,
    /// Its window, nanoseconds.
    pub(super) window_ns: u64,
    /// Its places.
    pub(super) seats: BTreeMap<Key, Seat>,
    /// Ways out of its namespaces that our programs do not see.
    pub(super) uncovered: BTreeSet<String>,
}

impl Member {
    /// Places that the configuration names and that are not there.
    pub(super) fn missing(&self) -> impl Iterator<Item = &Place> {
        self.awaited.iter().filter(|place| !self.seats.values().any(|seat| seat.place.satisfies(place)))
    }
}

/// The agents by slot.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: BTreeMap<Slot, Member>,
}

impl Roster {
    pub(super) fn insert(&mut self, slot: Slot, member: Member) {
        self.members.insert(slot, member);
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<Member> {
        self.members.remove(&slot)
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Member> {
        self.members.get(&slot)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Member> {
        self.members.get_mut(&slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Member)> {
        self.members.iter().map(|(slot, member)| (*slot, member))
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        self.members.keys().copied().collect()
    }

    pub(super) fn slot_of(&self, id: &str) -> Option<Slot> {
        self.members.iter().find(|(_, member)| member.id == id).map(|(slot, _)| *slot)
    }

    pub(super) fn profile(&self, slot: Slot) -> Option<&Profile> {
        self.get(slot).map(|member| &member.settings.profile)
    }

    pub(super) fn window_ns(&self, slot: Slot) -> Option<u64> {
        self.get(slot).map(|member| member.window_ns)
    }

    /// Every place where our programs see an agent.
    pub(super) fn attached(&self) -> impl Iterator<Item = Key> {
        let seats = self.members.values().flat_map(|member| &member.seats);
        seats.filter(|(_, seat)| seat.progress == Progress::Attached).map(|(key, _)| *key)
    }

    /// Every place of every agent.
    pub(super) fn places(&self) -> Vec<(Slot, Key)> {
        self.iter().flat_map(|(slot, member)| member.seats.keys().map(move |key| (slot, *key))).collect()
    }

    /// Whose place it is.
    pub(super) fn owner(&self, key: Key) -> Option<Slot> {
        self.members.iter().find(|(_, member)| member.seats.contains_key(&key)).map(|(slot, _)| *slot)
    }
}
