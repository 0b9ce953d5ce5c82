//! Where programs and maps are pinned, and who may touch them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agentsec_common::maps::LAYOUT_VERSION;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::statfs;

use crate::file_lock::try_alone;

use super::hook::LinkName;

/// The pin directory of one installation.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// Held while a daemon or a break-glass command works on the pins.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

impl Pins {
    /// Pins below `root`, a directory on a bpffs.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory given.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of this layout.
    #[must_use]
    pub fn layout(&self) -> PathBuf {
        self.root.join(format!("v{LAYOUT_VERSION}"))
    }

    /// Directory of the pinned maps.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.layout().join("maps")
    }

    /// Pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Directory of the pinned links.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.layout().join("links")
    }

    /// Pin of a link.
    #[must_use]
    pub fn link(&self, link: &LinkName) -> PathBuf {
        self.links().join(link.to_string())
    }

    /// Layout directories found that are not this version's.
    pub fn foreign_layouts(&self) -> Vec<String> {
        let ours = self.layout();
        entries(&self.root)
            .into_iter()
            .filter(|path| *path != ours && path.is_dir())
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .filter(|name| name.strip_prefix('v').is_some_and(|version| version.parse::<u32>().is_ok()))
            .collect()
    }

    /// The pinned links, by name.
    #[must_use]
    pub fn pinned_links(&self) -> Vec<LinkName> {
        let mut links: Vec<_> = entries(&self.links())
            .iter()
            .filter_map(|path| LinkName::parse(path.file_name()?.to_str()?))
            .collect();
        links.sort_unstable();
        links
    }

    /// Locks the pins, making their directory first.
    ///
    /// # Errors
    ///
    /// When the path is not on a bpffs, or when somebody else holds the lock: the error says who.
    pub fn lock(&self) -> Result<Lock> {
        self.require_bpffs()?;
        fs::create_dir_all(&self.root)
            .with_context(|| format!("cannot make the pin directory {}", self.root.display()))?;
        self.lock_existing()
    }

    /// Locks pins that exist.
    ///
    /// # Errors
    ///
    /// As [`Self::lock`], and when there are none.
    pub fn lock_existing(&self) -> Result<Lock> {
        let directory =
            File::open(&self.root).with_context(|| format!("cannot open {}", self.root.display()))?;
        let metadata = directory.metadata()?;
        let is_ours =
            try_alone(&directory).with_context(|| format!("cannot lock {}", self.root.display()))?;
        ensure!(is_ours, "{} are in use by {}", self.root.display(), holder(&metadata));
        Ok(Lock { _directory: directory })
    }

    /// The nearest existing directory must be on a bpffs.
    fn require_bpffs(&self) -> Result<()> {
        let existing = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let filesystem = statfs::statfs(existing)
            .with_context(|| format!("cannot look at the file system of {}", existing.display()))?
            .filesystem_type();
        if filesystem != statfs::BPF_FS_MAGIC {
            bail!(
                "the pin path {} is not on a bpffs: mount one with `mount -t bpf bpf /sys/fs/bpf`, or give \
                 another --pin-path",
                self.root.display()
            );
        }
        Ok(())
    }
}

/// Who holds the lock on a directory, as `/proc/locks` tells it: no file of ours can be stale.
fn holder(directory: &fs::Metadata) -> String {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let inode = format!(":{}", directory.ino());
    let holder = locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, pid, file) = (fields.next()?, fields.nth(2)?, fields.next()?);
        (kind == "FLOCK" && file.ends_with(&inode)).then_some(pid)
    });
    match holder {
        Some(pid) => {
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("process {pid} ({})", command.replace('\0', " ").trim_end())
        }
        None => "another process".to_owned(),
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    }
}

/// Removes a pin; one that is not there is as good as removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
