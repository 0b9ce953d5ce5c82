//! The processes of a cgroup.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Tree, vanished};

/// Whose processes are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The cgroup's own.
    Itself,
    /// Also those of the cgroups below it, as far as [`Tree::list`] lists them.
    WithDescendants,
}

impl Tree {
    /// The ids of the processes in a cgroup; none if there is no such cgroup. Processes that this process
    /// namespace cannot name are left out. A process counts as in a threaded cgroup if one of its threads is.
    ///
    /// # Errors
    ///
    /// When the path is not one of this tree, or when the kernel does not tell.
    pub fn members(&self, path: &str, scope: Scope) -> Result<BTreeSet<u32>> {
        let mut members = processes(&self.directory(path)?)?;
        if scope == Scope::WithDescendants {
            for cgroup in self.list(path)?.cgroups {
                members.append(&mut processes(&self.directory(&cgroup.path)?)?);
            }
        }
        members.remove(&0);
        Ok(members)
    }
}

fn processes(directory: &Path) -> Result<BTreeSet<u32>> {
    let found = match ids(&directory.join("cgroup.procs")) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            ids(&directory.join("cgroup.threads"))
                .map(|threads| threads.into_iter().filter_map(process).collect())
        }
        found => found,
    };
    match found {
        Ok(found) => Ok(found),
        Err(error) if vanished(&error) => Ok(BTreeSet::new()),
        Err(error) => Err(error).with_context(|| format!("reading who is in {}", directory.display())),
    }
}

fn ids(file: &Path) -> io::Result<BTreeSet<u32>> {
    Ok(fs::read_to_string(file)?.lines().filter_map(|line| line.parse().ok()).collect())
}

/// The process of a thread, unless it has ended.
fn process(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}
