//! Where a repository is, and what restic needs in its environment to get there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::super::error::{Failure, Kind};
use super::super::key;

/// A location without what may be a password in it.
#[must_use]
pub fn shown(location: &str) -> String {
    match location.split_once('@') {
        Some((before, after)) if !location.starts_with('/') => {
            let scheme = before.rsplit_once("//").map_or("", |(scheme, _)| scheme);
            format!("{scheme}//…@{after}")
        }
        _ => location.to_owned(),
    }
}

/// Reads a file of `NAME=VALUE` lines, which like the key must be nobody else's to read.
///
/// # Errors
///
/// When it cannot be read, others may read it, or a line is something else.
pub fn environment(path: &Path) -> Result<BTreeMap<OsString, OsString>, Failure> {
    key::check(path)?;
    let text = fs::read_to_string(path).map_err(Failure::io(path.display()))?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let (name, value) = line.split_once('=').ok_or_else(|| {
                Failure::new(Kind::Other, format!("{}:{}: not NAME=VALUE", path.display(), number + 1))
            })?;
            Ok((name.trim().into(), value.into()))
        })
        .collect()
}
