//! The file: one line per event, appended, never rewritten.

use super::event::{self, Event};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Why events could not be appended. None of them is in the file then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkError {
    /// What the system said.
    pub kind: io::ErrorKind,
    /// The same in words.
    pub message: String,
}

impl fmt::Display for SinkError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "events cannot be written: {}", self.message)
    }
}

impl std::error::Error for SinkError {}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> Self {
        Self { kind: error.kind(), message: error.to_string() }
    }
}

/// A line without an end, as a crash leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Where the line begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// Only its end is missing: the event is intact.
    pub intact: bool,
}

/// Where events go.
pub trait EventSink {
    /// Appends all of `events` or none. When one of them is about containment, they are on the disk afterwards.
    ///
    /// # Errors
    ///
    /// When none of them is in the log. Appending may be tried again.
    fn append(&mut self, events: &[Event]) -> Result<(), SinkError>;

    /// The line that a crash has torn, if this sink found one when it was opened.
    fn torn_tail(&self) -> Option<TornTail>;
}

/// What the log needs of a file; tests have one that fails.
pub trait Storage {
    /// Writes at the end, perhaps less than all of it.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Puts everything written on the disk.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts off everything after `length`.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

impl Storage for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// A file of JSON lines.
#[derive(Debug)]
pub struct JsonLines<S = File> {
    storage: S,
    /// Bytes of whole batches (and of what was there before): what may never be cut off.
    good: u64,
    /// Something of a failed batch may lie behind `good`.
    dirty: bool,
    /// The next batch first ends the torn line.
    unended: bool,
    torn: Option<TornTail>,
}

impl JsonLines {
    /// Opens the log at `path`, which becomes readable by its owner only, and locks it against other writers.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or another process writes it.
    pub fn open(path: &Path) -> Result<Self, SinkError> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        let length = file.seek(SeekFrom::End(0))?;
        let torn = find_torn_tail(&mut file, length)?;
        // The name of a new file is only on the disk once its directory is.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { storage: file, good: length, dirty: false, unended: torn.is_some(), torn })
    }
}

/// The bytes after the last newline, read backwards in steps.
fn find_torn_tail(file: &mut File, length: u64) -> io::Result<Option<TornTail>> {
    const STEP: u64 = 64 * 1024;
    let mut start = length;
    let mut tail = Vec::new();
    while start > 0 {
        let from = start.saturating_sub(STEP);
        let mut step = vec![0; (start - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut step)?;
        let newline = step.iter().rposition(|&byte| byte == b'\n');
        let kept = newline.map_or(0, |at| at + 1);
        tail.splice(0..0, step[kept..].iter().copied());
        start = from + kept as u64;
        if newline.is_some() {
            break;
        }
    }
    let intact = std::str::from_utf8(&tail).is_ok_and(|line| event::verify(line).is_ok());
    Ok((!tail.is_empty()).then_some(TornTail { offset: start, bytes: tail.len() as u64, intact }))
}

impl<S: Storage> JsonLines<S> {
    /// A log in `storage`, which holds `length` bytes of whole lines.
    pub fn with_storage(storage: S, length: u64) -> Self {
        Self { storage, good: length, dirty: false, unended: false, torn: None }
    }

    fn try_append(&mut self, batch: &[u8], durable: bool) -> io::Result<()> {
        if self.dirty {
            self.storage.truncate(self.good)?;
            self.dirty = false;
        }
        self.dirty = true;
        let written = self.storage.append(batch)?;
        if written < batch.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the disk took a part only"));
        }
        // A failed sync may have lost pages and will not say so again: the batch counts as not written.
        if durable {
            self.storage.sync()?;
        }
        self.good += batch.len() as u64;
        self.dirty = false;
        self.unended = false;
        Ok(())
    }
}

impl<S: Storage> EventSink for JsonLines<S> {
    fn append(&mut self, events: &[Event]) -> Result<(), SinkError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut batch = String::from(if self.unended { "\n" } else { "" });
        for event in events {
            batch.push_str(&event.to_line());
            batch.push('\n');
        }
        let durable = events.iter().any(|event| event.event_type.is_containment());
        let result = self.try_append(batch.as_bytes(), durable);
        if result.is_err() && self.dirty && self.storage.truncate(self.good).is_ok() {
            // Cut at once if that works, so that readers see no torn line; else before the next batch.
            self.dirty = false;
        }
        Ok(result?)
    }

    fn torn_tail(&self) -> Option<TornTail> {
        self.torn
    }
}
