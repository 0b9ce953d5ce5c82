//! Child processes that end when they should.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A child that dies with us, also when we are killed, and at the latest when this is dropped.
#[derive(Debug)]
pub(super) struct Guarded {
    child: Child,
    // The kernel ends the child with the *thread* that started it, which therefore waits until this is closed.
    keeper: Option<(Sender<()>, JoinHandle<()>)>,
    released: bool,
}

impl Guarded {
    /// Starts it; one that `outlives` us is only ended by the destructor.
    pub(super) fn start(mut command: Command, outlives: bool) -> Result<Self> {
        if outlives {
            let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
            return Ok(Self { child, keeper: None, released: false });
        }
        // SAFETY: between fork and exec the closure makes one system call and touches no memory.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let (to_caller, from_keeper) = mpsc::channel();
        let (hold, held) = mpsc::channel();
        let keeper = thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            let child = command.spawn().with_context(|| format!("starting {command:?}"));
            let _ = to_caller.send(child);
            // Ends when the other side is dropped.
            let _ = held.recv();
        })?;
        let child = from_keeper.recv().context("the thread that starts the daemon is gone")??;
        Ok(Self { child, keeper: Some((hold, keeper)), released: false })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        // The process is ours and not collected yet, so its id cannot have been given to another.
        send(self.child.id(), signal)
    }

    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it live on.
    pub(super) fn release(mut self) {
        self.released = true;
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.released {
            // It may have ended by itself already.
            let _ = self.kill();
        }
        if let Some((hold, keeper)) = self.keeper.take() {
            drop(hold);
            let _ = keeper.join();
        }
    }
}

/// Runs a command to its end, but kills it and fails when that takes longer than `timeout`.
pub(super) fn output_within(mut command: Command, timeout: Duration) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let id = child.id();
    let (done, wait) = mpsc::channel();
    let reader = thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = done.send(());
        output
    });
    let late = wait.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout);
    if late {
        send(id, Signal::SIGKILL)?;
    }
    let output = reader.join().map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
    if late {
        bail!("{command:?} took longer than {timeout:?}");
    }
    output.with_context(|| format!("waiting for {command:?}"))
}

fn send(id: u32, signal: Signal) -> Result<()> {
    let id = Pid::from_raw(i32::try_from(id)?);
    kill(id, signal).with_context(|| format!("sending {signal} to the process {id}"))
}
