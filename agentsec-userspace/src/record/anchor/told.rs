//! What anchoring tells the daemon: values that become events. Success is not among them, for an event would make a
//! new checkpoint that would have to be anchored.

use super::consistent::Contradiction;
use crate::core::draft::{Draft, EventKind};
use crate::core::time::Time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::record::evidence::note::Checkpoint;

/// One thing that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// An anchor does not take checkpoints.
    Failing {
        /// Its name.
        anchor: String,
        /// Its kind: `file`, `http` or `witness`.
        kind: &'static str,
        /// Why.
        error: String,
        /// Attempts that failed in a row.
        failures: u32,
        /// Entries that it covers.
        anchored: u64,
    },
    /// It does again.
    Working {
        /// Its name.
        anchor: String,
        /// Entries that it covers now.
        anchored: u64,
    },
    /// The log contradicts what was anchored. Nothing is placed there.
    Contradicted {
        /// The anchor's name.
        anchor: String,
        /// What contradicts what.
        contradiction: Contradiction,
    },
    /// What is anchored from now on is another log: the old one could not be continued, or was replaced.
    OtherLog {
        /// The anchor's name.
        anchor: String,
        /// The log that was anchored there.
        was: Checkpoint,
        /// The log that is now.
        now: Checkpoint,
    },
    /// Anchoring itself does not work.
    Broken {
        /// Why.
        error: String,
    },
}

impl Told {
    /// The event: an alert.
    #[must_use]
    pub fn draft(&self, at: Time) -> Draft {
        Draft::daemon(at, EventKind::Alert, self.data())
    }

    fn data(&self) -> Value {
        match self {
            Self::Failing { anchor, kind, error, failures, anchored } => json!({
                "what": "anchor_failing", "anchor": anchor, "kind": kind, "error": error,
                "failures": failures, "anchored_entries": anchored,
            }),
            Self::Working { anchor, anchored } => {
                json!({ "what": "anchor_working", "anchor": anchor, "anchored_entries": anchored })
            }
            Self::Contradicted { anchor, contradiction } => json!({
                "what": "anchor_contradicted", "anchor": anchor, "how": contradiction.how.name(),
                "why": contradiction.to_string(),
                "anchored": {
                    "entries": contradiction.anchored,
                    "root": contradiction.anchored_root.map(|root| STANDARD.encode(root)),
                },
                "log": head(&contradiction.now),
            }),
            Self::OtherLog { anchor, was, now } => json!({
                "what": "anchored_log_changed", "anchor": anchor, "anchored": head(was), "log": head(now),
            }),
            Self::Broken { error } => json!({ "what": "anchors_broken", "error": error }),
        }
    }
}

fn head(checkpoint: &Checkpoint) -> Value {
    json!({
        "origin": checkpoint.origin, "entries": checkpoint.size, "root": STANDARD.encode(checkpoint.root),
    })
}
