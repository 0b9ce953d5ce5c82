//! What the kernel has counted of an agent since its slot was made, and what it could not count.

use agentsec_common::auth::{ALL_AUTH_KINDS, AUTH_ROOM, AuthKind};
use agentsec_common::ledger::Ledger;
use serde::Serialize;
use serde_json::{Value, json};

/// What was counted, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Failed authentications, by kind.
    pub auth: [u64; AUTH_ROOM],
    /// Requests.
    pub requests: u64,
    /// Anomalous ones of them.
    pub anomalous_requests: u64,
    /// Response times.
    pub responses: u64,
}

impl Totals {
    /// Failed authentications of every kind.
    pub fn auth_by_kind(&self) -> impl Iterator<Item = (AuthKind, u64)> + '_ {
        ALL_AUTH_KINDS.into_iter().map(|kind| (kind, self.auth[kind as usize]))
    }
}

impl From<&Ledger> for Totals {
    fn from(ledger: &Ledger) -> Self {
        Self {
            auth: ledger.auth_total,
            requests: ledger.requests_total,
            anomalous_requests: ledger.anomalous_total,
            responses: ledger.responses_total,
        }
    }
}

/// What was lost, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Notices: the budget was spent, or the ring full.
    pub notices: u64,
    /// Packets whose endpoint found no room.
    pub endpoints: u64,
    /// Packets whose connection found no room.
    pub flows: u64,
    /// Answers whose endpoint found no room for its response times.
    pub responses: u64,
    /// Samples of answers: the budget was spent, or the ring full.
    pub samples: u64,
    /// Connections that were over and could not be told: the ring was full.
    pub flow_records: u64,
    /// First requests of connections that were not told: the budget was spent, or the ring full.
    pub openings: u64,
    /// Packets that were not recorded, because their place was being written to.
    pub records: u64,
}

impl Losses {
    /// What was lost since `told`.
    #[must_use]
    pub const fn since(&self, told: &Self) -> Self {
        Self {
            notices: self.notices.saturating_sub(told.notices),
            endpoints: self.endpoints.saturating_sub(told.endpoints),
            flows: self.flows.saturating_sub(told.flows),
            responses: self.responses.saturating_sub(told.responses),
            samples: self.samples.saturating_sub(told.samples),
            flow_records: self.flow_records.saturating_sub(told.flow_records),
            openings: self.openings.saturating_sub(told.openings),
            records: self.records.saturating_sub(told.records),
        }
    }

    /// Whether anything was lost.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// For events.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "what": "kernel",
            "notices_lost": self.notices,
            "packets_without_endpoint": self.endpoints,
            "packets_without_flow": self.flows,
            "answers_without_endpoint": self.responses,
            "samples_lost": self.samples,
            "interactions_lost": self.flow_records,
            "requests_unread": self.openings,
            "packets_not_recorded": self.records,
        })
    }
}

impl From<&Ledger> for Losses {
    fn from(ledger: &Ledger) -> Self {
        Self {
            notices: ledger.notices_lost,
            endpoints: ledger.endpoint_overflow,
            flows: ledger.flow_overflow,
            responses: ledger.responses_overflow,
            samples: ledger.samples_lost,
            flow_records: ledger.flow_records_lost,
            openings: ledger.openings_lost,
            records: ledger.recorder_lost,
        }
    }
}
