//! `[profiles.NAME]`: expected behaviour, read and compiled into the row that the kernel judges by.

use super::follow::{self, Follow};
use super::interactions::{self, Interactions};
use super::probe::{self, Probe};
use super::recorder::{self, RecorderOverride};
use super::section::{Section, text};
use super::source::{Node, Value};
use super::typical::{self, TooManyRules, TypicalPrefix, TypicalRule};
use agentsec_common::bucket::Bucket;
use agentsec_common::profile::{
    COUNT_INBOUND, COUNT_OUTBOUND, FOLLOW_FLOWS, JUDGE_REQUESTS, NO_LIMIT, PRESENT, Profile, TELL_FLOWS,
    Weights,
};
use agentsec_common::window::{BucketClock, GAUGE_MAX, LONGEST_NS, SHORTEST_NS, VALUE_FULL};
use std::collections::BTreeSet;
use std::net::IpAddr;

const MINUTE_NS: u64 = 60_000_000_000;
/// Longest time that is configured, in units of 100 µs: what is reported travels to the kernel in sixteen bits.
const TICKS_MAX: u64 = 65_535;

/// Expected behaviour as configured. Absent terms and limits are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileConfig {
    /// The sliding window, nanoseconds.
    pub window_ns: u64,
    /// Whether outbound bytes count towards the volume.
    pub count_outbound: bool,
    /// Whether inbound bytes do.
    pub count_inbound: bool,
    /// Wire bytes per minute.
    pub expected_volume: Option<u64>,
    /// Multiple of the expected volume above which the volume is anomalous, in thousandths.
    pub volume_ratio_milli: u32,
    /// Failed authentications in the window above which the auth term counts.
    pub auth_failures: u32,
    /// Response time deviation above which its term counts, in 100 µs.
    pub deviation_100us: u32,
    /// Normal response time, in 100 µs.
    pub response_time_100us: u32,
    /// Requests per minute.
    pub expected_requests_per_minute: Option<u32>,
    /// Multiple of the expected requests above which their term counts, in thousandths.
    pub requests_ratio_milli: u32,
    /// Anomalous requests in the window above which their term counts.
    pub anomalous_requests: u32,
    /// What is followed of connections.
    pub follow: Follow,
    /// What is recorded of interactions.
    pub interactions: Interactions,
    /// Score above which the circuit trips, per mille.
    pub quarantine_threshold: u16,
    /// What each term contributes, per mille.
    pub weights: Weights,
    /// Wire bytes in the window that are never exceeded.
    pub max_volume: Option<u64>,
    /// Unusual endpoints in the window that are never exceeded.
    pub max_unusual_endpoints: Option<u32>,
    /// Failed authentications in the window that are never exceeded.
    pub max_auth_failures: Option<u32>,
    /// Response time deviation that is never exceeded, in 100 µs.
    pub max_deviation_100us: Option<u32>,
    /// Violations while HALF_OPEN that open the circuit again.
    pub probe_violations: u32,
    /// Bytes a second that pass while HALF_OPEN.
    pub probe_rate_bytes: u64,
    /// Bytes that may pass at once while HALF_OPEN, after a pause.
    pub probe_burst_bytes: u64,
    /// Bytes that a packet is charged at least while HALF_OPEN.
    pub probe_min_charge_bytes: u64,
    /// Most endpoints of one kind that are kept per agent.
    pub max_endpoints: u32,
    /// What is recorded of packets in another way than of other agents'.
    pub recorder: RecorderOverride,
    /// Typical endpoints.
    pub typical: Vec<TypicalRule>,
    /// Its resolvers, each a typical endpoint for DNS.
    pub resolvers: BTreeSet<IpAddr>,
}

impl Default for ProfileConfig {
    /// The article's numbers, with no expected volume and nothing typical.
    fn default() -> Self {
        let probe = Probe::default();
        Self {
            window_ns: MINUTE_NS,
            count_outbound: true,
            count_inbound: true,
            expected_volume: None,
            volume_ratio_milli: 3000,
            auth_failures: 5,
            deviation_100us: 1000,
            response_time_100us: 500,
            expected_requests_per_minute: None,
            requests_ratio_milli: 3000,
            anomalous_requests: 10,
            follow: Follow::default(),
            interactions: Interactions::default(),
            quarantine_threshold: 700,
            weights: Weights::DEFAULT,
            max_volume: None,
            max_unusual_endpoints: None,
            max_auth_failures: None,
            max_deviation_100us: None,
            probe_violations: probe.violations,
            probe_rate_bytes: probe.rate_bytes,
            probe_burst_bytes: probe.burst_bytes,
            probe_min_charge_bytes: probe.min_charge_bytes,
            max_endpoints: 4096,
            recorder: RecorderOverride::default(),
            typical: Vec::new(),
            resolvers: BTreeSet::new(),
        }
    }
}

impl ProfileConfig {
    /// The row that the kernel judges by.
    #[must_use]
    pub fn compile(&self) -> Profile {
        let flag = |set, flag| if set { flag } else { 0 };
        let judges_requests = self.weights.requests > 0 || self.weights.anomalous > 0;
        Profile {
            generation: 0,
            flags: PRESENT
                | flag(self.follow.flows, FOLLOW_FLOWS)
                | flag(self.follow.flows && self.interactions != Interactions::Off, TELL_FLOWS)
                | flag(judges_requests, JUDGE_REQUESTS)
                | flag(self.count_outbound, COUNT_OUTBOUND)
                | flag(self.count_inbound, COUNT_INBOUND),
            bucket_multiplier: BucketClock::for_window(self.window_ns).multiplier(),
            max_volume: self.max_volume.unwrap_or(NO_LIMIT),
            anomalous_volume: self.anomalous_volume().unwrap_or(NO_LIMIT),
            max_unusual_endpoints: self.max_unusual_endpoints.unwrap_or(u32::MAX),
            max_auth_failures_centi: self.max_auth_failures.map_or(u32::MAX, |failures| failures * 100),
            anomalous_auth_failures_centi: self.auth_failures * 100,
            max_deviation_100us: self.max_deviation_100us.unwrap_or(u32::MAX),
            anomalous_rate: self
                .anomalous_rate()
                .map_or(u32::MAX, |rate| rate.try_into().unwrap_or(u32::MAX)),
            anomalous_requests: self.anomalous_requests,
            flow_cap: self.follow.max_flows,
            normal_response_100us: self.response_time_100us,
            auth_weights_centi: self.follow.auth_weights_centi,
            read_ports: self.follow.read_ports,
            reserved_more: [0; 4],
            anomalous_deviation_100us: self.deviation_100us,
            typical_endpoints: u32::try_from(self.typical.len() + self.resolvers.len()).unwrap_or(u32::MAX),
            quarantine_threshold: self.quarantine_threshold,
            weights: self.weights,
            probe_violations: self.probe_violations,
            endpoint_cap: self.max_endpoints,
            probe: Bucket::new(
                self.probe_rate_bytes,
                self.probe_burst_bytes,
                u32::try_from(self.probe_min_charge_bytes).unwrap_or(u32::MAX),
            ),
            reserved: 0,
        }
    }

    /// Bytes in the window above which the volume term counts: the expected ones of a minute, scaled to the
    /// window, times the ratio.
    #[must_use]
    pub fn anomalous_volume(&self) -> Option<u64> {
        Some(self.in_window(self.expected_volume?, self.volume_ratio_milli))
    }

    /// Requests in the window above which their term counts, likewise.
    #[must_use]
    pub fn anomalous_rate(&self) -> Option<u64> {
        Some(self.in_window(self.expected_requests_per_minute?.into(), self.requests_ratio_milli))
    }

    /// So many a minute, scaled to the window, times a ratio in thousandths.
    fn in_window(&self, per_minute: u64, ratio_milli: u32) -> u64 {
        let scaled = u128::from(per_minute) * u128::from(ratio_milli) * u128::from(self.window_ns);
        u64::try_from(scaled / u128::from(MINUTE_NS) / 1000).unwrap_or(u64::MAX)
    }

    /// The typical endpoints for the kernel's trie, without the profile's row.
    pub fn typical_prefixes(&self) -> Result<Vec<TypicalPrefix>, TooManyRules> {
        let resolvers = self.resolvers.iter().map(|address| typical::resolver_rule(*address));
        let rules: Vec<TypicalRule> = self.typical.iter().cloned().chain(resolvers).collect();
        typical::push_down(&rules)
    }
}

/// Reads one profile.
pub(super) fn read(section: Section<'_>) -> ProfileConfig {
    let default = ProfileConfig::default();
    let both = section
        .choice("volume", &[("both", (true, true)), ("outbound", (true, false)), ("inbound", (false, true))]);
    let (count_outbound, count_inbound) = both.unwrap_or((true, true));
    let limits = read_limits(section.section("limits"));
    let probe = probe::read(&section.section("probe"));
    let profile = ProfileConfig {
        window_ns: section.duration("window", SHORTEST_NS..=LONGEST_NS).unwrap_or(default.window_ns),
        count_outbound,
        count_inbound,
        expected_volume: section.bytes("expected_volume", VALUE_FULL),
        volume_ratio_milli: section
            .milli("volume_ratio", 1..=1_000_000)
            .unwrap_or(default.volume_ratio_milli),
        auth_failures: section.integer("auth_failures", 0..=65_534).unwrap_or(default.auth_failures),
        deviation_100us: section
            .ticks("response_time_deviation", TICKS_MAX)
            .unwrap_or(default.deviation_100us),
        response_time_100us: section.ticks("response_time", TICKS_MAX).unwrap_or(default.response_time_100us),
        expected_requests_per_minute: section.integer("expected_requests_per_minute", 1..=u32::MAX),
        requests_ratio_milli: section
            .milli("requests_ratio", 1..=1_000_000)
            .unwrap_or(default.requests_ratio_milli),
        anomalous_requests: section
            .integer("anomalous_requests", 0..=GAUGE_MAX - 1)
            .unwrap_or(default.anomalous_requests),
        follow: follow::read(&section),
        interactions: interactions::read_profile(&section),
        quarantine_threshold: section
            .milli("quarantine_threshold", 0..=1000)
            .map_or(default.quarantine_threshold, |milli| milli as u16),
        weights: read_weights(section.section("weights")),
        max_volume: limits.max_volume,
        max_unusual_endpoints: limits.max_unusual_endpoints,
        max_auth_failures: limits.max_auth_failures,
        max_deviation_100us: limits.max_deviation_100us,
        probe_violations: probe.violations,
        probe_rate_bytes: probe.rate_bytes,
        probe_burst_bytes: probe.burst_bytes,
        probe_min_charge_bytes: probe.min_charge_bytes,
        max_endpoints: section.integer("max_endpoints", 1..=1 << 24).unwrap_or(default.max_endpoints),
        recorder: recorder::read_override(&section.section("recorder")),
        typical: typical::read(&section),
        resolvers: read_resolvers(&section),
    };
    check_countable(&section, "expected_volume", "volume_ratio", profile.anomalous_volume(), VALUE_FULL, "B");
    let (rate, most) = (profile.anomalous_rate(), GAUGE_MAX.into());
    check_countable(&section, "expected_requests_per_minute", "requests_ratio", rate, most, "");
    section.finish();
    profile
}

/// What is anomalous must be less than what can be counted.
fn check_countable(
    section: &Section<'_>,
    key: &'static str,
    ratio: &str,
    anomalous: Option<u64>,
    most: u64,
    unit: &str,
) {
    if anomalous.is_some_and(|anomalous| anomalous >= most)
        && let Some(node) = section.node(key)
    {
        let message = format!("times {ratio} and scaled to the window is more than a window can count");
        let allowed = Some(format!("less than {most}{unit}"));
        section.report.problem(node.spot, &section.key(key), message, allowed);
    }
}

fn read_resolvers(section: &Section<'_>) -> BTreeSet<IpAddr> {
    let read = section.parsed("resolvers", "a list of IPv4 and IPv6 addresses", |value| {
        let Value::Array(items) = value else { return Err(format!("is {}", value.kind())) };
        let address = |item: &Node| {
            let text = text(&item.value)?;
            text.parse().map_err(|_| format!("{text:?} is not an address"))
        };
        items.iter().map(address).collect()
    });
    read.unwrap_or_default()
}

/// What is under `limits`.
struct Limits {
    max_volume: Option<u64>,
    max_unusual_endpoints: Option<u32>,
    max_auth_failures: Option<u32>,
    max_deviation_100us: Option<u32>,
}

fn read_limits(section: Section<'_>) -> Limits {
    let limits = Limits {
        max_volume: section.bytes("max_volume", VALUE_FULL),
        max_unusual_endpoints: section.integer("max_unusual_endpoints", 0..=u32::MAX - 1),
        // What is reported travels to the kernel in sixteen bits, and must be able to exceed a limit.
        max_auth_failures: section.integer("max_auth_failures", 0..=65_534),
        max_deviation_100us: section.ticks("max_variance", TICKS_MAX - 1),
    };
    section.finish();
    limits
}

fn read_weights(section: Section<'_>) -> Weights {
    let weight = |key, default| section.milli(key, 0..=1000).map_or(default, |milli| milli as u16);
    let weights = Weights {
        auth: weight("auth", Weights::DEFAULT.auth),
        volume: weight("volume", Weights::DEFAULT.volume),
        endpoints: weight("endpoints", Weights::DEFAULT.endpoints),
        endpoints_cap: weight("endpoints_cap", Weights::DEFAULT.endpoints_cap),
        deviation: weight("deviation", Weights::DEFAULT.deviation),
        requests: weight("requests", Weights::DEFAULT.requests),
        anomalous: weight("anomalous", Weights::DEFAULT.anomalous),
    };
    section.finish();
    weights
}
