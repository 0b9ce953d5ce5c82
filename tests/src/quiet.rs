//! Recoverable agents whose state is a file each and whose commands only write down that they were called.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::Value;
use toml::Value as Toml;

use crate::daemon::{Config, Daemon};
use crate::lab::Lab;
use crate::scene::{NAMES, Scene, config};

/// A command as configured.
#[must_use]
pub fn words(words: &[&str]) -> Toml {
    Toml::Array(words.iter().map(|word| Toml::String((*word).to_owned())).collect())
}

/// What a verb answers, as JSON.
pub fn json(daemon: &Daemon, arguments: &[&str]) -> Result<Value> {
    let arguments = [arguments, &["--json"]].concat();
    Ok(serde_json::from_str(&daemon.cli_ok(&arguments)?)?)
}

/// The snapshots in a list.
#[must_use]
pub fn ids(list: &Value) -> Vec<String> {
    let snapshots = list["snapshots"].as_array().into_iter().flatten();
    snapshots.filter_map(|snapshot| Some(snapshot["snapshot_id"].as_str()?.to_owned())).collect()
}

/// Agents whose commands only write down that they were called, in `home/calls`.
#[derive(Debug)]
pub struct Quiet {
    /// The daemon in its lab.
    pub scene: Scene,
    home: tempfile::TempDir,
}

impl Quiet {
    /// Each of `names` depends on the one before it. `stop` and `start` are scripts; `$1` is the agent, `$H` the home.
    pub fn new(agents: usize, stop: &str, start: &str, more: impl Fn(Config) -> Config) -> Result<Self> {
        Self::within(Lab::routed(agents)?, agents, stop, start, more)
    }

    /// The same in a lab that is there already.
    pub fn within(
        lab: Lab,
        agents: usize,
        stop: &str,
        start: &str,
        more: impl Fn(Config) -> Config,
    ) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let mut settings = config(0);
        for (index, name) in NAMES[..agents].iter().enumerate() {
            let state = home.path().join(name);
            fs::create_dir(&state)?;
            fs::write(state.join("f"), "clean")?;
            let script = |what: &str, more: &str| {
                let script = format!("H={}; echo {what} $1 >> $H/calls; {more}", home.path().display());
                words(&["/bin/sh", "-c", &script, "sh", name])
            };
            settings = settings
                .agent(name, &format!("agent-{index}"))
                .of_agent("recovery.directory", state.display().to_string())
                .of_agent("recovery.interval", "off")
                .of_agent("recovery.stop", script("stop", stop))
                .of_agent("recovery.start", script("start", start))
                .of_agent("recovery.dependencies", words(NAMES[..index].last().copied().as_slice()));
            settings = more(settings);
        }
        Ok(Self { scene: Scene::around(lab, &settings)?, home })
    }

    /// Path of a file beside the states.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What an agent's state is.
    #[must_use]
    pub fn content(&self, agent: &str) -> String {
        fs::read_to_string(self.path(agent).join("f")).unwrap_or_default()
    }

    /// Spoils the states of the first agents, and contains the last of them.
    pub fn poison(&self, agents: usize) -> Result<()> {
        for name in &NAMES[..agents] {
            fs::write(self.path(name).join("f"), "poisoned")?;
        }
        self.scene.daemon.cli_ok(&["quarantine", NAMES[agents - 1], "--reason", "test"]).map(drop)
    }

    /// The commands that were called, such as `stop alice`.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Files that restored state waits in.
    #[must_use]
    pub fn staged(&self) -> usize {
        let staging = self.scene.daemon.paths().state().join("recovery/staging");
        fs::read_dir(staging).map_or(0, |entries| {
            entries
                .flatten()
                .filter(|entry| !entry.file_name().to_string_lossy().ends_with("-replaced"))
                .count()
        })
    }

    /// Recoveries that have not come to an end.
    #[must_use]
    pub fn recovering(&self) -> usize {
        let directory = self.scene.daemon.paths().state().join("recovery/recovering");
        fs::read_dir(directory).map_or(0, |entries| {
            entries
                .flatten()
                .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
                .count()
        })
    }
}
