//! The configuration: one TOML file and drop-ins beside it, read as a whole.
//!
//! [`load`] reports every problem it finds, each with its file, line and key and what is allowed there, and
//! returns a [`Config`] only when there is none. A `Config` is plain data in which every name resolves, every
//! number is in range and every profile compiles.
//!
//! Drop-ins are `conf.d/*.toml` beside the file, in the order of their names. They add profiles and agents, and
//! a key that they repeat in `[daemon]`, `[defaults]`, `[breaker]`, `[interactions]`, `[log]`, `[recorder]`, `[recovery]` or
//! `[bundles]` overrides the earlier one. A profile or an agent is defined in one place only.

pub mod agent;
pub mod attachment;
mod bundles;
mod daemon;
mod dependencies;
mod digest;
pub mod error;
mod follow;
mod interactions;
pub mod log;
mod lookup;
mod overlap;
pub mod prefix;
mod probe;
pub mod profile;
mod recorder;
pub mod recovery;
mod section;
mod selector;
mod source;
#[cfg(test)]
mod tests;
pub mod typical;
mod units;
mod validate;

pub use agent::{AgentConfig, Newcomer};
pub use attachment::{AddressAttachment, CgroupSelector, Datapath};
pub use bundles::BundlesConfig;
pub use daemon::DaemonConfig;
pub use digest::SourceDigest;
pub use error::{Errors, Problem};
pub use follow::Follow;
pub use interactions::{Interactions, InteractionsConfig};
pub use log::{DeadLettersConfig, LogConfig};
pub use lookup::Match;
pub use prefix::Prefix;
pub use profile::ProfileConfig;
pub use recorder::{RecorderConfig, RecorderOverride};
pub use recovery::{AgentRecovery, RecoveryConfig};
pub use selector::Selector;
pub use source::Source;
pub use typical::{TooManyRules, TypicalPrefix, TypicalRule};

use crate::core::settings::{AgentSettings, BreakerSettings, GuardSettings};
use crate::recorder::Sampling;
use agent::Defaults;
use agentsec_common::agent::NAME_BYTES;
use agentsec_common::policy::Mode;
use section::{Report, Section};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Name of the profile that exists even when nobody configures it.
pub const DEFAULT_PROFILE: &str = "default";

/// Everything configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The daemon's own settings and the maps' capacities.
    pub daemon: DaemonConfig,
    /// The bound on automatic trips.
    pub guard: GuardSettings,
    /// Agents that are judged and never dropped, by id or section name.
    pub never_isolate: BTreeSet<String>,
    /// Profiles by name.
    pub profiles: BTreeMap<String, ProfileConfig>,
    /// Agent sections by name.
    pub agents: BTreeMap<String, AgentConfig>,
    /// What is recorded of agents' packets.
    pub recorder: RecorderConfig,
    /// Where snapshots are kept.
    pub recovery: RecoveryConfig,
    /// The forensic log.
    pub log: LogConfig,
    /// Evidence bundles.
    pub bundles: BundlesConfig,
    /// How interactions are told.
    pub interactions: InteractionsConfig,
    /// The files that all of it was read from.
    pub sources: Vec<SourceDigest>,
}

impl Config {
    /// Whether the agent is judged and never dropped.
    #[must_use]
    pub fn is_never_isolated(&self, found: &Match<'_>) -> bool {
        self.never_isolate.contains(found.id) || self.never_isolate.contains(found.section)
    }

    /// What is recorded of the agents of a profile.
    #[must_use]
    pub fn sampling(&self, profile: &str) -> Sampling {
        let overridden = self.profiles.get(profile).map(|profile| profile.recorder).unwrap_or_default();
        overridden.over(self.recorder.sampling)
    }

    /// What the core needs to know of an agent whose profile is compiled into `row`.
    #[must_use]
    pub fn settings(&self, found: &Match<'_>, row: u16) -> AgentSettings {
        let AgentConfig { profile, mode, newcomer, breaker, tags, .. } = found.agent;
        let shadowed = found.adopted && *newcomer == Newcomer::Shadow && *mode == Mode::Enforce;
        AgentSettings {
            profile_name: profile.clone(),
            profile: self.profiles.get(profile).cloned().unwrap_or_default().compile(),
            row,
            breaker: *breaker,
            mode: if shadowed { Mode::Shadow } else { *mode },
            never_isolate: self.is_never_isolated(found),
            tags: tags.clone(),
        }
    }
}

/// Reads `path` and its drop-ins.
///
/// # Errors
///
/// Every problem found, in the order of files and lines.
pub fn load(path: &Path) -> Result<Config, Errors> {
    parse(&source::read(path).map_err(Errors)?)
}

/// Reads files that are already in memory, in the order in which they override each other.
///
/// # Errors
///
/// As [`load`].
pub fn parse(sources: &[Source]) -> Result<Config, Errors> {
    let mut problems = Vec::new();
    let merged = source::merge(sources, &mut problems);
    let report = Report::new(sources, problems);
    let root = Section::of(&report, String::new(), &merged);
    let mut config = read(&root);
    config.sources = sources.iter().map(SourceDigest::from).collect();
    validate::check(&config, &root);
    root.finish();
    let problems = report.into_problems();
    if problems.is_empty() { Ok(config) } else { Err(Errors(problems)) }
}

fn read(root: &Section<'_>) -> Config {
    let daemon = daemon::read(&root.section("daemon"));
    let defaults = root.section("defaults");
    let profile =
        defaults.string("profile", "the name of a profile").unwrap_or_else(|| DEFAULT_PROFILE.into());
    let newcomer = agent::read_newcomer(&defaults).unwrap_or(Newcomer::Closed);
    defaults.finish();
    let breaker = root.section("breaker");
    let times = agent::read_breaker(&breaker, &BreakerSettings::default(), false);
    let never_isolate = breaker.strings("never_isolate").unwrap_or_default().into_iter().collect();
    let guard = daemon::read_guard(&breaker.section("guard"));
    breaker.finish();
    let defaults = Defaults { profile, newcomer, breaker: times };
    let mut profiles = read_profiles(&root.section("profiles"));
    // Without it, a configuration that names no profile at all could not be as short as it should be.
    profiles.entry(DEFAULT_PROFILE.into()).or_default();
    let agents = read_agents(&root.section("agents"), &defaults);
    let recorder = recorder::read(&root.section("recorder"));
    let recovery = recovery::read(&root.section("recovery"));
    let log = log::read(&root.section("log"));
    let bundles = bundles::read(&root.section("bundles"));
    let interactions = interactions::read(&root.section("interactions"));
    if !interactions.enabled {
        profiles.values_mut().for_each(|profile| profile.interactions = Interactions::Off);
    }
    Config {
        daemon,
        guard,
        never_isolate,
        profiles,
        agents,
        recorder,
        recovery,
        log,
        bundles,
        interactions,
        sources: Vec::new(),
    }
}

fn read_profiles(section: &Section<'_>) -> BTreeMap<String, ProfileConfig> {
    let mut profiles = BTreeMap::new();
    for (name, entry) in section.entries() {
        let path = section.key(name);
        check_name(section, name, entry);
        profiles.insert(name.clone(), profile::read(Section::new(section.report, path, &entry.node)));
    }
    profiles
}

fn read_agents(section: &Section<'_>, defaults: &Defaults) -> BTreeMap<String, AgentConfig> {
    let mut agents = BTreeMap::new();
    for (name, entry) in section.entries() {
        check_name(section, name, entry);
        let table = Section::new(section.report, section.key(name), &entry.node);
        agents.insert(name.clone(), agent::read(table, entry, defaults));
    }
    agents
}

fn check_name(section: &Section<'_>, name: &str, entry: &source::Entry) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(fits) {
        let allowed = format!("names of 1 to {NAME_BYTES} characters of A-Z a-z 0-9 . _ -");
        section.report.problem(entry.key, &section.key(name), "is no name".into(), Some(allowed));
    }
}
