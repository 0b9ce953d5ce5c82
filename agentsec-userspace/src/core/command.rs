//! What the core wants done, in this order.

use super::draft::Draft;
use agentsec_common::agent::Slot;
use agentsec_common::policy::{Control, SlowSignals};
use std::fmt;

/// One thing for the daemon to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Store the word that the agent's verdicts rest on.
    SetControl {
        /// The agent.
        slot: Slot,
        /// The word.
        control: Control,
    },
    /// Store the agent's slow signals.
    SetSignals {
        /// The agent.
        slot: Slot,
        /// The signals.
        signals: SlowSignals,
        /// Monotonic nanoseconds until which they hold.
        valid_until_ns: u64,
    },
    /// Record an event. When it has a trip, say `Recorded` once it is on the disk.
    Record(Draft),
    /// Answer the operator: one outcome per agent, in the order of ids.
    Reply(Vec<(String, Result<Done, Refusal>)>),
}

/// An operator's request was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Whether anything changed.
    pub changed: bool,
    /// What is now the case, in words.
    pub text: String,
}

/// Why an operator's request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No agent has that id.
    UnknownAgent,
    /// No agent has that tag.
    UnknownTag,
    /// The agent is listed as `never_isolate`.
    NeverIsolated,
    /// The agent is exempt.
    Exempt,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::UnknownAgent => "there is no such agent",
            Self::UnknownTag => "no agent has this tag",
            Self::NeverIsolated => {
                "the agent is listed in breaker.never_isolate: it is judged and never dropped"
            }
            Self::Exempt => "the agent is exempt: end the exemption first",
        })
    }
}
