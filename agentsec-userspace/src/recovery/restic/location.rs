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

/// Variables that would take the place of what the configuration says.
const CONFIGURED: [&str; 3] = ["RESTIC_REPOSITORY", "RESTIC_PASSWORD", "RESTIC_FROM_"];

/// Reads a file of `NAME=VALUE` lines, which like the key must be nobody else's to read.
///
/// # Errors
///
/// When it cannot be read, others may read it, or a line is something else or says what the configuration says.
pub fn environment(path: &Path) -> Result<BTreeMap<OsString, OsString>, Failure> {
    key::check(path)?;
    let text = fs::read_to_string(path).map_err(Failure::io(path.display()))?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let bad =
                |why: &str| Failure::new(Kind::Other, format!("{}:{}: {why}", path.display(), number + 1));
            let (name, value) = line.split_once('=').ok_or_else(|| bad("not NAME=VALUE"))?;
            let name = name.trim();
            if name.is_empty() || name.contains(char::is_whitespace) || line.contains('\0') {
                return Err(bad("not NAME=VALUE"));
            }
            if CONFIGURED.iter().any(|ours| name.starts_with(ours)) {
                return Err(bad(&format!("{name} is for recovery.repository and recovery.key_file to say")));
            }
            Ok((name.into(), value.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_environment_says_nothing_that_the_configuration_says() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        let read = |text: &str| {
            fs::write(file.path(), text).unwrap();
            environment(file.path()).map_err(|failure| failure.message)
        };
        let good = read("# a store\n\nAWS_ACCESS_KEY_ID=a=b\nRESTIC_CACHE_DIR=/c\n").unwrap();
        assert_eq!((good.len(), &good[OsStr::new("AWS_ACCESS_KEY_ID")]), (2, &"a=b".into()));
        for (bad, why) in [
            ("A=1\nRESTIC_REPOSITORY=/elsewhere", ":2: RESTIC_REPOSITORY is for recovery.repository"),
            ("RESTIC_PASSWORD_FILE=/k", "RESTIC_PASSWORD_FILE is for"),
            ("export A=1", ":1: not NAME=VALUE"),
            ("=1", "not NAME=VALUE"),
            ("A", "not NAME=VALUE"),
        ] {
            let said = read(bad).unwrap_err();
            assert!(said.contains(why), "{bad:?}: {said}");
        }
    }
}
