//! Why a circuit is open.

use super::address::from_address;
use super::draft::milli;
use agentsec_common::agent::Direction;
use agentsec_common::ledger::TripRecord;
use agentsec_common::notice::Notice;
use agentsec_common::risk::{Cause, Terms};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who opened a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The kernel, on a packet.
    Kernel,
    /// The daemon, on signals that only it sees.
    Daemon,
    /// An operator.
    Operator,
}

/// The packet that did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Remote address.
    pub remote: String,
    /// Remote port; 0 where the protocol has none.
    pub remote_port: u16,
    /// The agent's port.
    pub local_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// `outbound` or `inbound`, as the agent sees it.
    pub direction: String,
    /// Wire bytes.
    pub bytes: u32,
}

impl Packet {
    /// The packet of a trip.
    #[must_use]
    pub fn of_trip(record: &TripRecord) -> Self {
        Self {
            remote: from_address(record.remote).to_string(),
            remote_port: record.remote_port,
            local_port: record.local_port,
            protocol: record.protocol,
            direction: direction(record.direction).into(),
            bytes: record.packet_bytes,
        }
    }

    /// The packet of a notice.
    #[must_use]
    pub fn of_notice(notice: &Notice) -> Self {
        Self {
            remote: from_address(notice.remote).to_string(),
            remote_port: notice.remote_port,
            local_port: notice.local_port,
            protocol: notice.protocol,
            direction: direction(notice.direction).into(),
            bytes: notice.packet_bytes,
        }
    }
}

fn direction(byte: u8) -> &'static str {
    match Direction::from_byte(byte) {
        Some(Direction::Outbound) => "outbound",
        Some(Direction::Inbound) => "inbound",
        None => "unknown",
    }
}

/// Terms of a score, per mille.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contributions {
    /// Failed authentications.
    pub auth: u16,
    /// Volume.
    pub volume: u16,
    /// Unusual endpoints.
    pub endpoints: u16,
    /// Response time deviation.
    pub deviation: u16,
    /// Requests.
    #[serde(default)]
    pub requests: u16,
    /// Anomalous requests.
    #[serde(default)]
    pub anomalous: u16,
    /// Added by the daemon.
    pub extra: u16,
}

impl From<Terms> for Contributions {
    fn from(terms: Terms) -> Self {
        let Terms { auth, volume, endpoints, deviation, requests, anomalous, extra } = terms;
        Self { auth, volume, endpoints, deviation, requests, anomalous, extra }
    }
}

impl Contributions {
    /// The score, per mille.
    #[must_use]
    pub fn total(self) -> u16 {
        let Self { auth, volume, endpoints, deviation, requests, anomalous, extra } = self;
        Terms { auth, volume, endpoints, deviation, requests, anomalous, extra }.total()
    }

    /// As decimal numbers, for events.
    #[must_use]
    pub fn to_json(self) -> Value {
        json!({
            "auth": milli(self.auth),
            "volume": milli(self.volume),
            "endpoints": milli(self.endpoints),
            "deviation": milli(self.deviation),
            "requests": milli(self.requests),
            "anomalous": milli(self.anomalous),
            "extra": milli(self.extra),
        })
    }
}

/// Who opened the circuit, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tripped {
    /// Who.
    pub by: By,
    /// Unix nanoseconds.
    pub at_wall_ns: u64,
    /// A limit's name, `risk`, `probe_violation` or `operator`.
    pub cause: String,
    /// In words. What an operator adds later is appended.
    pub reason: String,
    /// The score's terms at that moment.
    pub terms: Contributions,
    /// The packet, when one did it.
    pub packet: Option<Packet>,
}

/// Name of a cause: that of the setting, where there is one.
#[must_use]
pub const fn cause_name(cause: Option<Cause>) -> &'static str {
    match cause {
        Some(Cause::VolumeLimit) => "max_volume",
        Some(Cause::EndpointLimit) => "max_unusual_endpoints",
        Some(Cause::AuthLimit) => "max_auth_failures",
        Some(Cause::DeviationLimit) => "max_variance",
        Some(Cause::Risk) => "risk",
        Some(Cause::ProbeViolation) => "probe_violation",
        None => "unknown",
    }
}
