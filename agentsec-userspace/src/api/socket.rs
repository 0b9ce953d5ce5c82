//! The socket's file: made safely, removed by whoever holds its lock.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;

use crate::file_lock::try_alone;

use super::peer::operators_gid;

/// A bound socket's file. Dropping it removes the file.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Held locked for as long as the file is ours, so that of two daemons that start at once one is told.
    _lock: File,
}

/// Binds `path`, mode 0660 and of the operators' group, for anybody who has passed the directory.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let directory = path.parent().context("the socket's path has no directory")?;
    make_directory(directory)?;
    let lock = lock(path)?;
    remove_stale(path)?;
    // Bound under another name and moved into place, so that nobody sees it before its permissions are right.
    let unready = path.with_extension(format!("sock.{}", std::process::id()));
    let _ = fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready).with_context(|| format!("binding {}", unready.display()))?;
    let place = || -> std::io::Result<()> {
        fs::set_permissions(&unready, Permissions::from_mode(0o660))?;
        if let Some(gid) = operators_gid() {
            chown(&unready, None, Some(gid))?;
        }
        fs::rename(&unready, path)
    };
    let placed = place().inspect_err(|_| drop(fs::remove_file(&unready)));
    placed.with_context(|| format!("placing the socket {}", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok((listener, SocketFile { path: path.into(), _lock: lock }))
}

fn make_directory(directory: &Path) -> Result<()> {
    let shown = directory.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .with_context(|| format!("creating {shown}"))?;
    let found = fs::symlink_metadata(directory).with_context(|| format!("looking at {shown}"))?;
    ensure!(found.is_dir(), "{shown} is not a directory");
    ensure!(
        found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0,
        "{shown} must belong to uid {} and be writable by nobody else (it is uid {}, mode {:03o}): \
         somebody else could replace the socket",
        geteuid(),
        found.uid(),
        found.mode() & 0o777
    );
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let lock_path = path.with_extension("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .with_context(|| format!("opening {}", lock_path.display()))?;
    let is_ours = try_alone(&lock).with_context(|| format!("locking {}", lock_path.display()))?;
    ensure!(is_ours, "another daemon serves {} (it holds {})", path.display(), lock_path.display());
    Ok(lock)
}

/// Removes a socket that a dead daemon left.
fn remove_stale(path: &Path) -> Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("looking at {shown}")),
        Ok(found) => ensure!(found.file_type().is_socket(), "{shown} exists and is not a socket"),
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another daemon answers on {shown}"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("removing the stale socket {shown}"))
        }
        Err(error) => Err(error).with_context(|| format!("asking who serves {shown}")),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing can be done if it fails; the next daemon removes what is left.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_has_its_mode_and_goes_with_its_owner() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join("deeper/agentsec.sock");
        let (_listener, file) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(UnixStream::connect(&path).is_ok());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_second_daemon_is_refused_and_a_stale_socket_is_replaced() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join("agentsec.sock");
        let (listener, file) = bind(&path).unwrap();
        assert!(bind(&path).err().unwrap().to_string().contains("another daemon"));
        // As after a kill: the file stays, nobody listens, and the lock is free.
        drop(listener);
        file._lock.unlock().unwrap();
        std::mem::forget(file);
        assert!(path.exists() && UnixStream::connect(&path).is_err());
        let (_listener, _next) = bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_daemon_that_answers_without_a_lock_is_left_alone() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join("agentsec.sock");
        let _other = UnixListener::bind(&path).unwrap();
        assert!(bind(&path).err().unwrap().to_string().contains("answers on"));
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn nothing_but_a_socket_is_ever_removed() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join("agentsec.sock");
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path).err().unwrap().to_string().contains("not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let run = tempfile::tempdir().unwrap();
        fs::set_permissions(run.path(), Permissions::from_mode(0o777)).unwrap();
        let refused = bind(&run.path().join("agentsec.sock")).err().unwrap();
        assert!(refused.to_string().contains("writable by nobody else"), "{refused}");
    }
}
