//! A process in a cgroup, and what it says.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::wait;

/// How long a line may be waited for; traffic ends long before.
const LONGEST: Duration = Duration::from_secs(60);

/// So many lines wait at most until they are read; then the process has to.
const MOST_LINES: usize = 1024;

/// A running process. It is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Member {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Member {
    pub(super) fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the output was to be a pipe")?;
        let (lines, from_reader) = mpsc::sync_channel(MOST_LINES);
        // It ends with the process, or when nobody wants its lines any more.
        thread::spawn(move || read(output, &lines));
        Ok(Self { child, input, lines: from_reader })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints, without its end.
    pub fn line(&self) -> Result<String> {
        match self.lines.recv_timeout(LONGEST) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the process {} printed nothing in {LONGEST:?}", self.id())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the process {} prints nothing more", self.id()),
        }
    }

    /// The next line as JSON.
    pub fn json(&self) -> Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("{line:?} is not JSON"))
    }

    /// Waits until it says that it is ready, and where: the address on which it listens, or from which it sends.
    pub fn ready(&self) -> Result<SocketAddr> {
        let said = self.json()?;
        let address = said["ready"].as_str().and_then(|address| address.parse().ok());
        address.with_context(|| format!("{said} says no address"))
    }

    /// Writes a line to its input.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        writeln!(input, "{line}").with_context(|| format!("telling the process {}", self.child.id()))
    }

    /// Says a line and gives the answer.
    pub fn ask(&mut self, line: &str) -> Result<Value> {
        self.say(line)?;
        self.json()
    }

    /// Waits until it ends by itself, and gives the last line that it printed, as JSON.
    pub fn report(mut self) -> Result<Value> {
        let mut last = None;
        while let Ok(line) = self.line() {
            last = Some(line);
        }
        let status = self.wait()?;
        let last = last.with_context(|| format!("it printed nothing and ended with {status}"))?;
        serde_json::from_str(&last).with_context(|| format!("{last:?} is not JSON ({status})"))
    }

    /// Closes its input, which ends traffic, and gives the last line that it printed, as JSON.
    pub fn end(mut self) -> Result<Value> {
        self.input = None;
        self.report()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        wait::until("a process to end", LONGEST, || child.try_wait().transpose())?
            .map_err(|error| anyhow!(error).context("waiting for a process"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(output: ChildStdout, lines: &mpsc::SyncSender<String>) {
    for line in BufReader::new(output).lines() {
        let Ok(line) = line else { return };
        if lines.send(line).is_err() {
            return;
        }
    }
}
