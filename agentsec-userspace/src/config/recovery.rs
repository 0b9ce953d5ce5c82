//! `[recovery]` and `[agents.NAME.recovery]`: where snapshots are kept, what an agent's state is, and how it is
//! stopped and started again.

use super::section::{Section, text};
use super::source::Value;
use std::path::PathBuf;

const SECOND: u64 = 1_000_000_000;
/// Where a repository may be.
const LOCATION: &str = "an absolute directory, or a location as restic takes it";
/// The most that a command's output, or state that is handed over, may have.
const STATE_LIMIT: u64 = 1 << 40;
/// The most that may be kept in memory for an agent.
const MEMORY_LIMIT: u64 = 1 << 36;

/// What all agents' snapshots share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// Directory, or restic location such as `rest:https://host/` or `s3:host/bucket`, below which every agent has a
    /// repository of its own; `None` for `snapshots` in the daemon's state directory.
    pub repository: Option<String>,
    /// Location to which snapshots are copied, for those who have lost this machine.
    pub copy_to: Option<String>,
    /// The most that each agent's recent snapshots may take in memory; `None` for none there.
    pub memory_bytes: Option<u64>,
    /// File with the repositories' key; `None` for `snapshot.key` in the daemon's state directory.
    pub key_file: Option<PathBuf>,
    /// The program restic.
    pub program: PathBuf,
    /// File of `NAME=VALUE` lines that restic gets as its environment: an object store's credentials.
    pub environment_file: Option<PathBuf>,
    /// The most that one run of restic may take, nanoseconds.
    pub timeout_ns: u64,
    /// How long before an incident's first event an untypical endpoint or a violation counts as its beginning,
    /// nanoseconds.
    pub lookback_ns: u64,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            repository: None,
            copy_to: None,
            memory_bytes: Some(32 << 20),
            key_file: None,
            program: "/usr/bin/restic".into(),
            environment_file: None,
            timeout_ns: 3600 * SECOND,
            lookback_ns: 600 * SECOND,
        }
    }
}

/// What an agent's state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateSource {
    /// A directory.
    Directory(PathBuf),
    /// What a command writes on its standard output.
    Command(Vec<String>),
    /// Bytes that are handed over the API.
    Handed,
}

/// What is frozen while state is read, and killed when nothing stops the agent in a better way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Freeze {
    /// Nothing.
    #[default]
    No,
    /// The cgroup in which the agent was found.
    Own,
    /// A cgroup by its path, relative to the root of the v2 tree.
    Cgroup(String),
}

/// How many snapshots are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The newest.
    pub last: u32,
    /// The newest of each of so many hours.
    pub hourly: u32,
    /// The newest of each of so many days.
    pub daily: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { last: 12, hourly: 24, daily: 7 }
    }
}

/// How an agent is brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRecovery {
    /// Its state.
    pub source: StateSource,
    /// Puts state back that is no directory: reads it on its standard input.
    pub restore: Vec<String>,
    /// Its repository, when it is not below the common one.
    pub repository: Option<String>,
    /// What is frozen meanwhile.
    pub freeze: Freeze,
    /// Stops it.
    pub stop: Vec<String>,
    /// Starts it.
    pub start: Vec<String>,
    /// The most that any of its commands may take, nanoseconds.
    pub command_timeout_ns: u64,
    /// The most that its state may have when it is no directory.
    pub max_state_bytes: u64,
    /// Agents whose state has to fit its own.
    pub dependencies: Vec<String>,
    /// How often a snapshot is taken, nanoseconds; `None` for only when asked for.
    pub interval_ns: Option<u64>,
    /// At which risk, per mille, none is taken any more.
    pub max_risk_milli: u32,
    /// How many are kept.
    pub keep: Keep,
    /// Whether it is brought back without being asked for.
    pub automatic: bool,
}

/// Reads `[recovery]`.
pub(super) fn read(section: &Section<'_>) -> RecoveryConfig {
    let default = RecoveryConfig::default();
    let config = RecoveryConfig {
        repository: section.parsed("repository", LOCATION, |value| location_of(text(value)?)),
        copy_to: section.parsed("copy_to", LOCATION, |value| location_of(text(value)?)),
        memory_bytes: read_memory(section, default.memory_bytes),
        key_file: section.absolute("key_file"),
        program: section.absolute("program").unwrap_or(default.program),
        environment_file: section.absolute("environment_file"),
        timeout_ns: section.duration("timeout", SECOND..=7 * 86_400 * SECOND).unwrap_or(default.timeout_ns),
        lookback_ns: section.duration("lookback", SECOND..=86_400 * SECOND).unwrap_or(default.lookback_ns),
    };
    section.finish();
    config
}

/// Reads `[agents.NAME.recovery]`; `None` when there is none, or none that makes sense.
pub(super) fn read_agent(parent: &Section<'_>) -> Option<AgentRecovery> {
    let node = parent.node("recovery")?;
    let section = parent.section("recovery");
    let source = read_source(&section);
    if source.is_none() {
        let message = "says not, or not clearly, what the state is".into();
        let allowed = Some("exactly one of directory, command, handed = true".into());
        section.report.problem(node.spot, &section.path, message, allowed);
    }
    let keep = section.section("keep");
    let default = Keep::default();
    let recovery = AgentRecovery {
        source: source.unwrap_or(StateSource::Handed),
        restore: command(&section, "restore"),
        repository: section.parsed("repository", LOCATION, |value| location_of(text(value)?)),
        freeze: read_freeze(&section),
        stop: command(&section, "stop"),
        start: command(&section, "start"),
        command_timeout_ns: section
            .duration("command_timeout", SECOND / 10..=86_400 * SECOND)
            .unwrap_or(60 * SECOND),
        max_state_bytes: section.bytes("max_state", STATE_LIMIT).unwrap_or(1 << 30),
        dependencies: section.strings("dependencies").unwrap_or_default(),
        interval_ns: read_interval(&section),
        max_risk_milli: section.milli("max_risk", 1..=1000).unwrap_or(350),
        keep: Keep {
            last: keep.integer("last", 1..=10_000).unwrap_or(default.last),
            hourly: keep.integer("hourly", 0..=10_000).unwrap_or(default.hourly),
            daily: keep.integer("daily", 0..=10_000).unwrap_or(default.daily),
        },
        automatic: section.boolean("automatic").unwrap_or(false),
    };
    keep.finish();
    section.finish();
    Some(recovery)
}

fn read_source(section: &Section<'_>) -> Option<StateSource> {
    let directory = section.absolute("directory").map(StateSource::Directory);
    let output = Some(command(section, "command")).filter(|words| !words.is_empty());
    let handed = section.boolean("handed").filter(|handed| *handed).map(|_| StateSource::Handed);
    let mut given = [directory, output.map(StateSource::Command), handed].into_iter().flatten();
    let first = given.next();
    if given.next().is_some() { None } else { first }
}

fn read_freeze(section: &Section<'_>) -> Freeze {
    let allowed = "true, false, or a cgroup's path relative to the root of the v2 tree";
    let freeze = section.parsed("freeze", allowed, |value| match value {
        Value::Boolean(true) => Ok(Freeze::Own),
        Value::Boolean(false) => Ok(Freeze::No),
        other => {
            let path = text(other)?.trim_matches('/');
            let fits = |part: &str| !part.is_empty() && part != "." && part != "..";
            if path.split('/').all(fits) {
                Ok(Freeze::Cgroup(path.to_owned()))
            } else {
                Err(format!("is {path:?}"))
            }
        }
    });
    freeze.unwrap_or_default()
}

fn read_memory(section: &Section<'_>, default: Option<u64>) -> Option<u64> {
    if is_off(section, "memory") {
        return None;
    }
    section.bytes("memory", MEMORY_LIMIT).or(default)
}

fn is_off(section: &Section<'_>, key: &'static str) -> bool {
    matches!(section.node(key).map(|node| &node.value), Some(Value::String(word)) if word == "off")
}

fn read_interval(section: &Section<'_>) -> Option<u64> {
    if is_off(section, "interval") {
        return None;
    }
    Some(section.duration("interval", SECOND..=7 * 86_400 * SECOND).unwrap_or(300 * SECOND))
}

/// A command as a list of words, the first an absolute path: what runs as root is not looked for.
fn command(section: &Section<'_>, key: &'static str) -> Vec<String> {
    let allowed = "a list of strings, the first an absolute path";
    let words = section.parsed(key, allowed, |value| {
        let Value::Array(items) = value else { return Err(format!("is {}", value.kind())) };
        let words: Result<Vec<String>, String> =
            items.iter().map(|item| text(&item.value).map(str::to_owned)).collect();
        match words?.as_slice() {
            [first, ..] if !first.starts_with('/') => Err(format!("begins with {first:?}")),
            [] => Err("is empty".into()),
            words if words.iter().any(|word| word.contains('\0')) => Err("contains a NUL byte".into()),
            words => Ok(words.to_vec()),
        }
    });
    words.unwrap_or_default()
}

/// A local directory is absolute; anything else names its backend with a colon.
fn location_of(text: &str) -> Result<String, String> {
    let is_remote =
        text.split_once(':').is_some_and(|(backend, rest)| !backend.contains('/') && !rest.is_empty());
    let fits = !text.contains(char::is_control) && (text.starts_with('/') || is_remote);
    if fits { Ok(text.trim_end_matches('/').to_owned()) } else { Err(format!("is {text:?}")) }
}
