//! A running guest, and what ends it when it does not end by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kernel::{self, Kernel, Unpacked};
use crate::workspace;

/// A guest takes no longer than this, on a host that has other things to do as well.
const LONGEST: Duration = Duration::from_secs(40 * 60);
/// Nor is it silent for longer than this.
const LONGEST_SILENCE: Duration = Duration::from_secs(8 * 60);
/// Memory, which holds the guest's files as well.
const MEGABYTES: &str = "1024";
/// BPF is named so that its programs may hook security decisions.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet lsm=landlock,lockdown,yama,integrity,apparmor,bpf";

/// A guest. Dropping it ends it.
pub struct Machine {
    qemu: Child,
    console: PathBuf,
    results: PathBuf,
    began: Instant,
    /// How much it had said when that last changed, and when that was.
    heard: (u64, Instant),
}

/// Where a guest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It has ended by itself.
    Ended,
    /// It was ended, and why.
    Killed(&'static str),
}

impl Machine {
    /// Boots a kernel with a first root directory. Its console and its results go to files beside that.
    pub fn boot(kernel: Kernel, unpacked: &Unpacked, image: &Path) -> Result<Self> {
        let directory = kernel::directory(kernel);
        let (console, results) = (directory.join("console.log"), directory.join("results.log"));
        for file in [&console, &results] {
            fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
        }
        let log = fs::File::create(directory.join("qemu.log")).context("cannot write qemu.log")?;
        let mut command = command(unpacked, image, &console, &results);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let qemu = command.spawn().context("cannot start qemu-system-x86_64")?;
        let now = Instant::now();
        Ok(Self { qemu, console, results, began: now, heard: (0, now) })
    }

    /// Looks at it, and ends it if it takes too long.
    pub fn state(&mut self) -> Result<State> {
        if self.qemu.try_wait().context("cannot wait for qemu")?.is_some() {
            return Ok(State::Ended);
        }
        let size = |path| fs::metadata(path).map_or(0, |about| about.len());
        let heard = size(&self.console) + size(&self.results);
        if heard != self.heard.0 {
            self.heard = (heard, Instant::now());
        }
        let why = if self.began.elapsed() > LONGEST {
            "it took too long and was ended"
        } else if self.heard.1.elapsed() > LONGEST_SILENCE {
            "it fell silent and was ended"
        } else {
            return Ok(State::Running);
        };
        self.end();
        Ok(State::Killed(why))
    }

    /// What it has reported so far.
    pub fn results(&self) -> String {
        read(&self.results)
    }

    /// What its kernel has said so far; what qemu itself says of a start that failed is there as well.
    pub fn console(&self) -> String {
        read(&self.console.with_file_name("qemu.log")) + &read(&self.console)
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn end(&mut self) {
        // It may have ended by itself already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}

fn command(unpacked: &Unpacked, image: &Path, console: &Path, results: &Path) -> Command {
    let mut command = workspace::command("qemu-system-x86_64");
    // Emulated: hosts that are guests themselves rarely offer KVM, and one way for all is one thing to test.
    command.args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-m", MEGABYTES, "-smp", "1"]);
    command.args(["-nographic", "-nodefaults", "-no-reboot"]);
    for file in [console, results] {
        command.arg("-serial").arg(format!("file:{}", file.display()));
    }
    command.arg("-kernel").arg(&unpacked.image).arg("-initrd").arg(image).args(["-append", COMMAND_LINE]);
    command
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
