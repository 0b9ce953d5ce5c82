//! Files that a crash leaves whole: the old one or the new one. Only their owner reads them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Replaces a file, or makes it. Afterwards it outlasts a crash of the machine.
///
/// # Errors
///
/// When it cannot be written or synced. Until it is renamed, the old one stays.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_by(path, &beside(path), bytes)
}

/// The same by a file of this name, in the same file system: for writers that clean up after themselves, or are several.
///
/// # Errors
///
/// As [`replace`].
pub fn replace_by(path: &Path, beside: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, beside, bytes, File::sync_all)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// The same, but it outlasts a crash of this program only.
///
/// # Errors
///
/// When it cannot be written; the old one stays.
pub fn replace_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, &beside(path), bytes, |_| Ok(()))
}

/// Makes a file that must not exist yet, whole or not at all.
///
/// # Errors
///
/// When it exists, or cannot be written; nothing is left then.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = OsString::from(path);
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        rename_new(&beside, path)
    })();
    let _ = fs::remove_file(&beside);
    written
}

/// Syncs the names in a directory.
///
/// # Errors
///
/// When it cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn put(path: &Path, beside: &Path, bytes: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(beside)?;
        file.write_all(bytes)?;
        sync(&file)?;
        fs::rename(beside, path)
    })();
    if written.is_err() {
        // What is half written takes no room on a disk that is full. The error that matters is told already.
        let _ = fs::remove_file(beside);
    }
    written
}

/// Renames, but never takes the place of anything.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // File systems that are elsewhere do not know how; those without links, such as a stick's, do.
        Err(Errno::EINVAL) => fs::hard_link(from, to),
        renamed => Ok(renamed?),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut beside = OsString::from(path);
    beside.push(".new");
    beside.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_read_by_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let other = directory.path().join("unfinished");
        for number in 0..3u8 {
            let bytes = [number];
            match number {
                0 => replace(&path, &bytes),
                1 => replace_by(&path, &other, &bytes),
                _ => replace_unsynced(&path, &bytes),
            }
            .unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
        }
    }

    #[test]
    fn a_new_file_takes_the_place_of_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        create(&path, b"1").unwrap();
        assert_eq!(create(&path, b"2").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"1");
        assert!(create(&directory.path().join("none/a"), b"1").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_replaced_stays_and_nothing_lies_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::create_dir_all(path.join("not empty")).unwrap();
        assert!(replace(&path, b"1").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
