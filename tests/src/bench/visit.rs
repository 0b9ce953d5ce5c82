//! This process as a visitor of cgroups.

use std::fs;
use std::path::PathBuf;

use agentsec::kernel::cgroups::Tree;
use anyhow::{Context, Result};

use crate::cgroup::Cgroup;

/// Takes this process to cgroups, and back to its own when it is dropped: before the cgroups are, whose destructors
/// kill whoever is there.
pub(super) struct Visitor {
    home: PathBuf,
}

impl Visitor {
    /// At home so far.
    pub(super) fn new() -> Result<Self> {
        let tree = Tree::find().context("this bench needs cgroup v2")?;
        let own = fs::read_to_string("/proc/self/cgroup").context("reading the own cgroup")?;
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2")?;
        Ok(Self { home: tree.directory(path)?.join("cgroup.procs") })
    }

    /// Goes into a cgroup, with all threads. Sockets that there are stay where they were made.
    pub(super) fn go(&self, cgroup: &Cgroup) -> Result<()> {
        cgroup.adopt(std::process::id())
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // Whoever cannot go home is killed with the cgroup, and a destructor has nobody to tell.
        let _ = fs::write(&self.home, "0");
    }
}
