//! Who is on the other side of a flow, if that is an agent too.
//!
//! Best known is a peer that saw the very same flow from its side. Else an address tells, if it is one agent's alone: one
//! that is configured, or one that an agent was seen to send from *and to be reached at*, since what a packet says of its
//! sender anybody can write. Agents in cgroups share the host's addresses and own none.

use agentsec_common::agent::Slot;
use agentsec_common::endpoint::Address;
use agentsec_common::flow::FlowKey;
use std::collections::HashMap;

/// How long a flow that was seen on one side is remembered for the other, nanoseconds.
const FLOW_NS: u64 = 5_000_000_000;
/// How long an address is somebody's without being used, nanoseconds.
const ADDRESS_NS: u64 = 600_000_000_000;
/// Between two looks for what is too old, nanoseconds.
const CLEAN_NS: u64 = 1_000_000_000;
/// Addresses of all agents; those beyond are not learned.
const ADDRESSES: usize = 65_536;

/// How a peer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// It saw the flow itself.
    Flow,
    /// The address is its own alone.
    Address,
}

impl KnownBy {
    /// As in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Address => "address",
        }
    }
}

/// An agent on the other side of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub agent: String,
    /// Why it is believed to be.
    pub by: KnownBy,
}

/// Protocol and both ends of a flow, as one side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tuple {
    local: Address,
    remote: Address,
    ports: (u16, u16),
    protocol: u8,
}

impl Tuple {
    fn of(key: &FlowKey, local: Address) -> Self {
        let ports = (key.local_port, key.remote_port);
        Self { local, remote: key.remote, ports, protocol: key.protocol() }
    }

    const fn reversed(self) -> Self {
        let (local, remote) = self.ports;
        Self { local: self.remote, remote: self.local, ports: (remote, local), protocol: self.protocol }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sight {
    /// `None` when several agents have seen it so: their networks overlap.
    slot: Option<Slot>,
    at_ns: u64,
}

/// Flows and addresses that were seen lately.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    flows: HashMap<Tuple, Sight>,
    addresses: HashMap<Address, Vec<(Slot, u64)>>,
    next_clean_ns: u64,
}

impl Peers {
    /// An agent saw a flow; with `owns` its address there is its own.
    pub fn saw(&mut self, now_ns: u64, key: &FlowKey, local: Address, owns: bool) {
        let slot = key.slot();
        let sight = Sight { slot: Some(slot), at_ns: now_ns };
        let seen = self.flows.entry(Tuple::of(key, local)).or_insert(sight);
        let is_old = now_ns.saturating_sub(seen.at_ns) > FLOW_NS;
        seen.slot = if is_old { Some(slot) } else { seen.slot.filter(|other| *other == slot) };
        seen.at_ns = now_ns;
        if owns {
            self.has_address(now_ns, slot, local);
        }
    }

    /// An address is an agent's.
    pub fn has_address(&mut self, now_ns: u64, slot: Slot, address: Address) {
        let has_room = self.addresses.len() < ADDRESSES;
        let owners = match self.addresses.get_mut(&address) {
            Some(owners) => owners,
            None if has_room => self.addresses.entry(address).or_default(),
            None => return,
        };
        match owners.iter_mut().find(|(owner, _)| *owner == slot) {
            Some((_, at_ns)) => *at_ns = now_ns,
            None => owners.push((slot, now_ns)),
        }
    }

    /// Who is on the other side of an agent's flow.
    #[must_use]
    pub fn of(&self, key: &FlowKey, local: Address) -> Option<(Slot, KnownBy)> {
        let is_other = |slot: &Slot| *slot != key.slot();
        let seen = self.flows.get(&Tuple::of(key, local).reversed()).and_then(|sight| sight.slot);
        if let Some(slot) = seen.filter(is_other) {
            return Some((slot, KnownBy::Flow));
        }
        match self.addresses.get(&key.remote).map(Vec::as_slice) {
            Some([(slot, _)]) if is_other(slot) => Some((*slot, KnownBy::Address)),
            _ => None,
        }
    }

    /// Forgets what is too old.
    pub fn clean(&mut self, now_ns: u64) {
        if now_ns < self.next_clean_ns {
            return;
        }
        self.next_clean_ns = now_ns.saturating_add(CLEAN_NS);
        self.flows.retain(|_, sight| now_ns.saturating_sub(sight.at_ns) <= FLOW_NS);
        self.addresses.retain(|_, owners| {
            owners.retain(|(_, at_ns)| now_ns.saturating_sub(*at_ns) <= ADDRESS_NS);
            !owners.is_empty()
        });
    }

    /// Forgets an agent.
    pub fn forget(&mut self, slot: Slot) {
        self.flows.retain(|_, sight| sight.slot != Some(slot));
        self.addresses.retain(|_, owners| {
            owners.retain(|(owner, _)| *owner != slot);
            !owners.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Address = [0, 0, 0, 1];
    const B: Address = [0, 0, 0, 2];

    fn key(slot: Slot, local: Address, ports: (u16, u16), remote: Address) -> FlowKey {
        FlowKey::new(slot, 6, &local, ports, remote)
    }

    #[test]
    fn who_saw_the_flow_from_its_side_is_the_peer_even_where_addresses_are_shared() {
        let mut peers = Peers::default();
        let (a, b) = (key(1, A, (40_000, 80), A), key(2, A, (80, 40_000), A));
        peers.saw(1, &a, A, true);
        peers.saw(1, &b, A, true);
        assert_eq!(peers.of(&a, A), Some((2, KnownBy::Flow)));
        assert_eq!(peers.of(&b, A), Some((1, KnownBy::Flow)));
        let other = key(1, A, (40_001, 81), A);
        assert_eq!(peers.of(&other, A), None, "an address of two agents tells nothing");
    }

    #[test]
    fn an_address_is_believed_only_where_its_owner_was_reached_and_is_alone() {
        let mut peers = Peers::default();
        peers.saw(1, &key(2, B, (5000, 53), A), B, false);
        let to_b = key(1, A, (40_000, 80), B);
        assert_eq!(peers.of(&to_b, A), None, "anybody can write a source address");
        peers.saw(1, &key(2, B, (5000, 53), A), B, true);
        assert_eq!(peers.of(&to_b, A), Some((2, KnownBy::Address)));
        peers.has_address(1, 3, B);
        assert_eq!(peers.of(&to_b, A), None, "two networks with the same address");
        peers.forget(3);
        assert_eq!(peers.of(&to_b, A), Some((2, KnownBy::Address)));
    }

    #[test]
    fn the_same_flow_seen_by_two_agents_from_one_side_is_nobodys() {
        let mut peers = Peers::default();
        for slot in [2, 3] {
            peers.saw(1, &key(slot, B, (80, 40_000), A), B, false);
        }
        assert_eq!(peers.of(&key(1, A, (40_000, 80), B), A), None);
    }

    #[test]
    fn what_is_old_is_forgotten_and_nobody_is_its_own_peer() {
        let mut peers = Peers::default();
        peers.saw(1, &key(2, B, (80, 40_000), A), B, true);
        peers.clean(FLOW_NS + 2);
        assert_eq!(peers.of(&key(1, A, (40_000, 80), B), A), Some((2, KnownBy::Address)));
        peers.clean(ADDRESS_NS + FLOW_NS + 2);
        assert_eq!(peers.of(&key(1, A, (40_000, 80), B), A), None);
        peers.saw(1, &key(1, A, (1, 2), A), A, true);
        assert_eq!(peers.of(&key(1, A, (2, 1), A), A), None);
    }
}
