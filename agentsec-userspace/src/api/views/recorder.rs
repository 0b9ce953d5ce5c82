//! The latest packets of an agent, as the API shows them.

use agentsec_common::agent::Direction;
use agentsec_common::packet::Class;
use serde::{Deserialize, Serialize};

use super::{Mode, State, protocol_name};
use crate::api::request::Recorded;
use crate::core::address::from_address;
use crate::core::time::rfc3339;
use crate::recorder::{Packet, verdict_name};

/// `GET /v1/agents/{id}/recorder`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecorderView {
    /// The agent.
    pub agent: String,
    /// One packet in so many is recorded at its present risk; `None` when none is.
    pub one_in: Option<u16>,
    /// Packets that are kept.
    pub capacity: u32,
    /// Whether payload is recorded, and not only headers.
    pub payload: bool,
    /// Whether the circuit is OPEN: then nothing is recorded, and this is what came before.
    pub frozen: bool,
    /// File that holds this very recording, since the circuit opened.
    pub kept: Option<String>,
    /// Packets recorded, ever.
    pub recorded: u64,
    /// Entries that were being written while they were read.
    pub torn: u32,
    /// Packets that were not recorded, because their place was being written to.
    pub lost: u64,
    /// The packets, the oldest first.
    pub packets: Vec<RecordedPacket>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPacket {
    /// Counts what was recorded of the agent's slot.
    pub sequence: u64,
    /// RFC 3339 with nanoseconds.
    pub at: String,
    /// `outbound` or `inbound`.
    pub direction: String,
    /// `passed`, `dropped` or `would_drop`.
    pub verdict: String,
    /// The state that it met.
    pub state: State,
    /// The mode that it met.
    pub mode: Mode,
    /// Whether it tripped the circuit.
    pub tripped: bool,
    /// Name of the protocol, or its number; empty for what is not IP.
    pub protocol: String,
    /// Source address; empty for what is not IP.
    pub source: String,
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// Destination address; empty for what is not IP.
    pub destination: String,
    /// Destination port; 0 where there is none.
    pub destination_port: u16,
    /// Its bytes.
    pub length: u32,
    /// How many of them are recorded.
    pub captured: u32,
}

impl From<&Recorded> for RecorderView {
    fn from(recorded: &Recorded) -> Self {
        let recording = &recorded.recording;
        let orders = recorded.orders.filter(|orders| orders.on);
        Self {
            agent: recording.agent.clone(),
            one_in: orders.map(|orders| orders.one_in),
            capacity: recorded.orders.map_or(0, |orders| 1 << orders.depth_log2),
            payload: orders.is_some_and(|orders| orders.payload),
            frozen: recording.is_frozen,
            kept: recorded.kept.as_ref().map(|path| path.display().to_string()),
            recorded: recording.recorded,
            torn: recording.torn,
            lost: recording.lost,
            packets: recording.packets.iter().map(RecordedPacket::from).collect(),
        }
    }
}

impl From<&Packet> for RecordedPacket {
    fn from(packet: &Packet) -> Self {
        let headers = packet.headers();
        let is_ip = headers.source != [0; 4] || headers.destination != [0; 4];
        let shown = |text: String| if is_ip { text } else { String::new() };
        Self {
            sequence: packet.sequence,
            at: rfc3339(packet.at_wall_ns),
            direction: match packet.direction {
                Direction::Outbound => "outbound".into(),
                Direction::Inbound => "inbound".into(),
            },
            verdict: verdict_name(packet.fate).into(),
            state: packet.state.into(),
            mode: packet.mode.into(),
            tripped: packet.tripped,
            protocol: match headers.class {
                Class::Arp => "arp".into(),
                _ => shown(protocol_name(headers.protocol).into_owned()),
            },
            source: shown(from_address(headers.source).to_string()),
            source_port: headers.source_port,
            destination: shown(from_address(headers.destination).to_string()),
            destination_port: headers.destination_port,
            length: packet.length,
            captured: packet.bytes.len() as u32,
        }
    }
}
