//! All facts of a stretch of the log, compact and bounded.

use super::fact::{Fact, Noticed, Seen};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Interactions that are kept, at most (72 bytes each); later ones are counted as left out.
pub const INTERACTIONS_MAX: usize = 4_000_000;
/// Marks that are kept, at most.
pub const MARKS_MAX: usize = 100_000;

/// Endpoints of earlier that are kept, at most.
const EARLIER_MAX: usize = 1_000_000;

/// Number of an agent within a story.
pub type AgentNumber = u32;
/// Number of an address within a story.
pub type AddressNumber = u32;
/// No agent.
pub(super) const NOBODY: AgentNumber = u32::MAX;

/// An interaction as one agent saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub agent: AgentNumber,
    pub opened: bool,
    pub protocol: u8,
    pub local: (AddressNumber, u16),
    pub remote: (AddressNumber, u16),
    pub span: (u64, u64),
    /// Sent and received.
    pub bytes: (u64, u64),
    /// Whom the event names on the other side, or [`NOBODY`].
    pub peer: AgentNumber,
}

/// Something noticed about an agent.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub agent: AgentNumber,
    pub noticed: Noticed,
}

/// Facts, told one after the other.
#[derive(Debug, Default)]
pub struct Story {
    agents: Vec<String>,
    agent_numbers: HashMap<String, AgentNumber>,
    addresses: Vec<IpAddr>,
    address_numbers: HashMap<IpAddr, AddressNumber>,
    pub(super) sightings: Vec<Sighting>,
    pub(super) marks: Vec<Mark>,
    /// Addresses that attachments say.
    pub(super) attached: Vec<(AddressNumber, AgentNumber)>,
    pub(super) sampled: HashMap<AgentNumber, u64>,
    /// Interactions and marks that found no room.
    pub(super) left_out: u64,
    /// Endpoints that agents opened to before the time that is looked at.
    earlier: HashSet<(AgentNumber, u8, AddressNumber, u16)>,
    /// Agents of which there is something in `earlier`.
    has_earlier: HashSet<AgentNumber>,
}

impl Story {
    /// Adds a fact.
    pub fn tell(&mut self, fact: Fact) {
        match fact {
            Fact::Interaction(seen) => self.saw(&seen),
            Fact::Mark(noticed) if self.marks.len() < MARKS_MAX => {
                let agent = self.agent(&noticed.agent);
                self.marks.push(Mark { agent, noticed: *noticed });
            }
            Fact::Mark(_) => self.left_out += 1,
            Fact::Sampled { agent, interactions } => {
                let agent = self.agent(&agent);
                *self.sampled.entry(agent).or_default() += interactions;
            }
            Fact::Earlier { agent, protocol, remote } => {
                let (agent, address) = (self.agent(&agent), self.address(remote.0));
                self.has_earlier.insert(agent);
                if self.earlier.len() < EARLIER_MAX {
                    self.earlier.insert((agent, protocol, address, remote.1));
                }
            }
            Fact::Address { agent, address } => {
                let pair = (self.address(address), self.agent(&agent));
                self.attached.push(pair);
            }
        }
    }

    fn saw(&mut self, seen: &Seen) {
        if self.sightings.len() >= INTERACTIONS_MAX {
            self.left_out += 1;
            return;
        }
        let sighting = Sighting {
            agent: self.agent(&seen.agent),
            opened: seen.opened,
            protocol: seen.protocol,
            local: (self.address(seen.local.0), seen.local.1),
            remote: (self.address(seen.remote.0), seen.remote.1),
            span: seen.span,
            bytes: seen.bytes,
            peer: seen.peer.as_deref().map_or(NOBODY, |peer| self.agent(peer)),
        };
        self.sightings.push(sighting);
    }

    fn agent(&mut self, name: &str) -> AgentNumber {
        if let Some(&number) = self.agent_numbers.get(name) {
            return number;
        }
        let number = self.agents.len() as AgentNumber;
        self.agents.push(name.to_owned());
        self.agent_numbers.insert(name.to_owned(), number);
        number
    }

    fn address(&mut self, address: IpAddr) -> AddressNumber {
        let address = address.to_canonical();
        let next = self.addresses.len() as AddressNumber;
        let number = *self.address_numbers.entry(address).or_insert(next);
        if number == next {
            self.addresses.push(address);
        }
        number
    }

    /// Whether an agent is known to have opened to an endpoint before the time that is looked at; `None` when nothing is known
    /// of what it did then.
    pub(super) fn opened_earlier(
        &self,
        agent: AgentNumber,
        (protocol, address, port): (u8, AddressNumber, u16),
    ) -> Option<bool> {
        let is_whole = self.earlier.len() < EARLIER_MAX;
        let is_known = self.has_earlier.contains(&agent) && is_whole;
        is_known.then(|| self.earlier.contains(&(agent, protocol, address, port)))
    }

    /// How many agents were named.
    #[must_use]
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// How many interactions were kept.
    #[must_use]
    pub fn interactions(&self) -> usize {
        self.sightings.len()
    }

    pub(super) fn number_of(&self, agent: &str) -> Option<AgentNumber> {
        self.agent_numbers.get(agent).copied()
    }

    pub(super) fn name(&self, agent: AgentNumber) -> &str {
        &self.agents[agent as usize]
    }

    pub(super) fn ip(&self, address: AddressNumber) -> IpAddr {
        self.addresses[address as usize]
    }

    pub(super) fn addresses(&self) -> usize {
        self.addresses.len()
    }
}
