//! The network namespaces of this machine, as far as they are found.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// So many namespaces are looked into at most.
pub const MOST_NAMESPACES: usize = 4096;

/// Where `ip netns add` and container runtimes give names.
const NAMES: &str = "/run/netns";

/// Where namespaces can be opened, by inode number.
pub(super) struct Found {
    pub(super) own: u64,
    pub(super) paths: BTreeMap<u64, PathBuf>,
    pub(super) beyond: u64,
}

/// Every namespace but `own`.
pub(super) fn all(own: &File) -> Result<Found> {
    let own = own.metadata().context("looking at our own network namespace")?.ino();
    let mut paths = BTreeMap::new();
    of_processes(&mut paths)?;
    with_names(&mut paths);
    paths.remove(&own);
    let beyond = paths.len().saturating_sub(MOST_NAMESPACES) as u64;
    while paths.len() > MOST_NAMESPACES {
        paths.pop_last();
    }
    Ok(Found { own, paths, beyond })
}

/// Entries of `/proc` that are numbers, each with the inode number that its namespace's link tells. There are at
/// most as many as `kernel.pid_max` allows.
fn of_processes(paths: &mut BTreeMap<u64, PathBuf>) -> Result<()> {
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let Ok(entry) = entry else { continue };
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let path = entry.path().join("ns/net");
        if let Some(inode) = inode_of(&path) {
            paths.entry(inode).or_insert(path);
        }
    }
    Ok(())
}

/// A name goes before a process: it stays.
fn with_names(paths: &mut BTreeMap<u64, PathBuf>) {
    let Ok(entries) = fs::read_dir(NAMES) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if let Some((inode, _)) = open(&path) {
            paths.insert(inode, path);
        }
    }
}

/// `net:[4026531840]`; none for a process that has ended.
fn inode_of(path: &Path) -> Option<u64> {
    let link = fs::read_link(path).ok()?;
    link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Opens a namespace; a file that only has its name is none.
pub(super) fn open(path: &Path) -> Option<(u64, File)> {
    let file = File::open(path).ok()?;
    let is_namespace = fstatfs(&file).is_ok_and(|about| about.filesystem_type() == NSFS_MAGIC);
    let inode = file.metadata().ok()?.ino();
    is_namespace.then_some((inode, file))
}

/// Whether a process is still in that namespace.
pub(super) fn is_there(inode: u64, path: &Path) -> bool {
    inode_of(path) == Some(inode)
}
