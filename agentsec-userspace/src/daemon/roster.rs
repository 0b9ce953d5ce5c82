//! Who is where: the agents by slot, their interfaces and what became of attaching them.

use std::collections::BTreeMap;

use agentsec_common::agent::Slot;
use agentsec_common::profile::Profile;

use crate::core::AgentSettings;

/// What became of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The programs are on it.
    Attached,
    /// They could not be put on it: why.
    Failed(String),
}

/// One interface of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Name of the interface.
    pub(super) interface: String,
    /// Whether the programs are on it.
    pub(super) progress: Progress,
}

/// One agent.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its id.
    pub(super) id: String,
    /// The interface that the configuration names; `None` for agents adopted by a pattern or not configured.
    pub(super) configured: Option<String>,
    /// Whether the configuration still has it.
    pub(super) is_configured: bool,
    /// As configured.
    pub(super) settings: AgentSettings,
    /// Its window, nanoseconds.
    pub(super) window_ns: u64,
    /// Its interfaces by index.
    pub(super) places: BTreeMap<u32, Place>,
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

    /// Indexes of the interfaces that our programs are on.
    pub(super) fn attached(&self) -> impl Iterator<Item = u32> {
        let places = self.members.values().flat_map(|member| &member.places);
        places.filter(|(_, place)| place.progress == Progress::Attached).map(|(ifindex, _)| *ifindex)
    }

    /// Whose interface it is, by index.
    pub(super) fn owner(&self, ifindex: u32) -> Option<Slot> {
        self.members.iter().find(|(_, member)| member.places.contains_key(&ifindex)).map(|(slot, _)| *slot)
    }
}
