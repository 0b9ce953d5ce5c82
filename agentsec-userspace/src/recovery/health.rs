//! Whether recovery could do its work: the program restic, and every agent's repository. For `doctor`; changes nothing.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::child::{self, Bounds, Cancel};
use super::error::{Failure, Kind};
use super::store::Store;

/// The oldest restic that is known to do.
const LEAST: (u32, u32) = (0, 14);
/// The most that restic may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(10);
/// The most that a repository may take to answer: an unreachable one would be tried for a quarter of an hour.
const REPOSITORY_PATIENCE: Duration = Duration::from_secs(20);
/// Repositories that are asked at once.
const AT_ONCE: usize = 4;

/// How an agent's repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repository {
    /// It can be reached, and the key opens it.
    Open,
    /// There is none yet: the first snapshot makes it.
    NotYet,
    /// It cannot be used, and why.
    Unusable(String),
}

/// The version of restic, if it is one that will do.
///
/// # Errors
///
/// When it cannot be run, says something else, or is too old.
pub fn version(program: &Path) -> Result<String, Failure> {
    let (cancel, mut said) = (Cancel::default(), String::new());
    let bounds = Bounds { deadline: VERSION_PATIENCE, cancel: &cancel, hear: &child::keep };
    let mut command = Command::new(program);
    command.arg("version").env_clear().current_dir("/");
    let missing = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::NoProgram, format!("{} cannot be run: {error}", program.display()))
    };
    child::lines(&mut command, bounds, |line| said.push_str(&String::from_utf8_lossy(line)))
        .map_err(|error| missing(&error))?;
    judge(&said).map_err(|why| Failure::new(Kind::NoProgram, format!("{}: {why}", program.display())))
}

/// The version in what restic says, such as `restic 0.14.0 compiled with go1.19.8 on linux/amd64`.
fn judge(said: &str) -> Result<String, String> {
    let version = said.strip_prefix("restic ").and_then(|rest| rest.split([' ', '-']).next()).unwrap_or("");
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Err(format!("says {:?} when asked for its version", said.trim()));
    };
    if (major, minor) < LEAST {
        return Err(format!("is {version}, and {}.{} is the least", LEAST.0, LEAST.1));
    }
    Ok(version.to_owned())
}

/// How the repository of each store is, in their order.
#[must_use]
pub fn repositories(stores: &[Store]) -> Vec<Repository> {
    let mut found = Vec::new();
    for some in stores.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|store| scope.spawn(|| repository(store))).collect();
            found.extend(asked.into_iter().map(|asked| {
                asked.join().unwrap_or_else(|_| Repository::Unusable("asking it failed".into()))
            }));
        });
    }
    found
}

fn repository(store: &Store) -> Repository {
    let mut restic = store.restic.clone();
    restic.deadline = restic.deadline.min(REPOSITORY_PATIENCE);
    let is_there = !restic.is_local() || Path::new(&restic.repository).join("config").exists();
    // What is copied is known by what was copied; a copy's own repository may still be to be made.
    let is_copy = store.copy_to.as_ref() == Some(&restic.repository);
    if !is_copy && let Some(why) = store.is_gone().unwrap_or_else(|failure| Some(failure.message)) {
        return Repository::Unusable(why);
    }
    if !is_there {
        return Repository::NotYet;
    }
    let opened = super::key::check(&restic.key_file).and_then(|()| restic.open(&Cancel::default()));
    match opened {
        Ok(()) => Repository::Open,
        Err(failure) if failure.kind == Kind::NoRepository => Repository::NotYet,
        Err(failure) => Repository::Unusable(failure.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_restic_and_another_program_are_told_apart() {
        let said = |text: &str| judge(text);
        assert_eq!(said("restic 0.14.0 compiled with go1.19.8 on linux/amd64").as_deref(), Ok("0.14.0"));
        assert_eq!(said("restic 0.16.4-dev (compiled manually)").as_deref(), Ok("0.16.4"));
        assert_eq!(said("restic 1.0.0").as_deref(), Ok("1.0.0"));
        assert!(said("restic 0.12.1 compiled").unwrap_err().contains("0.12.1, and 0.14 is the least"));
        for other in ["rclone v1.60.1", "restic", "restic x.y", ""] {
            assert!(said(other).unwrap_err().contains("version"), "{other:?}");
        }
    }
}
