//! `[log]`: where events go that the log does not take.

use super::section::{Section, text};
use std::path::{Path, PathBuf};

/// The log as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// Where events are kept, on another disk, while the log takes none; `None` for in memory only.
    pub dead_letters: Option<DeadLettersConfig>,
}

/// A second path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettersConfig {
    /// The directory, which must exist.
    pub directory: PathBuf,
    /// The most that the file in it may take.
    pub most_bytes: u64,
}

const DEFAULT_BYTES: u64 = 256 << 20;

pub(super) fn read(section: &Section<'_>) -> LogConfig {
    let directory = section.parsed("dead_letters", "an absolute path of a directory", |value| {
        let path = Path::new(text(value)?);
        if path.is_absolute() { Ok(path.to_owned()) } else { Err("it is not absolute".to_owned()) }
    });
    let most_bytes = section.bytes_within("dead_letters_max", 1 << 20..=1 << 40);
    section.finish();
    LogConfig {
        dead_letters: directory.map(|directory| DeadLettersConfig {
            directory,
            most_bytes: most_bytes.unwrap_or(DEFAULT_BYTES),
        }),
    }
}
