//! The tree of cgroups (v2), and a bell that rings when it changes.
//!
//! A cgroup's id is the inode number of its directory, which is what the kernel's programs see. An id is never
//! given again as long as the machine runs: a cgroup that is removed and made again under its name has another.

mod list;
mod members;
mod mounts;
#[cfg(test)]
mod tests;
mod watch;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

pub use list::{Cgroup, Listing, MOST_CGROUPS, MOST_LEVELS};
pub use members::Scope;
pub use watch::{Coverage, Watch};

/// The id of the one cgroup that has no parent.
const ROOT_ID: u64 = 1;

/// The tree, by the directory on which it is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
    root_id: u64,
}

impl Tree {
    /// The tree as mounted in this mount namespace; a mount that shows all of it goes first.
    ///
    /// # Errors
    ///
    /// When none is mounted: the error says what to mount.
    pub fn find() -> Result<Self> {
        let mountinfo =
            fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
        let Some(root) = mounts::cgroup2(&mountinfo).into_iter().find(|path| shows_cgroups(path)) else {
            bail!(
                "no cgroup v2 tree is mounted: mount -t cgroup2 none /sys/fs/cgroup \
                 (beside cgroup v1: /sys/fs/cgroup/unified)"
            );
        };
        let about = fs::metadata(&root).with_context(|| format!("cannot look at {}", root.display()))?;
        Ok(Self { root_id: about.ino(), root })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.root
    }

    /// The id of the cgroup that is mounted.
    #[must_use]
    pub const fn root_id(&self) -> u64 {
        self.root_id
    }

    /// Whether all of it is mounted. If not (in a container), levels are counted from further down than the
    /// kernel counts them, and cgroups outside cannot be seen.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.root_id == ROOT_ID
    }

    /// The directory of a cgroup.
    ///
    /// # Errors
    ///
    /// When the path is not relative to the tree's root or has empty, `.` or `..` components; the root is `""`.
    pub fn directory(&self, path: &str) -> Result<PathBuf> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
            bail!(
                "the cgroup {path:?} is not named by its path below {}, such as \"agents.slice/one.service\"",
                self.root.display()
            );
        }
        Ok(self.root.join(path))
    }
}

/// Whether the cgroup file system is what is visible there: another mount may cover it.
fn shows_cgroups(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// How deep a path is: children of the root are at level 1.
fn level(path: &str) -> u32 {
    if path.is_empty() { 0 } else { path.split('/').count() as u32 }
}

/// The path of a child.
fn child(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// Whether a cgroup was removed while we looked at it.
fn vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENOTDIR))
}
