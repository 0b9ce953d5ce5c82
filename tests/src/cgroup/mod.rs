//! Cgroups (v2) of a test's own, and processes that are born in them.
//!
//! A socket belongs to the cgroup of the process that made it, and all threads of a process share its cgroup.
//! What is to come from a cgroup is therefore done by a process of its own: any command, or
//! `agentsec-lab traffic …` (see [`traffic::alone`](crate::traffic::alone)).

mod member;
pub mod scene;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use agentsec::kernel::cgroups::{Scope, Tree};
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::binary::Program;
use crate::netns::Namespace;
use crate::{unique, wait};

pub use member::Member;

/// How long the processes of a cgroup may take to die.
const DYING: Duration = Duration::from_secs(10);

/// A cgroup. When it is dropped, everything in it and below it is killed and removed.
#[derive(Debug)]
pub struct Cgroup {
    tree: Tree,
    path: String,
    id: u64,
}

impl Cgroup {
    /// Makes one right below the tree's root, whose name is unique and ends in `name`.
    pub fn new(name: &str) -> Result<Self> {
        let tree = Tree::find().context("these fixtures need cgroup v2")?;
        let path = format!("{}-{name}", unique::name("as"));
        Self::make(tree, path)
    }

    /// Makes one inside this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.tree.clone(), format!("{}/{name}", self.path))
    }

    fn make(tree: Tree, path: String) -> Result<Self> {
        let directory = tree.mount().join(&path);
        let made = fs::create_dir(&directory);
        made.with_context(|| format!("making {} (these fixtures need root)", directory.display()))?;
        let id = fs::metadata(&directory)?.ino();
        Ok(Self { tree, path, id })
    }

    /// Its path below the tree's root, without a leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the kernel knows it by.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.tree.mount().join(&self.path)
    }

    /// Starts a command that is in this cgroup, and in `namespace` if one is given, before it does anything.
    /// Its standard input and output are pipes.
    pub fn spawn(&self, namespace: Option<&Namespace>, mut command: Command) -> Result<Member> {
        let file = self.directory().join("cgroup.procs");
        let entrance = OpenOptions::new().write(true).open(&file);
        let entrance = entrance.with_context(|| format!("opening {}", file.display()))?;
        let namespace = namespace.cloned();
        let enter = move || {
            // The kernel takes 0 for the process that writes.
            nix::unistd::write(&entrance, b"0")?;
            if let Some(namespace) = &namespace {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes two system calls, which allocate nothing and take no
        // lock; the descriptors are open because the closure holds their owners.
        unsafe { command.pre_exec(enter) };
        Member::start(command)
    }

    /// Starts `agentsec-lab traffic ARGUMENTS` in this cgroup, and in `namespace` if one is given.
    pub fn traffic(&self, namespace: Option<&Namespace>, arguments: &[&str]) -> Result<Member> {
        let mut command = Command::new(Program::Lab.find());
        command.arg("traffic").args(arguments);
        self.spawn(namespace, command)
    }

    /// Starts the same, but as a process that does nothing, and makes no socket, until it is told a line.
    pub fn traffic_when_told(&self, namespace: Option<&Namespace>, arguments: &[&str]) -> Result<Member> {
        let mut command = Command::new("sh");
        command.args(["-c", "read -r line && exec \"$0\" traffic \"$@\""]);
        command.arg(Program::Lab.find()).args(arguments);
        self.spawn(namespace, command)
    }

    /// Moves a running process here. Sockets that it has already stay where they are.
    pub fn adopt(&self, process: u32) -> Result<()> {
        let file = self.directory().join("cgroup.procs");
        fs::write(&file, process.to_string())
            .with_context(|| format!("moving the process {process} to {}", self.path))
    }

    /// Whether a process is in this cgroup or below it.
    pub fn holds(&self, process: u32) -> Result<bool> {
        Ok(self.tree.members(&self.path, Scope::WithDescendants)?.contains(&process))
    }

    /// Kills everything in it and removes it with what is below it; so does dropping it, but tells nobody.
    pub fn remove(self) -> Result<()> {
        self.clear()
    }

    fn clear(&self) -> Result<()> {
        let directory = self.directory();
        if !directory.exists() {
            return Ok(());
        }
        fs::write(directory.join("cgroup.kill"), "1").context("killing what is in a cgroup")?;
        let what = format!("the cgroup {} to be empty and go", self.path);
        // The dying leave in their own time, and something may be born meanwhile.
        wait::until(&what, DYING, || self.remove_all().ok())
    }

    fn remove_all(&self) -> Result<()> {
        let below = self.tree.list(&self.path)?.cgroups;
        // Parents are listed before their children.
        let paths = below.iter().rev().map(|cgroup| &cgroup.path).chain([&self.path]);
        for path in paths {
            match fs::remove_dir(self.tree.mount().join(path)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A destructor has nobody to tell; a cgroup that stays is uniquely named and harms nothing.
        let _ = self.clear();
    }
}
