//! A disk that is soon full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A very small file system over a directory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Over `directory`, until this is dropped.
    pub fn over(directory: &Path) -> Result<Self> {
        let size = Some("size=256k,mode=0700");
        mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), size).context("mounting a tmpfs")?;
        Ok(Self(directory.to_owned()))
    }

    /// Fills it to its last byte.
    pub fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("filler");
        let mut file = File::create(&path)?;
        for size in [4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A destructor has nobody to tell.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
