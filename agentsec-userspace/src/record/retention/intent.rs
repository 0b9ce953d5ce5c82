//! What is about to go: told as an event first, and kept until that event is in the log.

use crate::core::draft::{Draft, EventKind};
use crate::core::time::Time;
use crate::record::entries::EventSource;
use crate::record::evidence::EvidenceSource;
use crate::record::evidence::note::Checkpoint;
use crate::record::head::Head;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;

/// Bundles that will be removed once their event is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// Names it.
    pub id: String,
    /// Names the log.
    pub origin: String,
    /// The first entry that goes.
    pub from: u64,
    /// The first entry that stays.
    pub to: u64,
    /// Bytes of the bundles.
    pub bytes: u64,
    /// SHA-256 in hex over the SHA-256 of each bundle, in their order.
    pub sha256: String,
    /// Where they were shipped to; `None` when they are only removed.
    pub shipped_to: Option<String>,
    /// Entries that the checkpoint covered when it was made.
    pub checkpoint: u64,
    /// The entry from which on its event is looked for.
    pub look_from: u64,
}

impl Intent {
    /// The event that says so. Entries that leave the log are a gap, and this is its record.
    #[must_use]
    pub fn draft(&self, at: Time) -> Draft {
        let data = json!({
            "what": "retention",
            "retention_id": self.id,
            "removed_before": self.to,
            "first_entry": self.from,
            "entries": self.to - self.from,
            "bytes": self.bytes,
            "sha256_of_bundles": self.sha256,
            "shipped_to": self.shipped_to,
            "checkpoint": self.checkpoint,
            "log": self.origin,
        });
        Draft::daemon(at, EventKind::Loss, data)
    }

    /// Whether its event is in the log, before the end of the signed checkpoint.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn is_recorded(&self, source: &EvidenceSource, signed: &Checkpoint) -> io::Result<bool> {
        for entry in source.entries_from(self.look_from)? {
            let (place, line) = entry?;
            if place >= signed.size {
                return Ok(false);
            }
            if data_of(&line)
                .is_some_and(|data| data["retention_id"] == *self.id && data["removed_before"] == self.to)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The data of an event of retention.
fn data_of(line: &[u8]) -> Option<Value> {
    if Head::of(line)?.kind() != EventKind::Loss.name() {
        return None;
    }
    let event: Value = serde_json::from_slice(line).ok()?;
    let data = event.get("event_data")?;
    (data["what"] == "retention").then(|| data.clone())
}

/// Up to which entry the log's own events account for bundles that are not there. What is missing beyond that was not
/// removed by retention, whatever the file `removed` says.
///
/// # Errors
///
/// When the log cannot be read.
pub fn accounted_for(source: &dyn EventSource) -> io::Result<u64> {
    let mut most = 0;
    for entry in source.entries_from(0)? {
        let (_, line) = entry?;
        let told = data_of(&line).and_then(|data| data["removed_before"].as_u64());
        most = most.max(told.unwrap_or(0));
    }
    Ok(most)
}
