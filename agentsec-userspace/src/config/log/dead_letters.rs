//! `log.dead_letters`: where events go that the log does not take.

use super::super::section::Section;
use std::path::PathBuf;

/// A second path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettersConfig {
    /// The directory, which must exist.
    pub directory: PathBuf,
    /// The most that the file in it may take.
    pub most_bytes: u64,
}

const DEFAULT_BYTES: u64 = 256 << 20;

pub(super) fn read(section: &Section<'_>) -> Option<DeadLettersConfig> {
    let directory = section.absolute("dead_letters");
    let most_bytes = section.bytes_within("dead_letters_max", 1 << 20..=1 << 40).unwrap_or(DEFAULT_BYTES);
    directory.map(|directory| DeadLettersConfig { directory, most_bytes })
}
