//! Retention: entries that are old enough leave this host, in whole bundles, and the log stays what it was.
//!
//! Only bundles of entries go, first those of the beginning. The tiles of hashes stay, so every proof about what
//! remains is as good as before, and [`check`](crate::record::evidence::check) knows what may be missing: the file
//! `removed` in the log's directory says before which entry. In what order things happen:
//!
//! 1. [`plan`] says up to where: older than asked for, covered by the newest checkpoint and, if there are anchors,
//!    by one of them.
//! 2. [`seal`] compares every bundle with the hashes that were signed. What is damaged is evidence and stays.
//! 3. [`ship`] copies the bundles to the object store, if there is one, and reads each of them back.
//! 4. An event says what will go ([`Intent`]). Nothing goes before that event is in the log, under a signed checkpoint.
//! 5. [`remove`] writes `removed`, and then unlinks the bundles.
//!
//! A crash at any moment leaves a valid log: what was shipped and not removed is shipped again, what is before `removed`
//! and still there is unlinked later.

mod intent;
mod plan;
mod remove;
mod seal;
pub mod service;
mod ship;
#[cfg(test)]
mod tests;
mod transport;

pub use intent::{Intent, accounted_for};
pub use plan::{Cut, Plan, plan};
pub use service::{Retention, Told};
pub use ship::Store;
