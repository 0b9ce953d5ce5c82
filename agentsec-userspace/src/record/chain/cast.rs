//! Which agent is at an address, by what the log itself says.

use super::story::{AgentNumber, NOBODY, Sighting, Story};
use std::collections::HashMap;

/// Two agents are at it: it names nobody.
const SHARED: AgentNumber = u32::MAX - 1;
/// How far apart two sides' times of one flow may lie, milliseconds: clocks differ, and flows are told in pieces.
const SLACK_MS: u64 = 60_000;

/// Why somebody is taken for the other side of an interaction. The first is the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Belief {
    /// Both sides tell of the same flow.
    BothSides,
    /// The event names the other side.
    Named,
    /// Of all agents only this one accepts at that address and port.
    Listener,
    /// Of all agents only this one is at that address.
    Address,
}

/// Agents at addresses.
pub(super) struct Cast {
    at_address: Vec<AgentNumber>,
    listening: HashMap<(u32, u16), AgentNumber>,
    /// For each sighting the agent that tells of the same flow from the other side, or [`NOBODY`].
    opposite: Vec<AgentNumber>,
}

/// What both sides of a flow agree on: what its Community ID is made of.
type FlowKey = (u8, (u32, u16), (u32, u16));

fn flow_key(sighting: &Sighting) -> FlowKey {
    let (one, other) = (sighting.local, sighting.remote);
    (sighting.protocol, one.min(other), one.max(other))
}

fn agree(known: &mut AgentNumber, agent: AgentNumber) {
    *known = if *known == NOBODY || *known == agent { agent } else { SHARED };
}

impl Cast {
    pub fn of(story: &Story) -> Self {
        let mut at_address = vec![NOBODY; story.addresses()];
        let mut listening = HashMap::new();
        for &(address, agent) in &story.attached {
            agree(&mut at_address[address as usize], agent);
        }
        for sighting in &story.sightings {
            agree(&mut at_address[sighting.local.0 as usize], sighting.agent);
            if !sighting.opened {
                agree(listening.entry(sighting.local).or_insert(NOBODY), sighting.agent);
            }
        }
        Self { at_address, listening, opposite: opposite(&story.sightings) }
    }

    /// Who is on the other side of a sighting, and why; nobody if it is no agent.
    pub fn other_side(&self, number: u32, sighting: &Sighting) -> Option<(AgentNumber, Belief)> {
        let opposite = self.opposite[number as usize];
        if opposite != NOBODY {
            return Some((opposite, Belief::BothSides));
        }
        if sighting.peer != NOBODY && sighting.peer != sighting.agent {
            return Some((sighting.peer, Belief::Named));
        }
        let known = |agent: &AgentNumber| ![NOBODY, SHARED, sighting.agent].contains(agent);
        let listener = self.listening.get(&sighting.remote).copied().filter(|_| sighting.opened);
        let owner = self.at_address[sighting.remote.0 as usize];
        let by_listener = listener.filter(known).map(|agent| (agent, Belief::Listener));
        by_listener.or_else(|| Some((owner, Belief::Address)).filter(|(agent, _)| known(agent)))
    }
}

/// Who tells of the same flow from the other side, for each sighting.
fn opposite(sightings: &[Sighting]) -> Vec<AgentNumber> {
    let numbered = sightings.iter().enumerate();
    let mut by_flow: Vec<(FlowKey, u32)> =
        numbered.map(|(number, one)| (flow_key(one), number as u32)).collect();
    by_flow.sort_unstable();
    let mut opposite = vec![NOBODY; sightings.len()];
    for flow in by_flow.chunk_by(|(one, _), (other, _)| one == other) {
        let teller = |at: usize| sightings[flow[at].1 as usize].agent;
        if (1..flow.len()).all(|at| teller(at) == teller(0)) {
            continue;
        }
        for (_, number) in flow {
            let one = &sightings[*number as usize];
            let mut others = flow.iter().map(|(_, number)| &sightings[*number as usize]);
            if let Some(other) = others.find(|other| are_two_sides(one, other)) {
                opposite[*number as usize] = other.agent;
            }
        }
    }
    opposite
}

fn are_two_sides(one: &Sighting, other: &Sighting) -> bool {
    let overlaps = other.span.0 <= one.span.1.saturating_add(SLACK_MS)
        && one.span.0 <= other.span.1.saturating_add(SLACK_MS);
    other.agent != one.agent && other.opened != one.opened && other.local == one.remote && overlaps
}
