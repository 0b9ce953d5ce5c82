//! Where the index lies, and who may touch it when.
//!
//! Two locks: `build` is held by whoever builds a new index beside the one in use; `lock` is shared by readers and held
//! alone for the moments in which the index is changed or exchanged. Both are let go by the system when their holder dies.

use super::IndexError;
use super::schema::Coverage;
use crate::file_lock::try_alone;
use crate::record::entries::EventSource;
use crate::whole_file::sync_directory;
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The directory of an index.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
}

/// A lock, until it is dropped.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

impl Files {
    /// Those in a state directory.
    #[must_use]
    pub fn in_state(state_dir: &Path) -> Self {
        Self { directory: state_dir.join("index") }
    }

    /// The index in use.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.directory.join("events.db")
    }

    /// The index being built.
    #[must_use]
    pub fn unfinished(&self) -> PathBuf {
        self.directory.join("events.db.new")
    }

    /// Makes the directory, for its owner only.
    pub(super) fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    fn lock_file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(self.directory.join(name))
    }

    /// Only one builds.
    pub(super) fn lock_build(&self) -> Result<Held, IndexError> {
        let file = self.lock_file("build")?;
        if try_alone(&file)? { Ok(Held { _file: file }) } else { Err(IndexError::Busy) }
    }

    /// Nobody reads or writes meanwhile.
    pub(super) fn lock_alone(&self) -> io::Result<Held> {
        let file = self.lock_file("lock")?;
        file.lock()?;
        Ok(Held { _file: file })
    }

    /// Nobody writes meanwhile.
    pub(super) fn lock_shared(&self) -> Result<Held, IndexError> {
        if !self.index().exists() {
            return Err(IndexError::Missing);
        }
        let file = self.lock_file("lock")?;
        file.lock_shared()?;
        Ok(Held { _file: file })
    }

    /// Removes a database and what SQLite keeps beside it.
    pub(super) fn remove(&self, database: &Path) -> io::Result<()> {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let mut name = database.as_os_str().to_owned();
            name.push(suffix);
            match fs::remove_file(Path::new(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Throws the index away. What asks meanwhile reads the log.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn discard(&self) -> io::Result<()> {
        self.make()?;
        let _alone = self.lock_alone()?;
        self.remove(&self.index())
    }

    /// Puts the new index into the place of the one in use.
    pub(super) fn exchange(&self) -> io::Result<()> {
        let _alone = self.lock_alone()?;
        File::open(self.unfinished())?.sync_all()?;
        // A journal of the old one would be applied to the new one.
        self.remove(&self.index())?;
        fs::rename(self.unfinished(), self.index())?;
        sync_directory(&self.directory)
    }

    /// Opens the index in use, which covers this log.
    pub(super) fn open(
        &self,
        source: &dyn EventSource,
        writable: bool,
    ) -> Result<(Connection, Coverage), IndexError> {
        let path = self.index();
        if !path.exists() {
            return Err(IndexError::Missing);
        }
        let mode =
            if writable { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let coverage = Coverage::read(&connection)?;
        if coverage.entries > 0 {
            let last = source.entries_at(&[coverage.last])?.pop().flatten();
            let same = last.is_some_and(|line| super::schema::digest(&line) == coverage.last_sha256);
            if !same {
                return Err(IndexError::OtherLog);
            }
        }
        Ok((connection, coverage))
    }
}
