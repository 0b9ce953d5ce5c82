//! What the core is told.

use super::persist::AgentState;
use super::place::Place;
use super::settings::AgentSettings;
use super::totals::{Losses, Totals};
use agentsec_common::agent::Slot;
use agentsec_common::counters::Counters;
use agentsec_common::flow::FlowKey;
use agentsec_common::ledger::TripRecord;
use agentsec_common::notice::Notice;
use agentsec_common::policy::{Control, SlowSignals, State};
use agentsec_common::risk::Signals;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The daemon has read the kernel's words; also the tick on which deadlines are kept.
    Observed(Vec<Observation>),
    /// The kernel reports at once. A trip's notice only says that it is time to observe.
    Notice(Notice),
    /// Slow or reported signals of an agent, to be repeated while they last.
    Signals {
        /// The agent.
        slot: Slot,
        /// All of its slow signals.
        signals: SlowSignals,
    },
    /// A sample told that an authentication has failed.
    Refused {
        /// When the kernel saw it, monotonic nanoseconds.
        at_ns: u64,
        /// On which connection of which agent.
        flow: FlowKey,
        /// The agent's epoch then.
        epoch: u32,
        /// Who said so, in words.
        by: String,
    },
    /// An operator asks for something.
    Operator {
        /// What.
        request: Request,
        /// Who, for the record.
        by: String,
    },
    /// An agent becomes known.
    AgentAdded(Box<AgentAdded>),
    /// An agent's configuration has changed; its new profile is in its row.
    AgentConfigured {
        /// The agent.
        slot: Slot,
        /// As now configured.
        settings: Box<AgentSettings>,
    },
    /// An agent is no longer known.
    AgentRemoved {
        /// Its slot.
        slot: Slot,
        /// Why.
        reason: String,
    },
    /// Something happened to an agent's attachment.
    Attachment {
        /// The agent.
        slot: Slot,
        /// Which.
        place: Place,
        /// What happened.
        change: AttachmentChange,
    },
    /// Notices were lost between the kernel and the daemon.
    RecordLost {
        /// How many.
        count: u64,
    },
    /// The event of a trip is on the disk.
    Recorded {
        /// The agent.
        slot: Slot,
        /// The trip's sequence.
        trip_seq: u32,
    },
    /// The event of a trip was given up and must be emitted again.
    RecordFailed {
        /// The agent.
        slot: Slot,
        /// The trip's sequence.
        trip_seq: u32,
    },
}

/// One agent's words as read now.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The agent.
    pub slot: Slot,
    /// The ledger's trip sequence.
    pub trip_seq: u32,
    /// The trip's record, once it is complete: once its `seq` is `trip_seq`.
    pub trip: Option<TripRecord>,
    /// What the kernel sees by itself, over the window, as of now: without the slow signals.
    pub signals: Signals,
    /// Probe violations in the current epoch.
    pub violations: u32,
    /// What the kernel has counted of requests and answers.
    pub totals: Totals,
    /// What it has lost.
    pub losses: Losses,
    /// Packets and bytes, ever, summed over CPUs.
    pub counters: Counters,
}

/// An agent that becomes known.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentAdded {
    /// Its slot.
    pub slot: Slot,
    /// Its id.
    pub id: String,
    /// Where it is expected.
    pub places: Vec<Place>,
    /// As configured.
    pub settings: AgentSettings,
    /// State in which it starts when nothing is known of it.
    pub newcomer: State,
    /// What was saved of it.
    pub saved: Option<AgentState>,
    /// What the kernel's word says of it; it wins.
    pub pinned: Option<Control>,
    /// The slot's trip sequence in the ledger.
    pub trip_seq: u32,
    /// An epoch that the slot's windows have not seen, for an agent without a pinned word.
    pub fresh_epoch: u32,
    /// Names this boot; monotonic times of another boot mean nothing.
    pub boot_id: String,
}

/// What happened to an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachmentChange {
    /// The programs are there.
    Attached {
        /// Number of the interface, or id of the cgroup.
        number: u64,
    },
    /// They were taken off.
    Detached,
    /// The interface or cgroup does not exist, or not any more.
    Missing,
    /// They could not be attached.
    Failed {
        /// Why.
        error: String,
    },
}

/// Whom an operator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One agent by id.
    Agent(String),
    /// Every agent that has the tag.
    Tag(String),
    /// Every agent.
    All,
}

/// What an operator can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Open the circuit; with `hold` it does not probe by itself.
    Quarantine {
        /// Whom.
        target: Target,
        /// Why, in words.
        reason: String,
        /// Whether only an operator ends it.
        hold: bool,
    },
    /// Probe; with `force` close at once.
    Release {
        /// Whom.
        target: Target,
        /// Whether to close without a probe.
        force: bool,
    },
    /// Judge without dropping, or with `off` drop again.
    Shadow {
        /// Whom.
        target: Target,
        /// Whether to enforce again.
        off: bool,
    },
    /// Neither judge nor drop, or with `off` do both again.
    Exempt {
        /// Whom.
        target: Target,
        /// Whether to enforce again.
        off: bool,
    },
}

impl Request {
    /// Whom it means.
    #[must_use]
    pub fn target(&self) -> &Target {
        match self {
            Self::Quarantine { target, .. }
            | Self::Release { target, .. }
            | Self::Shadow { target, .. }
            | Self::Exempt { target, .. } => target,
        }
    }

    /// Name of the verb, for the record.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Quarantine { .. } => "quarantine",
            Self::Release { .. } => "release",
            Self::Shadow { .. } => "shadow",
            Self::Exempt { .. } => "exempt",
        }
    }
}
