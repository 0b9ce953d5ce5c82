//! Listing the tree.

use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};

use super::{Tree, child, level, vanished};

/// So many cgroups are listed at most.
pub const MOST_CGROUPS: usize = 65_536;

/// So deep a cgroup may be to be listed.
pub const MOST_LEVELS: u32 = 16;

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// What the kernel knows it by: the inode number of its directory.
    pub id: u64,
    /// Its path below the mounted root, without a leading slash.
    pub path: String,
    /// How deep it is; children of the mounted root are at 1.
    pub level: u32,
}

/// What a walk over the tree has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The cgroups, parents before their children.
    pub cgroups: Vec<Cgroup>,
    /// Cgroups left out because they are too many or too deep. What is below them is not counted.
    pub beyond: u64,
    /// Cgroups left out, with what is below them, because their names are not UTF-8.
    pub unnamed: u64,
}

/// A child as its parent's directory tells it; no name if it is not UTF-8.
pub(super) struct Entry {
    pub(super) name: Option<String>,
    pub(super) id: u64,
}

impl Tree {
    /// One cgroup; none if there is no such cgroup.
    ///
    /// # Errors
    ///
    /// When the path is not one of this tree, or when the kernel does not tell.
    pub fn get(&self, path: &str) -> Result<Option<Cgroup>> {
        let directory = self.directory(path)?;
        match fs::metadata(&directory) {
            Ok(about) if about.is_dir() => {
                Ok(Some(Cgroup { id: about.ino(), path: path.to_owned(), level: level(path) }))
            }
            Ok(_) => Ok(None),
            Err(error) if vanished(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking at {}", directory.display())),
        }
    }

    /// The cgroups below one, without itself; `""` is the root. None if there is no such cgroup. What is made
    /// or removed meanwhile may be missing or listed.
    ///
    /// # Errors
    ///
    /// When the path is not one of this tree, or when a directory cannot be read.
    pub fn list(&self, below: &str) -> Result<Listing> {
        self.list_at_most(below, MOST_CGROUPS)
    }

    pub(super) fn list_at_most(&self, below: &str, most: usize) -> Result<Listing> {
        let mut listing = Listing::default();
        self.add_children(below, most, &mut listing)?;
        let mut next = 0;
        while let Some(parent) = listing.cgroups.get(next) {
            let path = parent.path.clone();
            self.add_children(&path, most, &mut listing)?;
            next += 1;
        }
        Ok(listing)
    }

    fn add_children(&self, path: &str, most: usize, listing: &mut Listing) -> Result<()> {
        let level = level(path) + 1;
        for Entry { name, id } in children(&self.directory(path)?)? {
            let Some(name) = name else {
                listing.unnamed += 1;
                continue;
            };
            if level > MOST_LEVELS || listing.cgroups.len() >= most {
                listing.beyond += 1;
                continue;
            }
            listing.cgroups.push(Cgroup { id, path: child(path, &name), level });
        }
        Ok(())
    }
}

/// The children of a cgroup; none if it is gone.
pub(super) fn children(directory: &Path) -> Result<Vec<Entry>> {
    match read(directory) {
        Ok(children) => Ok(children),
        Err(error) if vanished(&error) => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", directory.display())),
    }
}

fn read(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // The directory itself tells both; nothing has to be looked up.
        if entry.file_type()?.is_dir() {
            children.push(Entry { name: entry.file_name().into_string().ok(), id: entry.ino() });
        }
    }
    Ok(children)
}
