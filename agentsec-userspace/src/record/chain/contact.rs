//! Interactions with both sides known.

use super::cast::{Belief, Cast};
use super::story::{AgentNumber, Story};

/// One agent opened to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who opened.
    pub from: AgentNumber,
    /// Who accepted.
    pub to: AgentNumber,
    /// First and last moment, milliseconds since 1970.
    pub span: (u64, u64),
    /// The sighting that it is of.
    pub(super) sighting: u32,
    /// Why these are the two.
    pub(super) belief: Belief,
}

/// All contacts between agents, and the numbers of sightings of what an agent opened to somebody who is no agent.
pub(super) fn contacts(story: &Story) -> (Vec<Contact>, Vec<u32>) {
    let cast = Cast::of(story);
    let (mut contacts, mut outside) = (Vec::with_capacity(story.sightings.len()), Vec::new());
    for (number, sighting) in story.sightings.iter().enumerate() {
        let number = number as u32;
        let Some((peer, belief)) = cast.other_side(number, sighting) else {
            outside.push(number);
            continue;
        };
        let (from, to) = if sighting.opened { (sighting.agent, peer) } else { (peer, sighting.agent) };
        contacts.push(Contact { from, to, span: sighting.span, sighting: number, belief });
    }
    (contacts, outside)
}

#[cfg(test)]
impl Contact {
    pub(super) fn for_test(from: AgentNumber, to: AgentNumber, span: (u64, u64)) -> Self {
        Self { from, to, span, sighting: 0, belief: Belief::Named }
    }
}
