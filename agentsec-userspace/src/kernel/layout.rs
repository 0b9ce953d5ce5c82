//! The maps' shapes: what is pinned must be what this program expects, or it is not touched.
//!
//! aya re-uses a pinned map without looking at it; a value of another size would corrupt memory.

use std::fs;

use agentsec_common::agent::{AgentName, LinkAddress, LinkIpv4, Scope};
use agentsec_common::counters::{Counters, Strays};
use agentsec_common::endpoint::{Endpoint, EndpointKey};
use agentsec_common::flow::{Flow, FlowKey};
use agentsec_common::ledger::Ledger;
use agentsec_common::maps;
use agentsec_common::policy::Policy;
use agentsec_common::profile::Profile;
use agentsec_common::recorder::Entry;
use agentsec_common::sample::Responses;
use agentsec_common::times::TIME_BUCKETS;
use agentsec_common::typical::{PortRules, TypicalKey};
use anyhow::{Context, Result, bail};
use aya::maps::{MapInfo, MapType};

use super::pins::{self, Pins};

/// How many of everything the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Agents.
    pub agents: u32,
    /// Profile rows, of which a reload needs twice what it has.
    pub profiles: u32,
    /// Typical prefixes over all profiles.
    pub typical_prefixes: u32,
    /// Endpoints over all agents.
    pub endpoints: u32,
    /// Connections over all agents.
    pub flows: u32,
    /// Packets that are recorded, over all recorders.
    pub records: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            agents: maps::AGENT_CAPACITY,
            profiles: maps::PROFILE_CAPACITY,
            typical_prefixes: maps::TYPICAL_CAPACITY,
            endpoints: maps::ENDPOINT_CAPACITY,
            flows: maps::FLOW_CAPACITY,
            records: maps::RECORDER_CAPACITY << maps::RECORDER_DEPTH_LOG2,
        }
    }
}

/// What a map must be.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    kind: MapType,
    key_bytes: usize,
    value_bytes: usize,
    pub(super) entries: u32,
    /// The setting that says how many entries, if one does.
    setting: Option<&'static str>,
}

/// Every map of the object.
pub(super) fn shapes(capacities: &Capacities) -> Vec<Shape> {
    let agents = |name, kind, value_bytes| Shape {
        name,
        kind,
        key_bytes: 4,
        value_bytes,
        entries: capacities.agents,
        setting: Some("daemon.max_agents"),
    };
    let fixed = |name, kind, key_bytes, value_bytes, entries| Shape {
        name,
        kind,
        key_bytes,
        value_bytes,
        entries,
        setting: None,
    };
    let identities = |name, kind, key_bytes, value_bytes| {
        fixed(name, kind, key_bytes, value_bytes, maps::IDENTITY_CAPACITY)
    };
    let set = |shape: Shape, setting| Shape { setting: Some(setting), ..shape };
    let prefix_bytes = 4 + size_of::<TypicalKey>();
    vec![
        agents(maps::POLICY, MapType::Array, size_of::<Policy>()),
        agents(maps::LEDGER, MapType::Array, size_of::<Ledger>()),
        agents(maps::COUNTERS, MapType::PerCpuArray, size_of::<Counters>()),
        agents(maps::AGENTS, MapType::Array, size_of::<AgentName>()),
        fixed(maps::STRAYS, MapType::PerCpuArray, 4, size_of::<Strays>(), 1),
        fixed(maps::IDENTITY_NEAR, MapType::Array, 4, 8, maps::IDENTITY_NEAR_CAPACITY),
        fixed(maps::IDENTITY_FAR, MapType::Hash, 4, 8, maps::IDENTITY_FAR_CAPACITY),
        identities(maps::IDENTITY_CGROUP, MapType::Hash, 8, 8),
        identities(maps::IDENTITY_IPV4, MapType::Hash, size_of::<LinkIpv4>(), 8),
        identities(maps::IDENTITY_IPV6, MapType::Hash, size_of::<LinkAddress>(), 8),
        identities(maps::IDENTITY_PREFIX, MapType::LpmTrie, 4 + size_of::<LinkAddress>(), 4),
        fixed(maps::SCOPE, MapType::Array, 4, size_of::<Scope>(), 1),
        fixed(maps::COVERED, MapType::Hash, 8, 8, maps::COVERED_CAPACITY),
        agents(maps::TIMES, MapType::Array, size_of::<[u32; TIME_BUCKETS]>()),
        fixed(maps::SAMPLES, MapType::RingBuf, 0, 0, maps::SAMPLE_RING_BYTES),
        fixed(maps::FLOW_RECORDS, MapType::RingBuf, 0, 0, maps::FLOW_RECORD_RING_BYTES),
        fixed(maps::NOTICES, MapType::RingBuf, 0, 0, maps::NOTICE_RING_BYTES),
        set(
            fixed(maps::PROFILES, MapType::Array, 4, size_of::<Profile>(), capacities.profiles),
            "daemon.max_profiles",
        ),
        set(
            fixed(
                maps::TYPICAL,
                MapType::LpmTrie,
                prefix_bytes,
                size_of::<PortRules>(),
                capacities.typical_prefixes,
            ),
            "daemon.max_typical_prefixes",
        ),
        set(
            fixed(
                maps::ENDPOINTS,
                MapType::Hash,
                size_of::<EndpointKey>(),
                size_of::<Endpoint>(),
                capacities.endpoints,
            ),
            "daemon.max_endpoints",
        ),
        set(
            fixed(
                maps::RESPONSES,
                MapType::Hash,
                size_of::<EndpointKey>(),
                size_of::<Responses>(),
                capacities.endpoints,
            ),
            "daemon.max_endpoints",
        ),
        set(
            fixed(maps::RECORDS, MapType::Array, 4, size_of::<Entry>(), capacities.records),
            "recorder.max_agents times recorder.packets",
        ),
        set(
            fixed(maps::FLOWS, MapType::Hash, size_of::<FlowKey>(), size_of::<Flow>(), capacities.flows),
            "daemon.max_flows",
        ),
    ]
}

/// Makes the pin directories ready. True, when maps are there to be taken over.
pub(super) fn prepare(pins: &Pins, capacities: &Capacities) -> Result<bool> {
    let foreign = pins.foreign_layouts();
    if !foreign.is_empty() {
        bail!(
            "{} holds pins of layout {}, made by another version of agentsec (this one's is v{}): run that \
             version, or `agentsec unload` to end its enforcement and remove them",
            pins.root().display(),
            foreign.join(", "),
            maps::LAYOUT_VERSION
        );
    }
    let shapes = shapes(capacities);
    let found: Vec<_> = shapes.iter().filter(|shape| pins.map(shape.name).exists()).collect();
    if found.len() == shapes.len() {
        for shape in &shapes {
            shape.check(pins)?;
        }
        return Ok(true);
    }
    if !pins.pinned_links().is_empty() {
        bail!(
            "{} holds links, but {} of {} maps are missing: somebody has removed pins. Run `agentsec unload` \
             and start again",
            pins.root().display(),
            shapes.len() - found.len(),
            shapes.len()
        );
    }
    // A first start was cut off before anything was attached: nothing is in force yet.
    for shape in found {
        pins::remove(&pins.map(shape.name)).with_context(|| format!("removing the pin of {}", shape.name))?;
    }
    for directory in [pins.maps(), pins.links()] {
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    Ok(false)
}

/// Removes what [`prepare`] and a load that failed have left of a first start. What cannot be removed is removed
/// by the next one.
pub(super) fn discard(pins: &Pins) {
    for shape in shapes(&Capacities::default()) {
        let _ = pins::remove(&pins.map(shape.name));
    }
    for directory in [pins.maps(), pins.links(), pins.layout(), pins.root().to_owned()] {
        let _ = fs::remove_dir(directory);
    }
}

impl Shape {
    /// Compares the pinned map with what is expected.
    fn check(&self, pins: &Pins) -> Result<()> {
        let path = pins.map(self.name);
        let info =
            MapInfo::from_pin(&path).with_context(|| format!("cannot open the pin {}", path.display()))?;
        let kind = info.map_type().with_context(|| format!("{} is of no known type", path.display()))?;
        // Arrays of percpu values and rings report sizes that the kernel rounds or leaves zero.
        if kind != self.kind
            || info.key_size() as usize != self.key_bytes
            || info.value_size() as usize != self.value_bytes
        {
            bail!(
                "the pinned map {} is a {kind:?} of {}-byte keys and {}-byte values, and not the {:?} of {} and {} \
                 that this version needs: run `agentsec unload` and start again",
                path.display(),
                info.key_size(),
                info.value_size(),
                self.kind,
                self.key_bytes,
                self.value_bytes,
            );
        }
        if info.max_entries() != self.entries {
            bail!(
                "the pinned map {} holds {} entries and {} asks for {}: a map in use cannot be resized. Keep the \
                 setting, or run `agentsec unload` and start again",
                path.display(),
                info.max_entries(),
                self.setting.unwrap_or("this version"),
                self.entries,
            );
        }
        Ok(())
    }
}
