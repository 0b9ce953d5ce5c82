//! `[daemon]` and `[breaker] guard`.

use super::section::Section;
use crate::core::settings::GuardSettings;
use agentsec_common::maps;

/// The daemon's own settings. Capacities take effect when maps are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// How often words are read, nanoseconds.
    pub interval_ns: u64,
    /// Agents.
    pub max_agents: u32,
    /// Profile rows.
    pub max_profiles: u32,
    /// Typical prefixes over all profiles.
    pub max_typical_prefixes: u32,
    /// Endpoints over all agents.
    pub max_endpoints: u32,
    /// Connections over all agents.
    pub max_flows: u32,
    /// Cgroup that the programs for cgroups are attached to, relative to the root of the v2 tree; `None` for the
    /// root itself.
    pub cgroup_root: Option<String>,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            interval_ns: 250_000_000,
            max_agents: maps::AGENT_CAPACITY,
            max_profiles: maps::PROFILE_CAPACITY,
            max_typical_prefixes: maps::TYPICAL_CAPACITY,
            max_endpoints: maps::ENDPOINT_CAPACITY,
            max_flows: maps::FLOW_CAPACITY,
            cgroup_root: None,
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> DaemonConfig {
    let default = DaemonConfig::default();
    let daemon = DaemonConfig {
        interval_ns: section.duration("interval", 10_000_000..=10_000_000_000).unwrap_or(default.interval_ns),
        max_agents: section.integer("max_agents", 1..=65_536).unwrap_or(default.max_agents),
        max_profiles: section.integer("max_profiles", 1..=65_536).unwrap_or(default.max_profiles),
        max_typical_prefixes: section
            .integer("max_typical_prefixes", 1..=1 << 24)
            .unwrap_or(default.max_typical_prefixes),
        max_endpoints: section.integer("max_endpoints", 1..=1 << 24).unwrap_or(default.max_endpoints),
        max_flows: section.integer("max_flows", 1..=1 << 24).unwrap_or(default.max_flows),
        cgroup_root: super::attachment::read_cgroup_root(section),
    };
    section.finish();
    daemon
}

pub(super) fn read_guard(section: &Section<'_>) -> GuardSettings {
    let default = GuardSettings::default();
    let guard = GuardSettings {
        trips: section.integer("trips", 1..=100_000).unwrap_or(default.trips),
        window_ns: section
            .duration("window", 1_000_000_000..=86_400_000_000_000)
            .unwrap_or(default.window_ns),
        hold_in_shadow: section.boolean("hold_in_shadow").unwrap_or(default.hold_in_shadow),
    };
    section.finish();
    guard
}
