//! How operators speak with the daemon: HTTP over a Unix socket.
//!
//! ```text
//! CLI ─▶ client ─▶ socket ─▶ peer check ─▶ routes ─▶ Request ─▶ the daemon's loop
//!                                            └─ events file (read directly, never through the loop)
//! ```
//!
//! The API holds no state of the daemon: every answer comes from the loop through a [`Request`]'s reply (but for
//! snapshots, whose slow work has threads of its own: [`crate::recovery::Service`]), and
//! every operator's wish goes there as an [`Operation`]. The types in [`views`] are the contract of `--json`.
//!
//! An agent must never reach this socket. File permissions are the first bar; the second is that every
//! connection's peer is checked ([`peer`]): an operator's user, in the daemon's own network and user
//! namespaces, and not in an agent's cgroup.

pub mod client;
mod error;
pub mod event_log;
pub mod metrics;
pub mod peer;
mod recovery;
pub mod request;
mod routes;
pub mod server;
mod socket;
pub mod views;

pub use crate::record::timestamp as time;
pub use request::{
    Operation, OperationOutcome, OperationRefusal, OperationReply, Recorded, Refusal, ReloadReply, Reply,
    Reported, Request, RequestError, RequestErrorCode, Whom,
};
pub use server::{Server, ServerOptions};
pub use time::Timestamp;
