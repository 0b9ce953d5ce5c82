//! Network namespaces that vanish with their last user.
//!
//! A [`Namespace`] is a file descriptor. When the test is killed, the kernel closes it and takes the namespace
//! and its interfaces away, so a crashed run leaves nothing behind. [`Namespace::named`] adds a name
//! under `/run/netns` for people who want to look inside with `ip netns exec`.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::unique;

/// A network namespace; clones share it, and the last one to go takes it along.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    fd: OwnedFd,
    mounted: Option<PathBuf>,
}

impl Namespace {
    /// Makes a namespace that only this process (and the children it puts there) can reach.
    pub fn new(role: &str) -> Result<Self> {
        let fd = new_namespace().with_context(|| format!("making a network namespace for {role}"))?;
        Ok(Self { inner: Arc::new(Inner { name: unique_name(role), fd, mounted: None }) })
    }

    /// Makes a namespace that `ip netns exec NAME` finds too; see [`Namespace::name`].
    ///
    /// The name outlives a killed process, which is what `--keep` is for.
    pub fn named(role: &str) -> Result<Self> {
        let fd = new_namespace().with_context(|| format!("making a network namespace for {role}"))?;
        let name = unique_name(role);
        let path = Path::new("/run/netns").join(&name);
        fs::create_dir_all("/run/netns").context("making /run/netns")?;
        File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
        let source = proc_path(fd.as_raw_fd());
        mount(Some(source.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("naming a namespace {name}"))?;
        Ok(Self { inner: Arc::new(Inner { name, fd, mounted: Some(path) }) })
    }

    /// Its name: unique on this machine, and under `/run/netns` only if it was made by [`Namespace::named`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A path by which other processes can name it, as in `ip link set … netns PATH`.
    #[must_use]
    pub fn path(&self) -> String {
        proc_path(self.inner.fd.as_raw_fd())
    }

    /// The namespace's inode number: what the kernel and `lsns` know it by.
    pub fn inode(&self) -> Result<u64> {
        Ok(fs::metadata(self.path()).context("reading a namespace's inode")?.ino())
    }

    /// Leaves the name (if it has one) in place for good.
    pub fn keep(self) {
        if self.inner.mounted.is_some() {
            std::mem::forget(self);
        }
    }

    /// Runs `work` on a fresh thread inside the namespace. Sockets made there stay there wherever they are
    /// used afterwards, and threads started there are inside as well.
    ///
    /// # Panics
    /// When the thread cannot enter the namespace, and when `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a thread that works inside the namespace and keeps it alive meanwhile.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<T>> {
        let namespace = self.clone();
        let inside = move || {
            namespace.enter();
            work()
        };
        thread::Builder::new().name(name.to_owned()).spawn(inside).context("starting a thread")
    }

    /// A command that will run inside. Only its *network* namespace differs from ours: `/sys/fs/bpf` is the same
    /// one, and so, for the same reason, is `/sys/class/net`.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let inner = Arc::clone(&self.inner);
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call, which allocates nothing and
        // takes no lock; the descriptor is open because the closure holds its owner.
        unsafe { command.pre_exec(move || Ok(setns(&inner.fd, CloneFlags::CLONE_NEWNET)?)) };
        command
    }

    fn enter(&self) {
        if let Err(error) = setns(&self.inner.fd, CloneFlags::CLONE_NEWNET) {
            panic!("cannot enter the namespace {}: {error} (these fixtures need root)", self.inner.name);
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(path) = &self.mounted else { return };
        // A destructor has nobody to tell; a name that stays is unique and harms nothing.
        let _ = umount2(path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(path);
    }
}

/// A thread of its own makes the namespace, so that the caller never leaves the one it is in.
fn new_namespace() -> Result<OwnedFd> {
    let make = || -> Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET): these fixtures need root")?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    };
    thread::spawn(make).join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

fn proc_path(fd: i32) -> String {
    format!("/proc/{}/fd/{fd}", std::process::id())
}

fn unique_name(role: &str) -> String {
    format!("{}-{role}", unique::name("as"))
}
