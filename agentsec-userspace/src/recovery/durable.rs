//! What recovery keeps in files that a crash leaves whole.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::whole_file;

use super::error::{Failure, Kind};

/// Writes beside, syncs, renames.
///
/// # Errors
///
/// When it cannot be written; the old file stays.
pub fn save(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Failure::new(Kind::Other, format!("{}: {error}", path.display())))?;
    whole_file::replace(path, &bytes).map_err(Failure::io(format!("cannot save {}", path.display())))
}

/// The value in a file; `None` when there is no file.
///
/// # Errors
///
/// When it cannot be read or understood.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::io(path.display())(error)),
    };
    let understood = serde_json::from_slice(&bytes).map(Some);
    understood.map_err(|error| {
        Failure::new(Kind::Other, format!("{} cannot be understood: {error}", path.display()))
    })
}

/// Removes a file for good. One that is not there is what was wanted.
///
/// # Errors
///
/// When it stays.
pub fn remove(path: &Path) -> Result<(), Failure> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| path.parent().map_or(Ok(()), whole_file::sync_directory)),
    };
    removed.map_err(Failure::io(format!("cannot remove {}", path.display())))
}

/// Makes a directory that nobody else may look into.
///
/// # Errors
///
/// When it cannot be made.
pub fn private_directory(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Failure::io(format!("cannot make {}", path.display())))
}
