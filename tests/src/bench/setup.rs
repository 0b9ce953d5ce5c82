//! What the benches with a daemon have in common.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::daemon::{Config, Daemon};

/// How long anything may take before a bench gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A configuration with one agent for each of the first `agents` links of a lab, to which everything is typical.
/// A circuit that has opened stays so.
pub(super) fn config(agents: usize) -> Config {
    let config = Config::new().set("breaker.auto_probe", false).set("profiles.bench.typical", vec!["any"]);
    (0..agents)
        .fold(config, |config, index| config.agent(&agent(index), &agent(index)).of_agent("profile", "bench"))
}

/// The name of an agent, and of its interface in the host.
pub(super) fn agent(index: usize) -> String {
    format!("agent-{index}")
}

/// Waits until this many agents are attached.
pub(super) fn wait_until_attached(daemon: &Daemon, agents: usize) -> Result<Value> {
    daemon.wait_until(&format!("{agents} agents are attached"), PATIENCE, |status| attached(status) == agents)
}

fn attached(status: &Value) -> usize {
    let is_attached = |agent: &&Value| {
        let all = agent["attachments"].as_array();
        all.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one["status"] == "attached"))
    };
    status["agents"].as_array().map_or(0, |agents| agents.iter().filter(is_attached).count())
}

/// Number of CPUs that programs can run on at the same time.
pub(super) fn cpus() -> Result<u64> {
    let cpus = std::thread::available_parallelism().context("counting the CPUs")?;
    Ok(u64::try_from(cpus.get())?)
}
