//! A profile as evidence: what was expected of the agent when it tripped.

use serde_json::{Value, json};

use agentsec_common::typical::{ACCEPTED, ANY_PROTOCOL, OPENED, PortRule};

use crate::config::{ProfileConfig, TypicalRule};
use crate::core::draft::{centi, milli};
use crate::core::protocol::protocol_name;

/// The profile, with units in the names.
pub(super) fn document(name: &str, profile: &ProfileConfig) -> Value {
    let thousandths = |value: u32| f64::from(value) / 1000.0;
    let micros = |ticks: u32| u64::from(ticks) * 100;
    let weights = &profile.weights;
    json!({
        "name": name,
        "window_ms": profile.window_ns / 1_000_000,
        "counts_outbound": profile.count_outbound,
        "counts_inbound": profile.count_inbound,
        "expected_volume_bytes_a_minute": profile.expected_volume,
        "volume_ratio": thousandths(profile.volume_ratio_milli),
        "auth_failures": profile.auth_failures,
        "auth_weights": profile.follow.auth_weights_centi.iter().map(|weight| centi((*weight).into())).collect::<Vec<_>>(),
        "response_time_us": micros(profile.response_time_100us),
        "response_time_deviation_us": micros(profile.deviation_100us),
        "expected_requests_a_minute": profile.expected_requests_per_minute,
        "requests_ratio": thousandths(profile.requests_ratio_milli),
        "anomalous_requests": profile.anomalous_requests,
        "quarantine_threshold": milli(profile.quarantine_threshold),
        "weights": {
            "auth": milli(weights.auth), "volume": milli(weights.volume), "endpoints": milli(weights.endpoints),
            "endpoints_cap": milli(weights.endpoints_cap), "deviation": milli(weights.deviation),
            "requests": milli(weights.requests), "anomalous": milli(weights.anomalous),
        },
        "limits": {
            "max_volume_bytes": profile.max_volume,
            "max_unusual_endpoints": profile.max_unusual_endpoints,
            "max_auth_failures": profile.max_auth_failures,
            "max_variance_us": profile.max_deviation_100us.map(micros),
        },
        "probe": {
            "violations": profile.probe_violations, "rate_bytes": profile.probe_rate_bytes,
            "burst_bytes": profile.probe_burst_bytes, "min_charge_bytes": profile.probe_min_charge_bytes,
        },
        "max_endpoints": profile.max_endpoints,
        "typical": profile.typical.iter().map(typical).collect::<Vec<_>>(),
        "resolvers": profile.resolvers,
    })
}

fn typical(rule: &TypicalRule) -> Value {
    json!({
        "to": rule.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "rules": rule.rules.iter().map(ports).collect::<Vec<_>>(),
    })
}

fn ports(rule: &PortRule) -> Value {
    let protocol = if rule.protocol == ANY_PROTOCOL { "any".into() } else { protocol_name(rule.protocol) };
    json!({
        "protocol": protocol,
        "first_port": rule.first,
        "last_port": rule.last,
        "opened": rule.kinds & OPENED != 0,
        "accepted": rule.kinds & ACCEPTED != 0,
    })
}
