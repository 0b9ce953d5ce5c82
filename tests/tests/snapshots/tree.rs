//! Random trees, and what two trees must have in common to be the same.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

/// Everything about one entry that a restore has to bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    device: u64,
    link: Option<PathBuf>,
    content: Option<Vec<u8>>,
    attributes: BTreeMap<OsString, Vec<u8>>,
    /// The first path, in order, of the same file.
    first_name: PathBuf,
}

/// Every entry below `root`, itself included, but sockets, which exist only while somebody listens.
pub fn entries(root: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut paths = vec![root.to_owned()];
    let mut next = vec![root.to_owned()];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                next.push(entry.path());
            }
            if !entry.file_type()?.is_socket() {
                paths.push(entry.path());
            }
        }
    }
    paths.sort();
    let mut names = BTreeMap::new();
    let mut found = BTreeMap::new();
    for path in paths {
        let about = fs::symlink_metadata(&path)?;
        let relative = path.strip_prefix(root)?.to_owned();
        let first_name = names.entry((about.dev(), about.ino())).or_insert_with(|| relative.clone()).clone();
        let link = about.is_symlink().then(|| fs::read_link(&path)).transpose()?;
        let mut attributes = BTreeMap::new();
        for name in if about.is_file() || about.is_dir() { Some(xattr::list(&path)?) } else { None }
            .into_iter()
            .flatten()
        {
            attributes.insert(name.clone(), xattr::get(&path, &name)?.unwrap_or_default());
        }
        let entry = Entry {
            mode: about.mode(),
            owner: (about.uid(), about.gid()),
            modified: (about.mtime(), about.mtime_nsec()),
            device: if about.file_type().is_char_device() { about.rdev() } else { 0 },
            link,
            content: about.is_file().then(|| fs::read(&path)).transpose()?,
            attributes,
            first_name,
        };
        found.insert(relative, entry);
    }
    Ok(found)
}

/// Makes a random tree of about `count` entries of every kind in the new directory `root`.
pub fn plant(root: &Path, count: usize, random: &mut fastrand::Rng) -> Result<()> {
    fs::create_dir(root)?;
    let (mut directories, mut files) = (vec![root.to_owned()], Vec::new());
    for number in 0..count {
        let parent = directories[random.usize(..directories.len())].clone();
        let path = parent.join(name(number, random));
        match random.u8(..10) {
            0 | 1 => {
                fs::create_dir(&path)?;
                directories.push(path.clone());
            }
            2 => symlink(["..", "../../etc/passwd", "loop", "/nowhere/\u{fc}"][random.usize(..4)], &path)?,
            3 => mknod(&path, SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0)?,
            4 => mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 3))?,
            5 if !files.is_empty() => {
                let old: &PathBuf = &files[random.usize(..files.len())];
                fs::hard_link(old, &path)?;
            }
            6 => sparse(&path, random)?,
            _ => {
                let mut content = vec![0; random.usize(..40_000)];
                random.fill(&mut content);
                fs::write(&path, content)?;
                files.push(path.clone());
            }
        }
    }
    for path in directories.iter().chain(&files) {
        decorate(path, random)?;
    }
    touch(root, random)
}

/// Names of any bytes but those that no name has.
fn name(number: usize, random: &mut fastrand::Rng) -> OsString {
    let mut bytes = format!("{number:x}").into_bytes();
    bytes.extend((0..random.usize(..12)).map(|_| match random.u8(1..) {
        b'/' => b'-',
        byte => byte,
    }));
    OsString::from_vec(bytes)
}

fn sparse(path: &Path, random: &mut fastrand::Rng) -> Result<()> {
    let mut file = File::create(path)?;
    file.seek(SeekFrom::Start(random.u64(..3_000_000)))?;
    file.write_all(b"at the end of a hole")?;
    Ok(())
}

fn decorate(path: &Path, random: &mut fastrand::Rng) -> Result<()> {
    std::os::unix::fs::chown(path, Some(random.u32(..70_000)), Some(random.u32(..70_000)))?;
    let mode = [0o000, 0o400, 0o640, 0o755, 0o1777, 0o2750, 0o4711, 0o7777][random.usize(..8)];
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if random.bool() {
        let value: Vec<u8> = (0..random.usize(..60)).map(|_| random.u8(..)).collect();
        xattr::set(path, "user.\u{fc}", &value)?;
    }
    Ok(())
}

/// Times with nanoseconds for everything, directories last: making entries changes them.
fn touch(root: &Path, random: &mut fastrand::Rng) -> Result<()> {
    let mut paths: Vec<PathBuf> = entries(root)?.into_keys().map(|path| root.join(path)).collect();
    paths.reverse();
    for path in paths {
        let at = TimeSpec::new(random.i64(0..2_000_000_000), random.i64(0..1_000_000_000));
        utimensat(nix::fcntl::AT_FDCWD, path.as_os_str(), &at, &at, UtimensatFlags::NoFollowSymlink)?;
    }
    Ok(())
}
