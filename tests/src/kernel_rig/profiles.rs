//! Profiles for rigs: a calm one to start from, and what is typical for it.

use std::net::IpAddr;

use agentsec::config::typical::push_down;
use agentsec::config::{Prefix, TypicalRule};
use agentsec_common::bucket::Bucket;
use agentsec_common::profile::{COUNT_INBOUND, COUNT_OUTBOUND, NO_LIMIT, PRESENT, Profile, Weights};
use agentsec_common::typical::PortRule;
use agentsec_common::window::{BucketClock, LONGEST_NS};
use anyhow::{Result, anyhow};

use super::Rig;

/// A profile that nothing trips: no limits, thresholds out of reach, the article's weights, both directions
/// counted, and a window so long that no test sees a bucket leave it.
#[must_use]
pub const fn calm() -> Profile {
    Profile {
        probe: Bucket::new(1_000_000_000, 1 << 31, 0),
        reserved: 0,
        flags: PRESENT | COUNT_OUTBOUND | COUNT_INBOUND,
        generation: 1,
        bucket_multiplier: BucketClock::for_window(LONGEST_NS).multiplier(),
        max_volume: NO_LIMIT,
        anomalous_volume: NO_LIMIT,
        max_unusual_endpoints: u32::MAX,
        max_auth_failures_centi: u32::MAX,
        anomalous_auth_failures_centi: u32::MAX,
        max_deviation_100us: u32::MAX,
        anomalous_rate: u32::MAX,
        anomalous_requests: u32::MAX,
        flow_cap: u32::MAX,
        normal_response_100us: 500,
        auth_weights_centi: agentsec_common::auth::default_weights_centi(),
        read_ports: [agentsec_common::profile::PortRange::ANY; 8],
        reserved_more: [0; 4],
        anomalous_deviation_100us: u32::MAX,
        typical_endpoints: 1000,
        quarantine_threshold: 1000,
        weights: Weights::DEFAULT,
        probe_violations: u32::MAX,
        endpoint_cap: u32::MAX,
    }
}

/// A rule for one prefix. An IPv4 prefix has up to 32 bits.
///
/// # Panics
/// When the prefix has host bits, or more bits than its address.
#[must_use]
pub fn rule(address: impl Into<IpAddr>, bits: u32, rule: PortRule) -> TypicalRule {
    let prefix = Prefix::new(address.into(), bits).expect("a prefix without host bits");
    TypicalRule { prefixes: vec![prefix], rules: vec![rule] }
}

impl Rig {
    /// Makes these rules typical for a row, pushed down into longer prefixes as the daemon does it.
    pub fn expect(&mut self, row: u16, rules: &[TypicalRule]) -> Result<()> {
        let prefixes = push_down(rules).map_err(|error| anyhow!("{error:?}"))?;
        prefixes.iter().try_for_each(|prefix| self.maps.expect(row, prefix))
    }
}
