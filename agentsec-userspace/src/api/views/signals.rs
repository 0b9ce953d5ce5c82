//! The numbers that feed an agent's score, as the API shows them.

use agentsec_common::auth::{AUTH_ROOM, AuthKind};
use serde::{Deserialize, Serialize};

use crate::core::totals::Losses;

/// The numbers that feed the score, over the sliding window unless they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// Wire bytes.
    pub volume: u64,
    /// Distinct untypical endpoints.
    pub unusual_endpoints: u32,
    /// Failed authentications, whole ones: each kind has a weight.
    pub auth_failures: u32,
    /// Mean absolute deviation of response times, as it is judged: that of what came, or with the answers that are late,
    /// and nothing as long as they are too few.
    pub deviation_ms: f64,
    /// Failed authentications that the kernel has seen, ever, by kind.
    #[serde(default)]
    pub auth: AuthCounts,
    /// Response times that the kernel has measured.
    #[serde(default)]
    pub response_time: ResponseTimes,
    /// Requests.
    #[serde(default)]
    pub requests: u32,
    /// The same, scaled from the window to a minute.
    #[serde(default)]
    pub requests_per_minute: f64,
    /// What the profile expects of them; `null` when it expects nothing.
    #[serde(default)]
    pub expected_requests_per_minute: Option<u32>,
    /// Requests to untypical endpoints, denied or violating ones.
    #[serde(default)]
    pub anomalous_requests: u32,
    /// Connections that are followed now.
    #[serde(default)]
    pub flows: u64,
}

/// Failed authentications by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthCounts {
    /// HTTP status 401.
    pub http_401: u64,
    /// HTTP status 403.
    pub http_403: u64,
    /// HTTP status 407.
    pub http_407: u64,
    /// TLS alerts that refuse a certificate or identity.
    pub tls_alert: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Connections that were reset before the remote had said anything.
    pub reset_before_data: u64,
    /// Refusals that the daemon has found in samples since it started.
    #[serde(default)]
    pub sampled: u64,
}

impl From<[u64; AUTH_ROOM]> for AuthCounts {
    fn from(counts: [u64; AUTH_ROOM]) -> Self {
        let of = |kind: AuthKind| counts[kind as usize];
        Self {
            http_401: of(AuthKind::Http401),
            http_403: of(AuthKind::Http403),
            http_407: of(AuthKind::Http407),
            tls_alert: of(AuthKind::TlsAlert),
            refused: of(AuthKind::Refused),
            reset_before_data: of(AuthKind::ResetBeforeData),
            sampled: 0,
        }
    }
}

impl AuthCounts {
    /// Every kind with its name, in the order of the contract.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 7] {
        [
            (AuthKind::Http401.name(), self.http_401),
            (AuthKind::Http403.name(), self.http_403),
            (AuthKind::Http407.name(), self.http_407),
            (AuthKind::TlsAlert.name(), self.tls_alert),
            (AuthKind::Refused.name(), self.refused),
            (AuthKind::ResetBeforeData.name(), self.reset_before_data),
            ("sampled", self.sampled),
        ]
    }
}

/// How long answers took. The quantiles are of the last one to two windows; what there is none of is `null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResponseTimes {
    /// How many of them the quantiles are of.
    pub samples: u64,
    /// Median.
    pub p50_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// Mean absolute deviation from the normal response time, over the window.
    pub deviation_ms: Option<f64>,
}

/// Nanoseconds as milliseconds.
#[must_use]
pub fn ns_as_ms(ns: u64) -> f64 {
    // To a microsecond, which is finer than anything that is measured.
    (ns as f64 / 1000.0).round() / 1000.0
}

/// The mean of deviations in units of 100 µs, as milliseconds; `None` of none.
#[must_use]
pub fn mean_ms(sum_100us: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| (sum_100us as f64 / count as f64 * 100.0).round() / 1000.0)
}

/// What the kernel has counted, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalCounts {
    /// Requests.
    pub requests: u64,
    /// Anomalous ones of them.
    pub anomalous_requests: u64,
    /// Response times.
    pub responses: u64,
}

/// What the kernel could not count or tell, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossCounts {
    /// Notices.
    pub notices: u64,
    /// Packets whose endpoint found no room.
    pub endpoints: u64,
    /// Packets whose connection found no room.
    pub flows: u64,
    /// Answers whose endpoint found no room for its response times.
    pub responses: u64,
    /// Samples of answers.
    pub samples: u64,
    /// Interactions that were over.
    #[serde(default)]
    pub interactions: u64,
    /// First requests that were not read.
    #[serde(default)]
    pub requests: u64,
    /// Packets that were not recorded, because their place was being written to.
    #[serde(default)]
    pub records: u64,
}

impl LossCounts {
    /// Everything with its name.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("notices", self.notices),
            ("endpoints", self.endpoints),
            ("flows", self.flows),
            ("responses", self.responses),
            ("samples", self.samples),
            ("interactions", self.interactions),
            ("requests", self.requests),
            ("records", self.records),
        ]
    }
}

impl From<Losses> for LossCounts {
    fn from(losses: Losses) -> Self {
        let Losses { notices, endpoints, flows, responses, samples, flow_records, openings, records } =
            losses;
        Self {
            notices,
            endpoints,
            flows,
            responses,
            samples,
            interactions: flow_records,
            requests: openings,
            records,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentsec_common::auth::ALL_AUTH_KINDS;

    #[test]
    fn every_kind_is_shown_under_its_name() {
        let counts: AuthCounts = [1, 2, 3, 4, 5, 6, 0, 0].into();
        let expected = ALL_AUTH_KINDS.map(|kind| (kind.name(), kind as u64 + 1));
        assert_eq!(counts.named()[..expected.len()], expected);
        let shown = serde_json::to_value(counts).unwrap();
        for (name, count) in expected {
            assert_eq!(shown[name], count);
        }
    }

    #[test]
    fn times_are_shown_in_milliseconds() {
        assert_eq!(ns_as_ms(12_345_678), 12.346);
        assert_eq!((mean_ms(25, 10), mean_ms(0, 0)), (Some(0.25), None));
    }
}
