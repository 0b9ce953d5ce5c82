//! Where an agent meets the kernel, as events tell it.

use std::fmt;

use serde_json::{Value, json};

/// One attachment of an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An interface that is the agent's, by name.
    Interface(String),
    /// A cgroup, by path from the root of the tree.
    Cgroup(String),
    /// An address or prefix behind a shared link.
    Address {
        /// The address or prefix.
        prefix: String,
        /// The link, by name.
        link: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) | Self::Cgroup(name) => out.write_str(name),
            Self::Address { prefix, link } => write!(out, "{prefix} on {link}"),
        }
    }
}

impl Place {
    /// Whether it is what `expected` means: a unit is expected by the last part of its cgroup's path.
    #[must_use]
    pub fn satisfies(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Self::Cgroup(path), Self::Cgroup(unit)) if !unit.contains('/') => {
                path.rsplit('/').next() == Some(unit)
            }
            _ => self == expected,
        }
    }

    /// As in the data of events.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Interface(name) => json!({ "interface": name }),
            Self::Cgroup(path) => json!({ "cgroup": path }),
            Self::Address { prefix, link } => json!({ "address": prefix, "interface": link }),
        }
    }
}
