//! Where events go, and what that needs of a file.

use super::event::Event;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Why events could not be appended. None of them is in the log then.
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

/// Where events go.
pub trait EventSink {
    /// Appends all of `events` or none. When one of them is about containment, they are on the disk afterwards.
    ///
    /// # Errors
    ///
    /// When none of them is in the log. Appending may be tried again.
    fn append(&mut self, events: &[Event]) -> Result<(), SinkError>;
}

/// What the write-ahead file needs of a file; tests have one that fails.
pub trait Storage {
    /// Writes at an offset, perhaps less than all of it.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Puts everything written on the disk.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn sync(&mut self) -> io::Result<()>;
    /// Makes the file as long as that, with zeros where it grows.
    ///
    /// # Errors
    ///
    /// As the system says.
    fn set_length(&mut self, length: u64) -> io::Result<()>;
}

impl Storage for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
