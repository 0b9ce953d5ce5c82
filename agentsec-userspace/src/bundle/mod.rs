//! The evidence bundle: what can be known of an agent at the moment of its trip, collected before it is gone.
//!
//! ```text
//! loop: a trip ─▶ Order (values and places) ─▶ service: threads of its own
//!                                                 collect: one thread a part, each with a time limit
//!                                                 archive (tar) ─▶ sealed (age) ─▶ store: STATE/bundles/ID/
//! loop ◀─ Told: record the SHA-256 in the log ◀───┘
//! ```
//!
//! What is read from `/proc` is chosen by whoever is being contained: names, command lines, numbers of sockets,
//! files that never answer. So every part is bounded in time and size, says what it left out, and what hangs is left
//! behind. The loop never waits for anything here; the [`gate`] makes those wait who destroy evidence.

pub mod archive;
pub mod collect;
pub mod gate;
pub mod guarded;
pub mod manifest;
mod network;
pub mod part;
mod processes;
pub mod redact;
pub mod retention;
pub mod sealed;
pub mod service;
mod sockets;
pub mod store;
pub mod text;
pub mod trip;
mod whereabouts;

pub use crate::core::hex::{hex, sha256};
pub use gate::{Gate, Waited};
pub use part::{Paper, Part, Status};
pub use service::{Service, Told};
pub use trip::{Order, Source, Trip};

/// Directory of the bundles in the daemon's state directory.
pub const DIRECTORY: &str = "bundles";
