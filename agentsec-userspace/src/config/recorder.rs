//! `[recorder]` and `[profiles.NAME.recorder]`: which packets are kept in the kernel for the moment of a trip.

use super::Config;
use super::section::Section;
use super::validate::spot_of;
use crate::recorder::{RecorderMode, Sampling};
use agentsec_common::maps::{RECORDER_CAPACITY, RECORDER_DEPTH_LOG2};
use agentsec_common::recorder::{DATA_BYTES, DEPTH_LOG2_MAX, DEPTH_LOG2_MIN, ONE_IN_MAX, SNAP_BYTES_MIN};

/// The most packets over all recorders: 768 MiB.
const RECORDS_MAX: u64 = 1 << 22;

/// The recorders, and what is recorded unless a profile says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderConfig {
    /// Agents that have a recorder.
    pub max_agents: u32,
    /// Packets that are kept of each, as a power of two.
    pub depth_log2: u8,
    /// Recordings that are kept as files.
    pub keep: u32,
    /// After how long such a file goes, nanoseconds; `None` for never.
    pub expire_ns: Option<u64>,
    /// What is recorded.
    pub sampling: Sampling,
}

impl Default for RecorderConfig {
    fn default() -> Self {
        Self {
            max_agents: RECORDER_CAPACITY,
            depth_log2: RECORDER_DEPTH_LOG2 as u8,
            keep: 64,
            expire_ns: Some(90 * 86_400 * 1_000_000_000),
            sampling: Sampling::default(),
        }
    }
}

impl RecorderConfig {
    /// Packets that are kept of each agent.
    #[must_use]
    pub const fn packets(&self) -> u32 {
        1 << self.depth_log2
    }

    /// Packets over all recorders.
    #[must_use]
    pub const fn records(&self) -> u64 {
        (self.max_agents as u64) << self.depth_log2
    }
}

/// What a profile says of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecorderOverride {
    /// See [`Sampling::mode`].
    pub mode: Option<RecorderMode>,
    /// See [`Sampling::one_in`].
    pub one_in: Option<u16>,
    /// See [`Sampling::always_above_milli`].
    pub always_above_milli: Option<u16>,
    /// See [`Sampling::payload`].
    pub payload: Option<bool>,
    /// See [`Sampling::snap_bytes`].
    pub snap_bytes: Option<u8>,
}

impl RecorderOverride {
    /// What is recorded where `common` is what others record.
    #[must_use]
    pub fn over(self, common: Sampling) -> Sampling {
        Sampling {
            mode: self.mode.unwrap_or(common.mode),
            one_in: self.one_in.unwrap_or(common.one_in),
            always_above_milli: self.always_above_milli.unwrap_or(common.always_above_milli),
            payload: self.payload.unwrap_or(common.payload),
            snap_bytes: self.snap_bytes.unwrap_or(common.snap_bytes),
        }
    }
}

/// Reads `[recorder]`.
pub(super) fn read(section: &Section<'_>) -> RecorderConfig {
    let default = RecorderConfig::default();
    let config = RecorderConfig {
        max_agents: section.integer("max_agents", 1..=65_536).unwrap_or(default.max_agents),
        depth_log2: read_depth(section).unwrap_or(default.depth_log2),
        keep: section.integer("keep", 1..=100_000).unwrap_or(default.keep),
        expire_ns: section.expiry("expire").unwrap_or(default.expire_ns),
        sampling: keys(section).over(default.sampling),
    };
    section.finish();
    config
}

/// Reads `[profiles.NAME.recorder]`.
pub(super) fn read_override(section: &Section<'_>) -> RecorderOverride {
    let found = keys(section);
    section.finish();
    found
}

fn keys(section: &Section<'_>) -> RecorderOverride {
    let modes =
        [("off", RecorderMode::Off), ("sampled", RecorderMode::Sampled), ("always", RecorderMode::Always)];
    RecorderOverride {
        mode: section.choice("mode", &modes),
        one_in: section.integer("one_in", 1..=ONE_IN_MAX.into()).map(|one_in| one_in as u16),
        always_above_milli: section.milli("always_above_risk", 0..=1000).map(|milli| milli as u16),
        payload: section.boolean("payload"),
        snap_bytes: section.integer("bytes", SNAP_BYTES_MIN..=DATA_BYTES as u32).map(|bytes| bytes as u8),
    }
}

fn read_depth(section: &Section<'_>) -> Option<u8> {
    let (least, most) = (1 << DEPTH_LOG2_MIN, 1 << DEPTH_LOG2_MAX);
    let packets = section.integer("packets", least..=most)?;
    if packets.is_power_of_two() {
        return Some(packets.ilog2() as u8);
    }
    if let Some(node) = section.node("packets") {
        let allowed = format!("a power of two from {least} to {most}");
        section.report.problem(node.spot, &section.key("packets"), format!("is {packets}"), Some(allowed));
    }
    None
}

/// Reports recorders that would take too much memory, and agents that would find none.
pub(super) fn check(config: &Config, root: &Section<'_>) {
    let recorder = &config.recorder;
    let section = root.section("recorder");
    if recorder.records() > RECORDS_MAX
        && let Some(node) = section.node("max_agents").or_else(|| section.node("packets"))
    {
        let (agents, packets) = (recorder.max_agents, recorder.packets());
        let message = format!("are {agents} agents of {packets} packets: too much memory");
        let allowed = format!("max_agents times packets up to {RECORDS_MAX}");
        section.report.problem(node.spot, "recorder.max_agents", message, Some(allowed));
    }
    let recorded = config
        .agents
        .iter()
        .filter(|(_, agent)| !agent.adopts() && config.sampling(&agent.profile).mode != RecorderMode::Off);
    let Some((name, _)) = recorded.clone().nth(recorder.max_agents as usize) else { return };
    let spot = section.node("max_agents").map(|node| node.spot).or_else(|| spot_of(root, "agents", name, ""));
    let Some(spot) = spot else { return };
    let needed = recorded.count();
    let message = format!("is {}, but {needed} agents are recorded", recorder.max_agents);
    let allowed = format!("at least {needed}, or `recorder = {{ mode = \"off\" }}` in profiles of some");
    root.report.problem(spot, "recorder.max_agents", message, Some(allowed));
}
