//! The forensic log: a Merkle tree over events, in files that tools that we did not write can check.
//!
//! [`log::EvidenceLog`] writes, [`source::EvidenceSource`] reads, [`check::check`] tells whether it is what it was.

pub mod check;
pub mod files;
pub mod key;
pub mod log;
pub mod merkle;
pub mod note;
pub mod proof;
mod recover;
pub mod source;
#[cfg(test)]
mod tests;
pub mod tiles;
pub mod tree;
pub mod wal;

/// Name of the log's directory in the state directory.
pub const LOG_NAME: &str = "log";

pub use log::{EvidenceLog, Opened};
pub use source::EvidenceSource;
