//! Records: events become sealed documents, and those the leaves of a Merkle log.
//!
//! The core emits drafts; the [`writer::Writer`] takes them to a thread of its own, where the [`journal::Journal`]
//! seals them (id, host, boot, hash), keeps them while the disk is full, and says which trips are on the disk.
//! [`evidence`] is the log. Questions read it as [`entries`], with the help of an [`index`] that can be thrown away at
//! any time.

pub mod anchor;
pub mod ask;
pub mod canonical;
pub mod chain;
pub mod dead_letters;
pub mod entries;
pub mod event;
pub mod evidence;
pub mod head;
pub mod index;
pub mod journal;
pub mod ocsf;
pub mod query;
pub mod remote;
pub mod retention;
pub mod sink;
#[cfg(test)]
mod tests;
pub mod timestamp;
pub mod writer;

pub use crate::core::community_id;
pub use event::{Event, Sealer, intact, verify};
pub use journal::{Journal, Outcome};
pub use sink::{EventSink, SinkError};
pub use writer::Writer;
