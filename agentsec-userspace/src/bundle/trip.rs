//! What the loop hands over: which trip it is, where the agent is, and what only the loop and its maps know.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::BundlesConfig;
use crate::core::Time;

use super::gate::Closed;
use super::part::Paper;

/// Which trip a bundle is about. It is in the manifest and, in clear, in the log's event and beside the bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// The agent.
    pub agent: String,
    /// The incident: correlation id of its events.
    pub incident: Option<String>,
    /// When the circuit opened, RFC 3339. With agent and incident it names the trip.
    pub tripped_at: String,
    /// Who opened it: `kernel`, `daemon`, or an operator.
    pub by: String,
    /// Why, in words.
    pub reason: String,
    /// Why the bundle could not be begun at once, if it could not.
    pub late: Option<String>,
}

impl Trip {
    /// Whether it is the same trip.
    #[must_use]
    pub fn is(&self, agent: &str, incident: Option<&str>, tripped_at: &str) -> bool {
        self.agent == agent && self.incident.as_deref() == incident && self.tripped_at == tripped_at
    }
}

/// Where an agent meets the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Interfaces of the daemon's namespace, by number and name.
    pub interfaces: Vec<(u32, String)>,
    /// Cgroups, by path in the v2 tree.
    pub cgroups: Vec<String>,
    /// Addresses or prefixes behind shared links.
    pub addresses: Vec<String>,
}

/// One part that the loop knows how to come by. It is done beside the loop.
pub struct Source {
    /// File name in the archive.
    pub name: &'static str,
    /// Writes the part.
    pub write: Write,
}

/// Writes a part; an error is why it could not.
pub type Write = Box<dyn FnOnce(&Paper) -> Result<(), String> + Send>;

impl Source {
    /// A part that is a value.
    #[must_use]
    pub fn value(name: &'static str, value: Value) -> Self {
        let write = move |paper: &Paper| {
            match value {
                Value::Object(fields) => {
                    fields.into_iter().for_each(|(name, value)| paper.fact(&name, value))
                }
                other => paper.fact("value", other),
            }
            Ok(())
        };
        Self { name, write: Box::new(write) }
    }

    /// A part that cannot be known, and why.
    #[must_use]
    pub fn unavailable(name: &'static str, why: impl Into<String>) -> Self {
        let why = why.into();
        let write = move |paper: &Paper| {
            paper.cannot_be_known(why);
            Ok(())
        };
        Self { name, write: Box::new(write) }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A bundle to be made.
#[derive(Debug)]
pub struct Order {
    /// About which trip.
    pub trip: Trip,
    /// When it was ordered.
    pub at: Time,
    /// Where the agent is.
    pub places: Places,
    /// Parts of the loop's.
    pub sources: Vec<Source>,
    /// How it is to be made.
    pub config: BundlesConfig,
    /// Who destroys evidence waits for this.
    pub gate: Closed,
}
