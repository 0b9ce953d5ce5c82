//! Records: events become sealed documents in a file that is only ever appended to.
//!
//! The core emits drafts; the [`journal::Journal`] seals them (id, host, boot, hash), keeps them while the disk
//! is full, and says which trips are on the disk. [`log::JsonLines`] is the file.
//! Questions read it as [`entries`], with the help of an [`index`] that can be thrown away at any time.

pub mod anchor;
pub mod canonical;
pub mod chain;
pub mod entries;
pub mod event;
pub mod evidence;
pub mod head;
pub mod index;
pub mod journal;
pub mod log;
pub mod ocsf;
pub mod query;
pub mod remote;
pub mod retention;
#[cfg(test)]
mod tests;
pub mod timestamp;

pub use crate::core::community_id;
pub use event::{Event, Sealer, verify};
pub use journal::{Journal, Outcome};
pub use log::{EventSink, JsonLines, SinkError};
