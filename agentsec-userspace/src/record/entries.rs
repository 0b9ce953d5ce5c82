//! The log as questions see it: entries, each with its place.
//!
//! A place is a number that only grows along the log; nothing else is assumed of it. Everything that asks reads the
//! log through [`EventSource`], so it does not matter how the log lies on the disk.

use std::io;

/// One line of the log, without its newline, and its place.
pub type Entry = (u64, Vec<u8>);

/// Something that has entries.
pub trait EventSource: Send + Sync {
    /// The entries at `place` and after it, in the order of the log.
    ///
    /// # Errors
    ///
    /// When the log cannot be opened. A log that does not exist yet is empty.
    fn entries_from(&self, place: u64) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>> + Send>>;

    /// The entries at these places, in the order given; `None` where the log has no entry.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    fn entries_at(&self, places: &[u64]) -> io::Result<Vec<Option<Vec<u8>>>>;
}
