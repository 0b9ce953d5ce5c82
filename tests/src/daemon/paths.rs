//! Directories that only one daemon uses.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::Config;
use crate::unique;

const BPFFS: &str = "/sys/fs/bpf";

/// Where one daemon has its sockets, state, pins, configuration and output.
#[derive(Clone, Debug)]
pub struct Paths {
    base: PathBuf,
    pins: PathBuf,
    kept: Arc<AtomicBool>,
}

impl Paths {
    pub(super) fn new() -> Result<Self> {
        ensure_bpffs()?;
        let name = unique::name("as-test");
        let base = tempfile::Builder::new().prefix(&name).tempdir().context("making a directory")?.keep();
        let paths = Self { base, pins: Path::new(BPFFS).join(name), kept: Arc::default() };
        for directory in [paths.run(), paths.state(), paths.pins.clone()] {
            fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        }
        Ok(paths)
    }

    /// `--run-dir`: the sockets.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.base.join("run")
    }

    /// `--state-dir`: events, evidence, snapshots.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.base.join("state")
    }

    /// `--pin-path`: what is pinned in the kernel's file system.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.pins.clone()
    }

    /// `--config`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.base.join("agentsec.toml")
    }

    /// Standard output and standard error of all its runs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.base.join("output.log")
    }

    pub(super) fn write_config(&self, config: &Config) -> Result<()> {
        fs::write(self.config(), config.to_string()).context("writing the configuration")
    }

    pub(super) fn output(&self) -> Result<Stdio> {
        let file = File::options().create(true).append(true).open(self.log());
        Ok(file.context("making the file for the daemon's output")?.into())
    }

    pub(super) fn said(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(100)..];
        format!("--- the daemon said:\n{}\n---", last.join("\n"))
    }

    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    pub(super) fn kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    pub(super) fn remove(&self) {
        // A destructor calls this; what cannot be removed has a name that nobody uses again.
        let _ = fs::remove_dir_all(&self.pins);
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// Mounts the BPF file system where there is none, as in a small virtual machine.
fn ensure_bpffs() -> Result<()> {
    let mounted = || statfs(BPFFS).is_ok_and(|about| about.filesystem_type() == BPF_FS_MAGIC);
    if mounted() {
        return Ok(());
    }
    // A second mount would hide the pins of whoever made the first; test processes take turns here.
    let parent = File::open("/sys/fs").context("opening /sys/fs")?;
    let _turn = Flock::lock(parent, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    if mounted() {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).context("mounting /sys/fs/bpf")
}
