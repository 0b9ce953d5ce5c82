//! Running restic: its environment, its bounds, and what its end means.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::child::{self, Bounds, Cancel, ChildError, Ended};
use super::super::error::{Failure, Kind};
use super::Restic;
use super::complaint::{hear_local, hear_remote, kind_of, plain};

/// restic collects its garbage when a fifth has been added: half the memory for a few per cent of time.
const GARBAGE_PERCENT: &str = "20";
/// Packs of 4 MiB. An index is read and written as a whole, and is closed with the pack that fills it: a pack of the usual
/// 16 MiB that holds only small files fills several times what an index should have, and a third more memory.
const PACK_MIB: &str = "4";

impl Restic {
    pub(super) fn run(
        &self,
        arguments: &[&str],
        cancel: &Cancel,
        on_line: impl FnMut(&[u8]) + Send,
    ) -> Result<Ended, Failure> {
        let mut command = self.command();
        command.args(arguments);
        self.end(command, self.bounds(cancel), on_line)
    }

    /// Runs restic; a lock that a dead process has left is removed once.
    pub(super) fn end(
        &self,
        mut command: Command,
        bounds: Bounds<'_>,
        mut on_line: impl FnMut(&[u8]) + Send,
    ) -> Result<Ended, Failure> {
        let first = self.judge(child::lines(&mut command, bounds, &mut on_line));
        if !first.as_ref().is_err_and(|failure| failure.kind == Kind::Locked) {
            return first;
        }
        // `unlock` removes only locks whose process is gone, or that nobody has refreshed for half an hour.
        let mut unlock = self.command();
        unlock.arg("unlock");
        self.judge(child::lines(&mut unlock, bounds, |_| {}))?;
        self.judge(child::lines(&mut command, bounds, on_line))
    }

    pub(super) fn judge(&self, ended: Result<Ended, ChildError>) -> Result<Ended, Failure> {
        let about = |what: &dyn std::fmt::Display| format!("restic on {}: {what}", self.shown());
        match ended {
            Ok(ended) if ended.status.success() => Ok(ended),
            // What runs restic says so when there is none.
            Ok(ended) if matches!(ended.status.code(), Some(126 | 127)) => Err(self.cannot_run(&ended.said)),
            Ok(ended) => {
                let said = if ended.said.is_empty() { ended.status.to_string() } else { plain(&ended.said) };
                Err(Failure::new(kind_of(&said), about(&said)))
            }
            Err(ChildError::Spawn(error)) => Err(self.cannot_run(&error)),
            Err(error) => Err(Failure::new(
                match &error {
                    ChildError::TimedOut(_) => Kind::TimedOut,
                    ChildError::Cancelled => Kind::Cancelled,
                    ChildError::GaveUp(line) => kind_of(line),
                    _ => Kind::Other,
                },
                about(&error),
            )),
        }
    }

    fn cannot_run(&self, why: &dyn std::fmt::Display) -> Failure {
        let message = format!("{} cannot be run ({why}): install restic", self.program.display());
        Failure::new(Kind::NoProgram, message)
    }

    pub(super) fn bounds<'a>(&self, cancel: &'a Cancel) -> Bounds<'a> {
        Bounds {
            deadline: self.deadline,
            cancel,
            hear: if self.is_local() { &hear_local } else { &hear_remote },
        }
    }

    pub(super) fn command(&self) -> Command {
        // A child must not outlive a daemon that is killed: nobody would know what it still writes.
        let mut words: Vec<&OsStr> = child::ending_with_us().into_iter().map(OsStr::new).collect();
        // The daemon is the last to go when memory is short; this is not.
        if Path::new("/usr/bin/choom").exists() {
            words.extend(["/usr/bin/choom", "-n", "500", "--"].map(OsStr::new));
        }
        if self.nice {
            words.extend(["/usr/bin/nice", "-n", "10"].map(OsStr::new));
        }
        words.push(self.program.as_os_str());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).current_dir("/").env_clear();
        command
            .env("PATH", "/usr/bin:/bin")
            .env("RESTIC_REPOSITORY", &self.repository)
            .env("RESTIC_PASSWORD_FILE", &self.key_file)
            .env("RESTIC_CACHE_DIR", &self.cache)
            .env("RESTIC_PROGRESS_FPS", "4")
            .env("GOGC", GARBAGE_PERCENT)
            .env("RESTIC_PACK_SIZE", PACK_MIB)
            .env("LC_ALL", "C")
            .envs(&self.environment);
        if self.is_local() {
            command.arg("--no-cache");
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn a_restic_that_is_not_there_says_nothing_of_a_repository() {
        let restic = Restic {
            program: "/nonexistent/restic".into(),
            repository: "/nonexistent/repository".into(),
            key_file: "/nonexistent/key".into(),
            cache: "/nonexistent/cache".into(),
            environment: BTreeMap::new(),
            deadline: Duration::from_secs(60),
            nice: true,
        };
        let failure = restic.open(&Cancel::default()).unwrap_err();
        assert_eq!(failure.kind, Kind::NoProgram, "{failure}");
        assert!(failure.message.contains("install restic"), "{failure}");
    }
}
