//! What was found out.

use crate::record::timestamp::Timestamp;
use serde::Serialize;

/// An attack chain.
#[derive(Clone, Debug, Serialize)]
pub struct Chain {
    /// Where it begins.
    pub agent: String,
    /// From when it was followed: as was asked, or before the first sign of the agent's latest compromise.
    pub from: Timestamp,
    /// Signs of the agent's before that, if it was not asked for.
    pub earlier_signs: Option<Earlier>,
    /// Until when.
    pub to: Timestamp,
    /// Signs that the agent is compromised, in the order of time.
    pub initial_compromise: Vec<Moment>,
    /// Movement from agent to agent, in the order of arrival.
    pub lateral_movement: Vec<Hop>,
    /// Where data may have gone, the largest first.
    pub exfiltration: Vec<Outflow>,
    /// What was done about it, in the order of time.
    pub containment: Vec<Moment>,
    /// What was not followed or not listed, because everybody talks to it.
    pub excluded: Vec<Excluded>,
    /// What it rests on.
    pub counts: Counts,
}

/// Signs of compromise before a chain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Earlier {
    /// How many.
    pub count: u64,
    /// When the first was.
    pub since: Timestamp,
}

/// Something noticed about an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// About whom.
    pub agent: String,
    /// Type of the event.
    pub event_type: String,
    /// In words.
    pub what: String,
}

/// A movement from one agent to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// How many hops from the beginning.
    pub hop: u32,
    /// When it can have happened first.
    pub at: Timestamp,
    /// From whom.
    pub from: String,
    /// To whom.
    pub to: String,
    /// The first contact's protocol, and the accepting side's address and port.
    pub protocol: String,
    /// See `protocol`.
    pub endpoint: String,
    /// The first contact's Community ID.
    pub correlation_id: Option<String>,
    /// Interactions of the two from then on.
    pub interactions: u64,
    /// Bytes sent by the opening side in them.
    pub bytes_sent: u64,
    /// Bytes sent back.
    pub bytes_received: u64,
    /// How many agents talk to `to`: the fewer, the more it means.
    pub clients: usize,
    /// Why it is believed.
    pub because: Vec<String>,
    /// Other reached agents that talked to `to` after they were reached.
    pub other_ways: Vec<String>,
}

/// What a reached agent sent to somebody who is no agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outflow {
    /// Who sent.
    pub agent: String,
    /// Where to.
    pub endpoint: String,
    /// By what.
    pub protocol: String,
    /// When first, after the agent was reached.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
    /// How often.
    pub interactions: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Community ID of the first one.
    pub correlation_id: Option<String>,
    /// Why it is suspicious.
    pub because: Vec<String>,
}

/// Something that everybody talks to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excluded {
    /// An agent, or an endpoint that is none.
    pub what: String,
    /// How many agents talk to it.
    pub clients: usize,
    /// Reached agents that did.
    pub talked_to_by: Vec<String>,
    /// Bytes that they sent.
    pub bytes_sent: u64,
}

/// What a chain rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Agents that the log names.
    pub agents: usize,
    /// Interactions that were looked at.
    pub interactions: usize,
    /// Interactions and marks that found no room.
    pub left_out: u64,
    /// Interactions of reached agents that are not in the log, because they were sampled out.
    pub sampled_out: u64,
    /// Endpoints of reached agents without anything suspicious.
    pub other_endpoints: usize,
}
