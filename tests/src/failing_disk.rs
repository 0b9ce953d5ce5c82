//! Disks that fail for real: file systems on loop devices over files that take no more.
//!
//! Who writes to such a file system is told by a sync, as with a disk that dies, and not by the write.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Bytes of these disks.
const DISK_BYTES: u64 = 64 << 20;
/// Bytes that can really be written to a [`ThinDisk`].
const THIN_BYTES: &str = "size=24m,mode=0700";

/// A file system on a loop device.
#[derive(Debug)]
struct Mounted {
    directory: PathBuf,
    device: PathBuf,
}

impl Mounted {
    /// The file system in `image`, over `directory`, until this is dropped.
    fn over(directory: &Path, image: &Path) -> Result<Self> {
        let device = said(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        let mounted = Self { directory: directory.to_owned(), device: device.trim_end().into() };
        mounted.mount()?;
        Ok(mounted)
    }

    fn mount(&self) -> Result<()> {
        let flags = MsFlags::MS_NOATIME;
        mount(Some(&self.device), &self.directory, Some("ext4"), flags, None::<&str>)
            .with_context(|| format!("mounting {}", self.device.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A destructor has nobody to tell.
        let _ = umount2(&self.directory, MntFlags::MNT_DETACH);
        let _ = said(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

/// Without a journal, which would end the file system for good when it cannot be written.
fn make_file_system(image: &Path) -> Result<()> {
    said(Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal"]).arg(image)).map(drop)
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A disk with less behind it than it says: syncs fail while that is full, and work again when there is room.
#[derive(Debug)]
pub struct ThinDisk {
    mounted: Mounted,
    behind: PathBuf,
}

impl ThinDisk {
    /// Over `directory`; what is behind it lies in `behind`, which is empty.
    pub fn over(directory: &Path, behind: &Path) -> Result<Self> {
        mount(Some("tmpfs"), behind, Some("tmpfs"), MsFlags::empty(), Some(THIN_BYTES))
            .context("mounting a tmpfs")?;
        let image = behind.join("image");
        File::create(&image)?.set_len(DISK_BYTES)?;
        make_file_system(&image)?;
        Ok(Self { mounted: Mounted::over(directory, &image)?, behind: behind.to_owned() })
    }

    /// From now on what needs new room is lost.
    pub fn fail(&self) -> Result<()> {
        let mut filler = File::create(self.behind.join("filler"))?;
        while filler.write_all(&[0; 4096]).is_ok() {}
        Ok(())
    }

    /// From now on there is room again.
    pub fn mend(&self) -> Result<()> {
        Ok(fs::remove_file(self.behind.join("filler"))?)
    }

    /// Forgets what is only in memory, as a machine that stops does.
    pub fn forget(&self) -> Result<()> {
        umount2(&self.mounted.directory, MntFlags::empty()).context("unmounting")?;
        self.mounted.mount()
    }
}

impl Drop for ThinDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.mounted.directory, MntFlags::MNT_DETACH);
        let _ = umount2(&self.behind, MntFlags::MNT_DETACH);
    }
}

/// A disk that breaks: it can still be read, and every write to it is an I/O error.
#[derive(Debug)]
pub struct BreakingDisk {
    mounted: Mounted,
    image: File,
}

impl BreakingDisk {
    /// Over `directory`.
    pub fn over(directory: &Path) -> Result<Self> {
        let image = memory(|path| {
            let image = fs::OpenOptions::new().write(true).open(path)?;
            image.set_len(DISK_BYTES)?;
            make_file_system(path)
        })?;
        Ok(Self { mounted: Mounted::over(directory, &path_of(&image))?, image })
    }

    /// Breaks it, for good.
    pub fn fail(&self) -> Result<()> {
        let seal = SealFlag::from_bits_retain(libc::F_SEAL_FUTURE_WRITE);
        fcntl(&self.image, FcntlArg::F_ADD_SEALS(seal)).context("sealing the disk").map(drop)
    }

    /// A good disk in its place, with what has reached this one.
    pub fn rescue(self) -> Result<Self> {
        let directory = self.mounted.directory.clone();
        umount2(&directory, MntFlags::empty()).context("unmounting")?;
        let image = memory(|path| Ok(fs::copy(path_of(&self.image), path).map(drop)?))?;
        drop(self);
        Ok(Self { mounted: Mounted::over(&directory, &path_of(&image))?, image })
    }
}

/// A file system that takes no more: who writes to it hangs, until this is dropped.
#[derive(Debug)]
pub struct Hanging(PathBuf);

impl Hanging {
    /// The file system over `directory`.
    pub fn at(directory: &Path) -> Result<Self> {
        said(Command::new("fsfreeze").arg("--freeze").arg(directory))?;
        Ok(Self(directory.to_owned()))
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = said(Command::new("fsfreeze").arg("--unfreeze").arg(&self.0));
    }
}

/// A file in memory that can be sealed, and what is done to make it.
fn memory(make: impl FnOnce(&Path) -> Result<()>) -> Result<File> {
    let image: File = memfd_create(c"disk", MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC)
        .map_err(io::Error::from)
        .context("making a file in memory")?
        .into();
    make(&path_of(&image))?;
    Ok(image)
}

/// By which any process of ours opens it.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}
