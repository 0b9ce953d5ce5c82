//! Freezing a cgroup, and thawing it whatever happens: a marker on the disk outlives the daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::durable;
use super::error::{Failure, Kind};

/// The most that the kernel may take to freeze.
const PATIENCE: Duration = Duration::from_secs(10);

/// A frozen cgroup. Dropping it thaws.
#[derive(Debug)]
pub struct Frozen {
    cgroup: PathBuf,
    marker: PathBuf,
    /// Somebody else had frozen it, and may have a reason: it stays so.
    stays: bool,
}

impl Frozen {
    /// Freezes the cgroup whose directory is `cgroup`; `marker` says so until it is thawed.
    ///
    /// # Errors
    ///
    /// When it is no cgroup or does not freeze in time; it is thawed then.
    pub fn new(cgroup: &Path, marker: &Path) -> Result<Self, Failure> {
        let asked = fs::read_to_string(cgroup.join("cgroup.freeze")).map_err(failed(cgroup))?;
        let stays = asked.trim() == "1" && !marker.exists();
        if !stays {
            durable::save(marker, &cgroup)?;
        }
        let frozen = Self { cgroup: cgroup.to_owned(), marker: marker.to_owned(), stays };
        fs::write(cgroup.join("cgroup.freeze"), "1").map_err(failed(cgroup))?;
        let started = Instant::now();
        while !is_frozen(cgroup)? {
            if started.elapsed() > PATIENCE {
                let message = format!("{} did not freeze within {} s", cgroup.display(), PATIENCE.as_secs());
                return Err(Failure::new(Kind::TimedOut, message));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(frozen)
    }

    /// Kills everything in it. What is frozen dies all the same.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or something is still there after a while.
    pub fn kill(mut self) -> Result<(), Failure> {
        // Nothing that somebody else may have frozen is left, and what is started next must run.
        self.stays = false;
        kill(&self.cgroup)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.stays {
            thaw(&self.cgroup, &self.marker);
        }
    }
}

fn thaw(cgroup: &Path, marker: &Path) {
    let thawed = fs::write(cgroup.join("cgroup.freeze"), "0");
    // A cgroup that is gone needs no thawing; one that cannot be thawed keeps its marker for the next attempt.
    if thawed.is_ok() || !cgroup.exists() {
        let _ = durable::remove(marker);
    }
}

/// Kills everything in the cgroup and waits until it is empty.
///
/// # Errors
///
/// As [`Frozen::kill`].
pub fn kill(cgroup: &Path) -> Result<(), Failure> {
    fs::write(cgroup.join("cgroup.kill"), "1").map_err(failed(cgroup))?;
    let started = Instant::now();
    while event(cgroup, "populated")? {
        if started.elapsed() > PATIENCE {
            let message = format!("{} still has processes after being killed", cgroup.display());
            return Err(Failure::new(Kind::TimedOut, message));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Thaws what a daemon that died had frozen. Whether there was anything.
pub fn thaw_left(marker: &Path) -> bool {
    match durable::load::<PathBuf>(marker) {
        Ok(Some(cgroup)) => {
            thaw(&cgroup, marker);
            true
        }
        _ => false,
    }
}

fn is_frozen(cgroup: &Path) -> Result<bool, Failure> {
    event(cgroup, "frozen")
}

fn event(cgroup: &Path, name: &str) -> Result<bool, Failure> {
    let text = fs::read_to_string(cgroup.join("cgroup.events")).map_err(failed(cgroup))?;
    Ok(text.lines().any(|line| line.split_once(' ') == Some((name, "1"))))
}

fn failed(cgroup: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    Failure::io(format!("the cgroup {}", cgroup.display()))
}
