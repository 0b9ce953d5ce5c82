//! The attack chain: how far a compromise can have come, and why that is believed.
//!
//! Interactions are contacts in time. From the start, whatever a reached agent talked to *after* it was reached is
//! reached as well, if it is an agent: a path through contacts in the order of time, of any length, found as
//! earliest arrivals ([`reach`]). Events only say addresses; which agents these are is what the log itself says
//! ([`cast`]). What everybody talks to carries no suspicion: such services are not followed unless they show signs of
//! their own, and are listed as left out ([`common`]).
//!
//! Everything but [`gather`] works on values: facts of lines go in ([`Story::tell`]), a [`Chain`] comes out.

mod cast;
pub mod common;
mod contact;
mod fact;
mod find;
mod gather;
pub mod reach;
mod report;
mod story;
#[cfg(test)]
mod tests;

pub use fact::{Fact, read};
pub use find::{Settings, find};
pub use gather::{begin_of_history, gather, within};
pub use report::{Chain, Counts, Earlier, Excluded, Hop, Moment, Outflow};
pub use story::{INTERACTIONS_MAX, MARKS_MAX, Story};

/// Types of events that a chain is made of.
pub const TYPES: [&str; 6] =
    ["AGENT_INTERACTION", "SECURITY_VIOLATION", "CONTAINMENT_ACTION", "ENDPOINT_NEW", "ALERT", "LOSS"];

/// Types of events that say where agents are, whenever they happened.
pub const PLACES: [&str; 2] = ["AGENT_ADDED", "AGENT_ATTACHED"];

/// Types of events that are signs of a compromise.
pub const SIGNS: [&str; 2] = ["SECURITY_VIOLATION", "CONTAINMENT_ACTION"];
