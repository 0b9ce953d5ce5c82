//! The daemon as a fixture: its own process, in a lab's host namespace, with its own sockets, state and pins.

mod child;
mod config;
mod launch;
mod paths;

pub use config::Config;
pub use launch::Launch;
pub use paths::Paths;

use std::ffi::OsStr;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use agentsec::record::entries::EventSource as _;
use agentsec::record::evidence::EvidenceSource;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::netns::Namespace;
use crate::wait;
use child::{Guarded, output_within};

/// How long any one command of the daemon's may take before the fixture calls it stuck.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A daemon. Dropping it kills the process, takes enforcement off by `agentsec unload`, and removes its files.
#[derive(Debug)]
pub struct Daemon {
    launch: Launch,
    paths: Paths,
    child: Option<Guarded>,
}

impl Daemon {
    /// Starts the daemon in `host` and waits until it answers. See [`Launch`] for more choices.
    pub fn start(host: &Namespace, config: &Config) -> Result<Self> {
        Launch::new(host, config).start()
    }

    /// Where its files are.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Guarded::id)
    }

    /// Whether the process is there (a stopped one is).
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.exited().is_none())
    }

    /// A command of the daemon's binary with its paths, inside the host namespace, for those who want to pipe.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.launch.command(&self.paths);
        command.args(arguments);
        command
    }

    /// Runs `agentsec ARGUMENTS` with the daemon's paths and returns whatever came of it.
    pub fn cli(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Output> {
        output_within(self.command(arguments), wait::patient(COMMAND_TIMEOUT))
    }

    /// The same for a command that must succeed; returns what it printed.
    pub fn cli_ok(&self, arguments: &[impl AsRef<OsStr>]) -> Result<String> {
        let output = self.cli(arguments)?;
        let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        ensure!(
            output.status.success(),
            "agentsec {}: {}: {}\n{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            self.said()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `agentsec status --json`.
    pub fn status(&self) -> Result<Value> {
        let text = self.cli_ok(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("the status is not JSON: {text}"))
    }

    /// One agent's part of the status.
    pub fn agent(&self, id: &str) -> Result<Value> {
        let status = self.status()?;
        let found = find_agent(&status, id).cloned();
        found.with_context(|| format!("there is no agent {id} in {status}"))
    }

    /// Waits until `fact` holds of the status, and returns that status.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        mut fact: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = None;
        let waited = wait::until(what, timeout, || {
            last = self.status().ok();
            last.clone().filter(|status| fact(status))
        });
        waited.with_context(|| format!("the last status was {last:?}\n{}", self.said()))
    }

    /// Waits until an agent is in a state such as `OPEN`.
    pub fn wait_for_state(&self, id: &str, state: &str, timeout: Duration) -> Result<Value> {
        self.wait_until(&format!("{id} is {state}"), timeout, |status| {
            find_agent(status, id).is_some_and(|agent| agent["state"] == state)
        })
    }

    /// The events it has recorded so far.
    pub fn events(&self) -> Result<Vec<Value>> {
        let parse =
            |line: &String| serde_json::from_str(line).with_context(|| format!("not an event: {line}"));
        self.event_lines()?.iter().map(parse).collect()
    }

    /// The same as they stand in its log, whether it runs or not.
    pub fn event_lines(&self) -> Result<Vec<String>> {
        let entries = EvidenceSource::in_state(&self.paths.state()).entries_from(0)?;
        entries.map(|entry| Ok(String::from_utf8(entry?.1)?)).collect()
    }

    /// What it has written to standard error: the last 100 lines.
    #[must_use]
    pub fn said(&self) -> String {
        self.paths.said()
    }

    /// Writes another configuration; `agentsec reload` or a restart makes it valid.
    pub fn set_config(&mut self, config: &Config) -> Result<()> {
        self.paths.write_config(config)
    }

    /// Kills it as a crash would: nothing of it gets to run.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it is not running")?;
        child.kill()?;
        Ok(())
    }

    /// Freezes it (SIGSTOP): the kernel part is on its own.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen one go on (SIGCONT).
    pub fn cont(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.child.as_ref().context("it is not running")?.signal(signal)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let child = self.child.as_mut().context("it is not running")?;
        let Ok(status) = wait::until("the daemon's end", COMMAND_TIMEOUT, || child.exited()) else {
            bail!("SIGTERM did not end it within {COMMAND_TIMEOUT:?}\n{}", self.said());
        };
        self.child = None;
        Ok(status)
    }

    /// Starts it again with the same files, after ending it if it runs, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        if self.is_running() {
            self.terminate()?;
        }
        self.child = None;
        self.begin()?;
        self.wait_ready()
    }

    /// Starts the process and does not wait for anything.
    pub fn begin(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "it is running already");
        let mut command = self.launch.command(&self.paths);
        command.arg("run").arg("--config").arg(self.paths.config());
        self.launch.finish(&mut command);
        command.stdin(Stdio::null()).stdout(self.paths.output()?).stderr(self.paths.output()?);
        self.child = Some(Guarded::start(command, self.launch.outlives())?);
        Ok(())
    }

    /// Waits until it answers `agentsec status`.
    pub fn wait_ready(&mut self) -> Result<()> {
        let socket = self.paths.run().join("agentsec.sock");
        let mut ended = None;
        let waited = wait::until("the daemon's answer", self.launch.patience(), || {
            ended = self.child.as_mut().and_then(Guarded::exited);
            let ready = ended.is_some() || (socket.exists() && self.status().is_ok());
            ready.then_some(())
        });
        if let Some(status) = ended {
            bail!("the daemon ended at once: {status}\n{}", self.said());
        }
        waited.with_context(|| self.said())
    }

    /// Leaves the process, its files and its enforcement as they are. The process must have been started by
    /// [`Launch::outlive`], else it ends with this one.
    pub fn keep(mut self) -> Paths {
        if let Some(child) = self.child.take() {
            child.release();
        }
        self.paths.keep();
        self.paths.clone()
    }
}

fn find_agent<'a>(status: &'a Value, id: &str) -> Option<&'a Value> {
    status["agents"].as_array()?.iter().find(|agent| agent["id"] == id)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.paths.kept() {
            return;
        }
        // Killed and collected by its own destructor, before its enforcement is taken off.
        self.child = None;
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        // A destructor has nobody to tell. Removing the pins ends enforcement even if the command fails.
        let _ = self.cli(&["unload"]);
        self.paths.remove();
    }
}
