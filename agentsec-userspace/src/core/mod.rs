//! Decides: inputs and a time go in, commands come out.
//!
//! Nothing here reads a clock, a file, a socket or a map, and nothing iterates in the order of a hash, so the
//! same inputs always give the same commands. The daemon runs it live; tests and replays run it over histories.
//!
//! What must stay true:
//!
//! - A circuit leaves OPEN only by an operator, by a cool-down that may end by itself, or by a restart that
//!   finds the kernel's word saying so.
//! - The epoch changes exactly when state or mode changes.
//! - A trip of the kernel is acknowledged only once its event is recorded, or when an operator decides over it.
//! - A command that makes the kernel stricter comes before its event, one that makes it laxer after it.

pub mod address;
pub mod agent;
pub mod breaker;
pub mod command;
pub mod community_id;
pub mod draft;
pub mod engine;
mod explain;
pub mod flows;
mod group;
pub mod guard;
pub mod hex;
pub mod input;
pub mod interaction;
pub mod names;
mod observe;
mod operator;
pub mod persist;
pub mod place;
pub mod protocol;
pub mod recent;
pub mod secrets;
pub mod settings;
pub mod slow;
#[cfg(test)]
mod tests;
pub mod time;
pub mod totals;
mod trip;
pub mod tripped;
pub mod view;

pub use command::{Command, Done, Refusal};
pub use draft::{Draft, EventKind, TripRef};
pub use engine::Engine;
pub use input::{AgentAdded, AttachmentChange, Input, Observation, Request, Target};
pub use place::Place;
pub use settings::{AgentSettings, BreakerSettings, GuardSettings};
pub use time::Time;
