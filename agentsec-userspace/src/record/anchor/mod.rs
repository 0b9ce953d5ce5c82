//! Anchors: the log's checkpoints, placed where root on this host cannot take them back.
//!
//! Whoever is root here can rewrite the log and sign it anew. What a checkpoint outside covers cannot be rewritten
//! without being found. An anchor is a file on another mount, a server that takes a POST, or a witness
//! ([C2SP tlog-witness](https://c2sp.org/tlog-witness)) that cosigns only what is consistent with what it has seen.
//!
//! [`service`] places the newest checkpoint at each anchor, on a thread of its own; nothing waits for it. What it has
//! placed is remembered ([`state`]), and a checkpoint that is not consistent with that is never placed
//! ([`consistent`]): that is an alert of its own. [`trusted`] says what the checkpoints in files vouch for.

pub mod consistent;
pub mod cosign;
pub mod file;
pub mod history;
pub mod http;
mod schedule;
pub mod service;
pub mod state;
#[cfg(test)]
mod tests;
mod told;
pub mod trusted;
pub mod witness;

pub use cosign::{Cosignature, WitnessKey};
pub use service::Anchors;
pub use state::{AnchorState, Anchored};
pub use told::Told;
pub use trusted::{Standing, Trusted, newest_trusted};

/// Directory below the daemon's state: what was placed where, and the latest checkpoints as they were placed.
pub const ANCHORS_NAME: &str = "anchors";

use consistent::Contradiction;

/// Why a checkpoint was not placed.
#[derive(Debug)]
pub enum Fault {
    /// It does not fit what was placed before: it must not be.
    Contradicted(Contradiction),
    /// Anything else, which is tried again.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Contradiction> for Fault {
    fn from(contradiction: Contradiction) -> Self {
        Self::Contradicted(contradiction)
    }
}
