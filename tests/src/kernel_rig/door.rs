//! Where a rig's frames come in: each door has programs of its own, and its own way to tell whose a frame is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agentsec::kernel::cgroups::Tree;
use agentsec_common::agent::Direction;
use agentsec_common::maps;
use anyhow::{Context, Result};

use crate::unique;

/// A kind of hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// An interface that is one agent's.
    #[default]
    Interface,
    /// A link with agents behind it, by their addresses.
    Link,
    /// A cgroup, below which agents are known by theirs.
    Cgroup,
}

impl Door {
    /// Every door.
    pub const ALL: [Self; 3] = [Self::Interface, Self::Link, Self::Cgroup];

    /// The program for frames that go this way.
    #[must_use]
    pub const fn program(self, direction: Direction) -> &'static str {
        match (self, direction) {
            (Self::Interface, Direction::Outbound) => maps::PROGRAM_OUTBOUND,
            (Self::Interface, Direction::Inbound) => maps::PROGRAM_INBOUND,
            (Self::Link, Direction::Outbound) => maps::PROGRAM_LINK_OUTBOUND,
            (Self::Link, Direction::Inbound) => maps::PROGRAM_LINK_INBOUND,
            (Self::Cgroup, Direction::Outbound) => maps::PROGRAM_CGROUP_OUTBOUND,
            (Self::Cgroup, Direction::Inbound) => maps::PROGRAM_CGROUP_INBOUND,
        }
    }
}

/// This process in a cgroup of its own, three levels deep, as long as it lives. The kernel takes the cgroup of
/// whoever runs a frame for that of the frame's socket. One at a time: a process has one cgroup.
pub struct Inside {
    tree: Tree,
    before: String,
    /// Paths from the outermost.
    paths: Vec<String>,
    /// Their ids.
    pub ids: Vec<u64>,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Inside {
    /// Makes the cgroups and goes in.
    pub fn enter() -> Result<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let tree = Tree::find().context("these tests need cgroup v2")?;
        let own = fs::read_to_string("/proc/self/cgroup").context("reading the own cgroup")?;
        let before =
            own.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2")?.to_owned();
        let outer = unique::name("as-rig");
        let paths = vec![outer.clone(), format!("{outer}/middle"), format!("{outer}/middle/inner")];
        let mut inside = Self { tree, before, paths: Vec::new(), ids: Vec::new(), _turn: turn };
        for path in paths {
            let directory = inside.tree.directory(&path)?;
            fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
            inside.ids.push(fs::metadata(&directory)?.ino());
            inside.paths.push(path);
        }
        inside.go(&inside.paths[2])?;
        Ok(inside)
    }

    fn go(&self, path: &str) -> Result<()> {
        let procs: PathBuf = self.tree.directory(path)?.join("cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("writing {}", procs.display()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // A destructor: what cannot be removed has a name that nobody uses again.
        let _ = self.go(&self.before);
        for path in self.paths.iter().rev() {
            if let Ok(directory) = self.tree.directory(path) {
                let _ = fs::remove_dir(directory);
            }
        }
    }
}
