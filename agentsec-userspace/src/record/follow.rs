//! Reading the log back: from an offset, in whole lines, so that it can be followed.

use super::event::Event;
use crate::core::draft::EventKind;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Most bytes read at once.
const CHUNK_BYTES: u64 = 4 << 20;

/// Whole lines, and where the next one begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Lines without their ends. Bytes that are no UTF-8 are replaced, so that such a line verifies nowhere.
    pub lines: Vec<String>,
    /// Offset to continue from.
    pub next: u64,
}

/// The whole lines from `offset`, at most some megabytes of them; none when there is nothing new yet.
///
/// A writer that takes back a failed batch writes the same bytes again later, so an offset stays good even when
/// the file is shorter than it for a while.
///
/// # Errors
///
/// When the file cannot be read, or a line is longer than what is read at once.
pub fn read_from(path: &Path, offset: u64) -> io::Result<Chunk> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(CHUNK_BYTES).read_to_end(&mut bytes)?;
    let Some(last) = bytes.iter().rposition(|&byte| byte == b'\n') else {
        if bytes.len() as u64 == CHUNK_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than any event"));
        }
        return Ok(Chunk { lines: Vec::new(), next: offset });
    };
    let lines =
        bytes[..last].split(|&byte| byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned());
    Ok(Chunk { lines: lines.collect(), next: offset + last as u64 + 1 })
}

/// Which events somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this agent's.
    pub agent: Option<String>,
    /// Only these kinds; all when empty.
    pub kinds: Vec<EventKind>,
    /// Only this incident's.
    pub correlation: Option<String>,
}

impl Filter {
    /// Whether `event` is wanted.
    #[must_use]
    pub fn admits(&self, event: &Event) -> bool {
        self.agent.as_ref().is_none_or(|agent| event.agent_id.as_ref() == Some(agent))
            && (self.kinds.is_empty() || self.kinds.contains(&event.event_type))
            && self.correlation.as_ref().is_none_or(|wanted| event.correlation_id.as_ref() == Some(wanted))
    }
}
