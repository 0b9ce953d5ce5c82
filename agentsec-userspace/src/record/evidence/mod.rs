//! The forensic log: a Merkle tree over events, in files that tools that we did not write can check.

pub mod merkle;
pub mod note;
pub mod tiles;
pub mod wal;
