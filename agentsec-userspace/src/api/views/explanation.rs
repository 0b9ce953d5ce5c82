//! Why an agent is in its state, as the API shows it.

use serde::{Deserialize, Serialize};

use super::{Mode, State, Trip};
use crate::api::time::Timestamp;

/// The packet that made the difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketView {
    /// When it was seen.
    pub at: Timestamp,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// Name of the protocol, or its number.
    pub protocol: String,
    /// The remote's address.
    pub remote: String,
    /// The remote's port; 0 where there is none.
    pub remote_port: u16,
    /// The agent's port; 0 where there is none.
    pub local_port: u16,
    /// Its wire bytes.
    pub bytes: u64,
}

/// `GET /v1/agents/{id}/explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The agent.
    pub agent: String,
    /// Its circuit's state in force.
    pub state: State,
    /// Whether that is enforced.
    pub mode: Mode,
    /// The trip that it is contained for, if any.
    pub tripped: Option<Trip>,
    /// Why, one reason a line, the decisive one first.
    pub why: Vec<String>,
    /// The packet that made the difference, if one did.
    pub packet: Option<PacketView>,
    /// Settings that would change it, one sentence each.
    pub settings: Vec<String>,
    /// What happens next, by itself or by whose hand.
    pub next: Vec<String>,
}
