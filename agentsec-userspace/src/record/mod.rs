//! Records: events become sealed documents in a file that is only ever appended to.
//!
//! The core emits drafts; the [`journal::Journal`] seals them (id, host, boot, hash), keeps them while the disk
//! is full, and says which trips are on the disk. [`log::JsonLines`] is the file.

pub mod canonical;
pub mod event;
pub mod evidence;
pub mod journal;
pub mod log;
#[cfg(test)]
mod tests;

pub use event::{Event, Sealer, verify};
pub use journal::{Journal, Outcome};
pub use log::{EventSink, JsonLines, SinkError};
