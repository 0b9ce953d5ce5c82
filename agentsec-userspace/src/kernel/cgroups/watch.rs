//! A bell that rings when cgroups appear or vanish.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::list::children;
use super::{MOST_CGROUPS, MOST_LEVELS, Tree, child, level};

const CHANGES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM);

/// So often the queue (4 KiB each time) is read at most before a ring is reported.
const MOST_READS: u32 = 256;

/// How much of the tree rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// All of it.
    Whole,
    /// A part: the kernel (`fs.inotify.max_user_watches`) or [`MOST_CGROUPS`] allows no more watches. Whoever
    /// needs to know all changes has to look again from time to time; see [`Watch::look_again`].
    Partial {
        /// Cgroups whose children come and go unheard. What is below them is not counted.
        unwatched: u64,
    },
}

/// Rings when cgroups have appeared or vanished anywhere in the tree. What has changed is found by listing the
/// tree again, so a lost message means nothing.
pub struct Watch {
    tree: Tree,
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
    pub(super) watched: Watched,
    pub(super) most: usize,
    unwatched: u64,
}

impl Watch {
    /// Watches. What appears or vanishes from now on rings.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or when the tree cannot be read. Too few watches are no error: see
    /// [`Watch::coverage`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(tree: &Tree) -> Result<Self> {
        Self::with_at_most(tree, MOST_CGROUPS)
    }

    pub(super) fn with_at_most(tree: &Tree, most: usize) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .context("watching the cgroups: see fs.inotify.max_user_instances")?;
        let own = inotify.as_fd().try_clone_to_owned().context("another descriptor of a watch")?;
        // SAFETY: an owned descriptor stays the same and open as long as its owner, which the watch keeps.
        let ready = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }
            .context("waiting for changes of cgroups")?;
        let mut watch =
            Self { tree: tree.clone(), inotify, ready, watched: Watched::default(), most, unwatched: 0 };
        watch.look_again()?;
        Ok(watch)
    }

    /// How much of the tree rings, as of the last ring or look.
    #[must_use]
    pub const fn coverage(&self) -> Coverage {
        match self.unwatched {
            0 => Coverage::Whole,
            unwatched => Coverage::Partial { unwatched },
        }
    }

    /// Waits for a change, takes all that have been told, and watches what has appeared. Nothing is lost when
    /// it is cancelled.
    ///
    /// # Errors
    ///
    /// When the watch fails for good.
    pub async fn ring(&mut self) -> Result<()> {
        loop {
            let mut ready = self.ready.readable().await.context("waiting for changes of cgroups")?;
            let (events, empty) = drain(&self.inotify)?;
            if empty {
                ready.clear_ready();
            }
            drop(ready);
            let mut rings = false;
            for event in &events {
                rings |= self.take(event)?;
            }
            if rings {
                return Ok(());
            }
        }
    }

    /// Walks the whole tree, watches what is not watched, as far as there is room, and gives up the watches of
    /// what is gone.
    ///
    /// # Errors
    ///
    /// When the tree cannot be read.
    pub fn look_again(&mut self) -> Result<()> {
        self.unwatched = 0;
        // A directory that is watched already keeps its number.
        let before = std::mem::take(&mut self.watched);
        self.watch(String::new())?;
        for number in before.paths.into_keys().filter(|number| !self.watched.paths.contains_key(number)) {
            give_up(&self.inotify, number);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn as_raw_fd(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(&self.inotify.as_fd())
    }

    /// Takes what the kernel tells; whether that is a change.
    fn take(&mut self, event: &InotifyEvent) -> Result<bool> {
        let told = event.mask;
        if told.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            self.look_again()?;
            return Ok(true);
        }
        if !told.contains(AddWatchFlags::IN_ISDIR) {
            return Ok(false);
        }
        let name = event.name.as_deref().and_then(|name| name.to_str());
        let (Some(parent), Some(name)) = (self.watched.paths.get(&event.wd), name) else { return Ok(true) };
        let path = child(parent, name);
        if told.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO) {
            self.watch(path)?;
        } else if let Some(number) = self.watched.remove(&path) {
            // If the path has been made again, this was the new one's watch; its own message comes next.
            give_up(&self.inotify, number);
        }
        Ok(true)
    }

    /// Watches a cgroup and then what is in it, so that what is made in between is found.
    fn watch(&mut self, path: String) -> Result<()> {
        let mut waiting = vec![path];
        while let Some(path) = waiting.pop() {
            if !self.watch_one(&path)? {
                self.unwatched += 1;
                continue;
            }
            for name in children(&self.tree.directory(&path)?)?.into_iter().filter_map(|entry| entry.name) {
                waiting.push(child(&path, &name));
            }
        }
        Ok(())
    }

    /// Watches one cgroup; false if there is no room. One that is gone needs no watch.
    fn watch_one(&mut self, path: &str) -> Result<bool> {
        if level(path) > MOST_LEVELS || self.watched.paths.len() >= self.most {
            return Ok(false);
        }
        let directory = self.tree.directory(path)?;
        match self.inotify.add_watch(&directory, CHANGES | AddWatchFlags::IN_ONLYDIR) {
            Ok(number) => {
                if let Some(earlier) = self.watched.insert(number, path) {
                    give_up(&self.inotify, earlier);
                }
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV) => {}
            Err(Errno::ENOSPC | Errno::ENOMEM) => return Ok(false),
            Err(error) => {
                return Err(error).with_context(|| format!("watching {}", directory.display()));
            }
        }
        Ok(true)
    }
}

/// The watched directories, both ways.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) paths: HashMap<WatchDescriptor, String>,
    numbers: HashMap<String, WatchDescriptor>,
}

impl Watched {
    /// Enters a watch; gives that of an earlier directory of the same path.
    fn insert(&mut self, number: WatchDescriptor, path: &str) -> Option<WatchDescriptor> {
        self.paths.insert(number, path.to_owned());
        let earlier = self.numbers.insert(path.to_owned(), number).filter(|earlier| *earlier != number)?;
        self.paths.remove(&earlier);
        Some(earlier)
    }

    fn remove(&mut self, path: &str) -> Option<WatchDescriptor> {
        let number = self.numbers.remove(path)?;
        self.paths.remove(&number);
        Some(number)
    }
}

/// Gives up a watch. The cgroup file system does not do so when a directory is removed: without this, each
/// cgroup that ever was would keep its watch and its inode.
fn give_up(inotify: &Inotify, number: WatchDescriptor) {
    // One that the kernel has given up by itself is not there any more, which is as good.
    let _ = inotify.rm_watch(number);
}

/// What the kernel has told, and whether that was all.
fn drain(inotify: &Inotify) -> Result<(Vec<InotifyEvent>, bool)> {
    let mut events = Vec::new();
    for _ in 0..MOST_READS {
        match inotify.read_events() {
            Ok(mut more) => events.append(&mut more),
            Err(Errno::EAGAIN) => return Ok((events, true)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("reading changes of cgroups"),
        }
    }
    Ok((events, false))
}
