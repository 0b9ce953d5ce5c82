//! What the API asks of the daemon's loop.

use std::fmt;
use std::path::PathBuf;

use agentsec_common::agent::{AgentName, NAME_BYTES};
use agentsec_common::recorder::Orders;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::config::SourceDigest;
use crate::core::interaction::Report;
use crate::recorder::{About, Recording};

use super::views::{EndpointList, Explanation, Mode, State, Status};

/// Where an answer that may be a refusal goes.
pub type Reply<T> = oneshot::Sender<Result<T, RequestError>>;

/// One request. The daemon's loop answers each through its `reply`; dropping that answers "unavailable".
#[derive(Debug)]
pub enum Request {
    /// Everything about everybody.
    Status {
        /// The answer.
        reply: oneshot::Sender<Status>,
    },
    /// Whom an agent talks to.
    Endpoints {
        /// The agent.
        agent: String,
        /// The answer.
        reply: Reply<EndpointList>,
    },
    /// Why an agent is in its state.
    Explain {
        /// The agent.
        agent: String,
        /// The answer.
        reply: Reply<Explanation>,
    },
    /// Wait until every event so far is in the log, or refused.
    Settle {
        /// Whether all of it is on a disk.
        reply: oneshot::Sender<bool>,
    },
    /// What is recorded of an agent's packets.
    Recorder {
        /// The agent.
        agent: String,
        /// The answer.
        reply: Reply<Recorded>,
    },
    /// An operator's wish.
    Operate {
        /// What.
        operation: Operation,
        /// Who, such as `uid 0 (pid 4242)`: for the event.
        by: String,
        /// What became of it.
        reply: Reply<OperationReply>,
    },
    /// An interaction that an application tells of.
    Report {
        /// The agent.
        agent: String,
        /// What is told.
        report: Box<Report>,
        /// Who tells.
        by: String,
        /// What became of it.
        reply: Reply<Reported>,
    },
    /// Read the configuration again and put it into force.
    Reload {
        /// Who.
        by: String,
        /// What became of it.
        reply: Reply<ReloadReply>,
    },
    /// Somebody who may not was refused: to be recorded.
    Refused(Refusal),
}

/// The latest packets of an agent, and what is known about their recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The packets.
    pub recording: Recording,
    /// Who recorded.
    pub about: About,
    /// Where this very recording is kept as a file, since the circuit opened.
    pub kept: Option<PathBuf>,
    /// What the kernel records; `None` when the agent has no recorder.
    pub orders: Option<Orders>,
}

/// An interaction that was recorded as it was reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The agent.
    pub agent: String,
    /// By which id its event is found.
    pub correlation_id: String,
    /// It is on no disk yet, because the log takes no events or does not answer: a daemon that is killed now loses it.
    #[serde(default)]
    pub waits: bool,
}

/// Whom an operator means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// One agent.
    Agent(String),
    /// Every agent that has the tag.
    Tag(String),
    /// Everybody.
    All,
}

/// What an operator can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Open a circuit.
    Quarantine {
        /// Whose.
        whom: Whom,
        /// Why; not empty.
        reason: String,
        /// No automatic probe afterwards.
        hold: bool,
    },
    /// Let somebody who is contained out.
    Release {
        /// Whom.
        whom: Whom,
        /// Straight to CLOSED, without probing, and in spite of a hold.
        force: bool,
    },
    /// Judge without dropping, or end that.
    Shadow {
        /// Whom.
        whom: Whom,
        /// Whether.
        on: bool,
    },
    /// Neither judge nor drop, or end that.
    Exempt {
        /// Whom.
        whom: Whom,
        /// Whether.
        on: bool,
    },
}

/// What became of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationReply {
    /// One entry for every agent concerned.
    pub agents: Vec<OperationOutcome>,
    /// Of several agents, those for whom it was not carried out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<OperationRefusal>,
}

/// Why an operation was not carried out for one agent of several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRefusal {
    /// The agent.
    pub agent: String,
    /// Why, in words.
    pub message: String,
}

/// What became of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationOutcome {
    /// The agent.
    pub agent: String,
    /// Its state now.
    pub state: State,
    /// Its mode now.
    pub mode: Mode,
    /// Its epoch now.
    pub epoch: u32,
    /// Whether the operation changed anything.
    pub changed: bool,
    /// What was done, in words.
    pub message: String,
}

/// What a new configuration has changed. Agents are named by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReply {
    /// The files that are in force now.
    pub sources: Vec<SourceDigest>,
    /// Agents that have become known.
    pub added: Vec<String>,
    /// Agents whose settings or places have changed.
    pub changed: Vec<String>,
    /// Agents that were let go.
    pub removed: Vec<String>,
    /// Agents that are no longer configured, and contained until they are released.
    pub kept: Vec<String>,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestError {
    /// What kind of problem it is.
    pub code: RequestErrorCode,
    /// For people: what is wrong and what to do.
    pub message: String,
}

/// What kind of problem a [`RequestError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestErrorCode {
    /// No such agent, or no such page.
    NotFound,
    /// Possible, but the state or the configuration forbids it.
    Refused,
    /// The caller may not speak to this socket.
    Forbidden,
    /// The request makes no sense.
    Invalid,
    /// The configuration has problems; the message has one a line.
    Config,
    /// The daemon cannot answer now.
    Unavailable,
}

impl RequestError {
    /// No agent with this tag; `known` are the tags that some agent has.
    #[must_use]
    pub fn no_tag<'a>(tag: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<String> = known.into_iter().map(|tag| format!("`{tag}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Self::new(RequestErrorCode::NotFound, format!("no agent has the tag `{tag}`; known tags: {known}"))
    }

    /// No agent of this name.
    #[must_use]
    pub fn no_agent(name: &str) -> Self {
        Self::new(RequestErrorCode::NotFound, format!("there is no agent `{name}`"))
    }

    /// An error of `code`.
    #[must_use]
    pub fn new(code: RequestErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for RequestError {}

/// Connections that were refused. Reported at most once a second, so that knocking cannot flood the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The latest one's process, as the daemon's namespace numbers it; 0 when it has none there.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its cgroup, if known.
    pub cgroup: Option<String>,
    /// Why.
    pub reason: String,
    /// How many refusals this report stands for.
    pub count: u64,
}

/// Longest reason, in bytes.
pub const REASON_BYTES: usize = 1024;

impl Operation {
    /// Refuses names that no agent can have, and a reason that says nothing or too much.
    pub(super) fn check(&self) -> Result<(), RequestError> {
        match self.whom() {
            Whom::Agent(agent) => check_agent(agent)?,
            Whom::Tag(tag) => check_tag(tag)?,
            Whom::All => {}
        }
        match self {
            Self::Quarantine { reason, .. } if reason.trim().is_empty() => {
                Err(RequestError::new(RequestErrorCode::Invalid, "a quarantine needs a reason"))
            }
            Self::Quarantine { reason, .. } if reason.len() > REASON_BYTES => Err(RequestError::new(
                RequestErrorCode::Invalid,
                format!("the reason is longer than {REASON_BYTES} bytes"),
            )),
            _ => Ok(()),
        }
    }

    /// Whom it concerns.
    #[must_use]
    pub fn whom(&self) -> &Whom {
        match self {
            Self::Quarantine { whom, .. }
            | Self::Release { whom, .. }
            | Self::Shadow { whom, .. }
            | Self::Exempt { whom, .. } => whom,
        }
    }
}

/// Refuses a tag that no agent can have.
fn check_tag(tag: &str) -> Result<(), RequestError> {
    if (1..=NAME_BYTES).contains(&tag.len()) {
        return Ok(());
    }
    Err(RequestError::new(RequestErrorCode::Invalid, format!("a tag has 1 to {NAME_BYTES} bytes")))
}

/// Refuses a name that no agent can have.
pub(super) fn check_agent(name: &str) -> Result<(), RequestError> {
    match AgentName::new(name) {
        Some(_) => Ok(()),
        None => Err(RequestError::new(RequestErrorCode::Invalid, "this is not an agent's name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_needs_an_agent_and_a_reason() {
        let quarantine = |agent: &str, reason: &str| {
            let whom = Whom::Agent(agent.into());
            Operation::Quarantine { whom, reason: reason.into(), hold: false }.check()
        };
        assert_eq!(quarantine("crawler", "smells"), Ok(()));
        for (agent, reason) in [("", "smells"), ("crawler", " "), ("crawler", &"x".repeat(REASON_BYTES + 1))]
        {
            assert_eq!(quarantine(agent, reason).unwrap_err().code, RequestErrorCode::Invalid);
        }
        assert_eq!(Operation::Release { whom: Whom::All, force: false }.check(), Ok(()));
        let tag = |tag: String| Operation::Release { whom: Whom::Tag(tag), force: false }.check();
        assert!(tag("batch".into()).is_ok() && tag(String::new()).is_err() && tag("x".repeat(65)).is_err());
    }
}
