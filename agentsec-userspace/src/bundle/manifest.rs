//! What is in a bundle, and what became of each part: one canonical JSON document, the archive's first file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::canonical;

use super::part::{Part, Status};
use super::sha256;
use super::trip::Trip;

/// Version of the format.
pub const FORMAT: u32 = 1;
/// Its file name in the archive.
pub const NAME: &str = "manifest.json";

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Names the bundle: a UUID of version 7.
    pub bundle_id: String,
    /// Which trip it is about.
    pub trip: Trip,
    /// Where it was collected.
    pub origin: Origin,
    /// When collecting began, RFC 3339.
    pub collected_at: String,
    /// The same moment on the monotonic clock of the boot, nanoseconds.
    #[serde(deserialize_with = "crate::record::event::exact")]
    pub collected_monotonic_ns: u64,
    /// How long collecting took, milliseconds.
    pub took_ms: u64,
    /// What it was allowed.
    pub limits: Limits,
    /// Its parts, in the order of the archive.
    pub parts: Vec<Entry>,
}

/// Where a bundle was collected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Name of the host.
    pub host: String,
    /// Names the boot.
    pub boot_id: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Version of the daemon.
    pub version: String,
}

/// What a bundle was allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Time of each part, milliseconds.
    pub part_timeout_ms: u64,
    /// Bytes of each part.
    pub part_bytes: u64,
    /// Bytes of all.
    pub bundle_bytes: u64,
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its file name.
    pub name: String,
    /// What became of it. One without bytes has no file.
    pub status: Status,
    /// Why it is not complete.
    pub reasons: Vec<String>,
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256 in hex.
    pub sha256: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

impl Entry {
    /// Of a part.
    #[must_use]
    pub fn of(part: &Part) -> Self {
        Self {
            name: part.name.clone(),
            status: part.status,
            reasons: part.reasons.clone(),
            bytes: part.bytes.len() as u64,
            sha256: sha256(&part.bytes),
            took_ms: part.took_ms,
        }
    }
}

impl Manifest {
    /// As it is written: canonical JSON and a line feed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = canonical::to_string(&serde_json::to_value(self).unwrap_or_default());
        text.push('\n');
        text.into_bytes()
    }

    /// What became of each part.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<String, Status> {
        self.parts.iter().map(|part| (part.name.clone(), part.status)).collect()
    }
}

/// Leaves out what does not fit into `most` bytes, the last parts first, and says so in each.
pub fn fit(parts: &mut [Part], most: u64) {
    let mut used = 0;
    for part in parts {
        let bytes = part.bytes.len() as u64;
        if used + bytes > most {
            part.reasons
                .push(format!("left out: with its {bytes} bytes the bundle would have more than {most}"));
            (part.bytes, part.status) = (Vec::new(), Status::Failed);
        } else {
            used += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_told() {
        let part = |name: &str, bytes: usize| Part {
            name: name.into(),
            status: Status::Complete,
            reasons: Vec::new(),
            bytes: vec![0; bytes],
            took_ms: 0,
        };
        let mut parts = [part("a", 60), part("b", 50), part("c", 40)];
        fit(&mut parts, 100);
        let found: Vec<_> = parts.iter().map(|part| (part.bytes.len(), part.status)).collect();
        assert_eq!(found, [(60, Status::Complete), (0, Status::Failed), (40, Status::Complete)]);
        assert!(parts[1].reasons[0].contains("more than 100"));
    }
}
