//! Files that commands write for operators: new ones, whole, and for their owner only, since they may hold secrets.

use std::io;
use std::path::Path;

use super::error::CliError;
use super::exit::Exit;
use crate::whole_file;

/// Writes a file that must not exist yet.
pub(super) fn write(to: &Path, bytes: &[u8]) -> Result<(), CliError> {
    whole_file::create(to, bytes).map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::AlreadyExists { Exit::Refused } else { Exit::Failure };
        CliError::new(exit, format!("cannot write {}: {error}", to.display()), None)
    })
}
