//! How a daemon shall be started.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{Config, Daemon, Paths};
use crate::binary::Program;
use crate::netns::Namespace;

/// A daemon before it runs.
#[derive(Clone, Debug)]
pub struct Launch {
    host: Namespace,
    config: Config,
    binary: Option<PathBuf>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    patience: Duration,
    outlives: bool,
}

impl Launch {
    /// In this namespace, with this configuration, and nothing special.
    #[must_use]
    pub fn new(host: &Namespace, config: &Config) -> Self {
        Self {
            host: host.clone(),
            config: config.clone(),
            binary: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            patience: Duration::from_secs(30),
            outlives: false,
        }
    }

    /// Another binary than the one that `AGENTSEC_BIN` or the workspace offers.
    #[must_use]
    pub fn binary(self, path: impl Into<PathBuf>) -> Self {
        Self { binary: Some(path.into()), ..self }
    }

    /// One more argument of `agentsec run`.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more environment variable of the daemon and its commands.
    #[must_use]
    pub fn environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// How long to wait until it answers (30 s unless told).
    #[must_use]
    pub fn ready_within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Lets the process live on when ours ends, if [`Daemon::keep`] is called.
    #[must_use]
    pub fn outlive(self) -> Self {
        Self { outlives: true, ..self }
    }

    /// Starts it and waits until it answers.
    pub fn start(self) -> Result<Daemon> {
        let mut daemon = self.prepare()?;
        daemon.begin()?;
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Makes its directories and configuration; [`Daemon::begin`] starts it.
    pub fn prepare(mut self) -> Result<Daemon> {
        self.binary = Some(self.binary.unwrap_or_else(|| Program::Daemon.find()));
        let paths = Paths::new()?;
        paths.write_config(&self.config)?;
        Ok(Daemon { launch: self, paths, child: None })
    }

    pub(super) fn command(&self, paths: &Paths) -> Command {
        let binary = self.binary.clone().unwrap_or_else(|| Program::Daemon.find());
        let mut command = self.host.command(binary);
        // Before the verb, so that they hold whatever a caller's arguments end with.
        command.arg("--run-dir").arg(paths.run());
        command.arg("--state-dir").arg(paths.state());
        command.arg("--pin-path").arg(paths.pins());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(super) fn finish(&self, command: &mut Command) {
        command.args(&self.arguments);
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn outlives(&self) -> bool {
        self.outlives
    }
}
