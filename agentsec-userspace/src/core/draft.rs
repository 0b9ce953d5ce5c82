//! Events as the core knows them: what happened, without id, host and hash.

use super::time::Time;
use agentsec_common::agent::Slot;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EventKind {
    /// An agent talked to another.
    AgentInteraction,
    /// An agent did what its policy forbids.
    SecurityViolation,
    /// A circuit changed its state or mode.
    ContainmentAction,
    /// The daemon started.
    DaemonStarted,
    /// The daemon stopped; enforcement stays.
    DaemonStopped,
    /// A configuration is in force.
    ConfigLoaded,
    /// An agent became known.
    AgentAdded,
    /// An agent is no longer known.
    AgentRemoved,
    /// The programs are on an agent's interface.
    AgentAttached,
    /// They are not, or not yet.
    AgentDetached,
    /// An operator asked for something.
    OperatorCommand,
    /// An endpoint that is not typical was seen for the first time.
    EndpointNew,
    /// Packets were dropped.
    Drops,
    /// A snapshot was taken, verified or let go.
    Snapshot,
    /// Evidence of a trip was collected, could not be, or was let go.
    Evidence,
    /// Data was lost.
    Loss,
    /// Something that an operator should look at.
    Alert,
}

impl EventKind {
    /// Every kind, in the order of this enum.
    pub const ALL: [Self; 17] = [
        Self::AgentInteraction,
        Self::SecurityViolation,
        Self::ContainmentAction,
        Self::DaemonStarted,
        Self::DaemonStopped,
        Self::ConfigLoaded,
        Self::AgentAdded,
        Self::AgentRemoved,
        Self::AgentAttached,
        Self::AgentDetached,
        Self::OperatorCommand,
        Self::EndpointNew,
        Self::Drops,
        Self::Snapshot,
        Self::Evidence,
        Self::Loss,
        Self::Alert,
    ];

    /// As written in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AgentInteraction => "AGENT_INTERACTION",
            Self::SecurityViolation => "SECURITY_VIOLATION",
            Self::ContainmentAction => "CONTAINMENT_ACTION",
            Self::DaemonStarted => "DAEMON_STARTED",
            Self::DaemonStopped => "DAEMON_STOPPED",
            Self::ConfigLoaded => "CONFIG_LOADED",
            Self::AgentAdded => "AGENT_ADDED",
            Self::AgentRemoved => "AGENT_REMOVED",
            Self::AgentAttached => "AGENT_ATTACHED",
            Self::AgentDetached => "AGENT_DETACHED",
            Self::OperatorCommand => "OPERATOR_COMMAND",
            Self::EndpointNew => "ENDPOINT_NEW",
            Self::Drops => "DROPS",
            Self::Snapshot => "SNAPSHOT",
            Self::Evidence => "EVIDENCE",
            Self::Loss => "LOSS",
            Self::Alert => "ALERT",
        }
    }

    /// From its name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Whether its event must be on the disk before anything rests on it.
    #[must_use]
    pub const fn is_containment(self) -> bool {
        matches!(self, Self::ContainmentAction | Self::OperatorCommand | Self::Evidence)
    }
}

/// A kernel's trip that waits for its event to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TripRef {
    /// The agent.
    pub slot: Slot,
    /// The trip sequence.
    pub trip_seq: u32,
}

/// An event to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// When it happened.
    pub at: Time,
    /// Id of the agent that it is about; `None` for the daemon itself.
    pub agent_id: Option<String>,
    /// Its kind.
    pub kind: EventKind,
    /// Its data: an object.
    pub data: Value,
    /// The incident that it belongs to.
    pub correlation_id: Option<String>,
    /// Whose acknowledgement waits for this event.
    pub trip: Option<TripRef>,
}

impl Draft {
    /// An event about the daemon itself.
    #[must_use]
    pub fn daemon(at: Time, kind: EventKind, data: Value) -> Self {
        Self { at, agent_id: None, kind, data, correlation_id: None, trip: None }
    }
}

/// A number of hundredths: a whole number where it is one, else a decimal one.
#[must_use]
pub fn centi(value: u32) -> Value {
    if value.is_multiple_of(100) { Value::from(value / 100) } else { Value::from(f64::from(value) / 100.0) }
}

/// A number of thousandths as a decimal number.
#[must_use]
pub fn milli(value: u16) -> Value {
    Value::from(f64::from(value) / 1000.0)
}
