//! The key file: whoever has it reads every snapshot, so nobody but root may.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::core::hex::hex;

use super::error::{Failure, Kind};

/// Random bytes of a new key.
const KEY_BYTES: usize = 32;

/// Checks the key file, or makes one where none is.
///
/// # Errors
///
/// When it is no file of this user's that only this user may read, or cannot be made.
pub fn ensure(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => check(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path),
        Err(error) => Err(Failure::io(format!("the key file {}", path.display()))(error)),
    }
}

/// Checks that the key file is there and nobody else's to read.
///
/// # Errors
///
/// When it is not.
pub fn check(path: &Path) -> Result<(), Failure> {
    let bad = |why: String| Failure::new(Kind::Key, format!("the key file {} {why}", path.display()));
    let about = fs::symlink_metadata(path).map_err(|error| bad(format!("cannot be used: {error}")))?;
    if !about.is_file() {
        return Err(bad("is not a regular file".into()));
    }
    if about.mode() & 0o077 != 0 {
        return Err(bad(format!("has mode {:04o}; it must be 0600 or stricter", about.mode() & 0o7777)));
    }
    if about.uid() != nix::unistd::geteuid().as_raw() {
        return Err(bad(format!("belongs to uid {}, not to this process's user", about.uid())));
    }
    if about.len() == 0 {
        return Err(bad("is empty".into()));
    }
    Ok(())
}

/// Written beside and linked into place, so that no crash leaves half a key and no two makers disagree.
fn make(path: &Path) -> Result<(), Failure> {
    let failed = || Failure::io(format!("making the key file {}", path.display()));
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed())?;
    let mut random = [0; KEY_BYTES];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random)).map_err(failed())?;
    let text = hex(&random);
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed())?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&beside, path));
    let _ = fs::remove_file(&beside);
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => check(path),
        other => other.map_err(failed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/key");
        ensure(&path).unwrap();
        let key = fs::read(&path).unwrap();
        assert_eq!((key.len(), fs::metadata(&path).unwrap().mode() & 0o7777), (2 * KEY_BYTES, 0o600));
        ensure(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), key);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for (mode, content) in [(0o640, "k"), (0o604, "k"), (0o600, "")] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(ensure(&path).unwrap_err().kind, Kind::Key, "{mode:o} {content:?}");
        }
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(ensure(&link).unwrap_err().message.contains("regular"));
    }
}
