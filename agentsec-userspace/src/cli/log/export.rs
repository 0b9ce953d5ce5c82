//! `log export`: the log for other systems, entry by entry.

use crate::api::Timestamp;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::units::since;
use crate::cli::{Context, Outcome};
use crate::record::entries::EventSource;
use crate::record::evidence::EvidenceSource;
use crate::record::evidence::source::log_directory;
use crate::record::ocsf;
use crate::record::query::{EventQuery, event_type};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

/// How often it is looked for new entries.
const LOOK_MS: u16 = 250;
/// Lines are handed on once there are so many bytes of them.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Go on with new entries as they come
    #[arg(long, short, conflicts_with = "to")]
    follow: bool,
    /// In which form
    #[arg(long, value_enum, default_value_t = Format::Ocsf)]
    format: Format,
    /// Only since this time (2026-01-31T12:00:00Z), or for so long (90s, 10m, 2h, 1d)
    #[arg(long, value_name = "TIME", value_parser = since)]
    from: Option<Timestamp>,
    /// Only before this time (in the same notations)
    #[arg(long, value_name = "TIME", value_parser = since)]
    to: Option<Timestamp>,
    /// Only about this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only of this type, or of several with commas between
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = event_type)]
    types: Vec<String>,
    /// Only after this entry: the `metadata.sequence` of the last one that was taken
    #[arg(long, value_name = "ENTRY")]
    after: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A document of the Open Cybersecurity Schema Framework in each line
    Ocsf,
}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let log = log_in(&context.global.state_dir, self.follow)?;
        let query = EventQuery {
            since: self.from,
            until: self.to,
            agent: self.agent,
            types: self.types,
            ..EventQuery::default()
        };
        query.check().map_err(|wrong| CliError::new(Exit::Usage, wrong, None))?;
        let mut last = self.after;
        beyond(&log, last)?;
        let (mut origin, mut out) = (None, io::stdout().lock());
        loop {
            // Before it is read, so that what comes meanwhile is read next.
            let stamp = log.stamp();
            if is_other(&log, &mut origin)? {
                last = None;
            }
            export(&log, origin.as_deref(), &query, self.format, &mut last, &mut out)?;
            if !self.follow {
                return Ok(Exit::Ok);
            }
            while log.stamp() == stamp {
                wait(&out)?;
            }
        }
    }
}

/// An entry that the log does not have cannot have been taken from it.
fn beyond(log: &EvidenceSource, after: Option<u64>) -> Result<(), CliError> {
    let size = log.size().map_err(|error| unreadable(&error))?;
    let Some(after) = after.filter(|after| *after >= size) else { return Ok(()) };
    let message = format!(
        "--after {after}: the log has {size} entries, so this was an entry of another log, or one that a crash has cut off"
    );
    Err(CliError::new(
        Exit::NotFound,
        message,
        Some(
            "without --after it is read from its start; a log that was set aside is in log.aside.N beside it",
        ),
    ))
}

/// Whether the log is another one than before, which is read from its start.
fn is_other(log: &EvidenceSource, known: &mut Option<String>) -> Result<bool, CliError> {
    let Some(origin) = log.origin().map_err(|error| unreadable(&error))? else { return Ok(false) };
    let before = known.replace(origin);
    Ok(before.is_some() && before != *known)
}

/// Writes the entries after `last` that are wanted, in whole lines only.
fn export(
    source: &dyn EventSource,
    origin: Option<&str>,
    query: &EventQuery,
    format: Format,
    last: &mut Option<u64>,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let Format::Ocsf = format;
    let mut lines = Vec::new();
    let entries = source.entries_from(last.unwrap_or(0)).map_err(|error| unreadable(&error))?;
    for entry in entries {
        let (place, line) = entry.map_err(|error| unreadable(&error))?;
        if last.is_some_and(|last| place <= last) {
            continue;
        }
        *last = Some(place);
        if !query.wants(&line) {
            continue;
        }
        let document = serde_json::to_vec(&ocsf::document(origin, place, &line));
        lines.extend(document.map_err(|error| CliError::failure(format!("writing JSON: {error}")))?);
        lines.push(b'\n');
        if lines.len() >= PIECE_BYTES {
            out.write_all(&lines)?;
            lines.clear();
        }
    }
    out.write_all(&lines)?;
    Ok(out.flush()?)
}

/// Waits a moment, or tells that whoever read the output has gone.
fn wait(out: &io::StdoutLock<'_>) -> Result<(), CliError> {
    let mut watched = [PollFd::new(out.as_fd(), PollFlags::empty())];
    match poll(&mut watched, PollTimeout::from(LOOK_MS)) {
        Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Ok(_) => Err(CliError::ReaderGone),
        Err(error) => Err(CliError::failure(format!("waiting: {error}"))),
    }
}

/// The log of a state directory.
fn log_in(state: &Path, may_come: bool) -> Result<EvidenceSource, CliError> {
    let directory = log_directory(state);
    if may_come || fs::exists(&directory).map_err(|error| unreadable(&error))? {
        return Ok(EvidenceSource::new(&directory));
    }
    let message = format!("there is no log in {}", state.display());
    Err(CliError::new(Exit::NotFound, message, Some("--state-dir names the daemon's state directory")))
}

fn unreadable(error: &io::Error) -> CliError {
    let message = format!("reading the log: {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => CliError::new(
            Exit::Refused,
            message,
            Some("run this as root: the log is readable by its owner only"),
        ),
        _ => CliError::failure(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::evidence::{EvidenceLog, Opened};

    fn line(number: u64) -> String {
        format!(
            "{{\"agent_id\":\"{}\",\"event_type\":\"DROPS\",\"number\":{number}}}",
            if number.is_multiple_of(2) { "even" } else { "odd" }
        )
    }

    fn sequences(bytes: &[u8]) -> Vec<u64> {
        let text = std::str::from_utf8(bytes).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let sequence = |line: &str| {
            let document: serde_json::Value = serde_json::from_str(line).unwrap();
            document["metadata"]["sequence"].as_u64().unwrap()
        };
        text.lines().map(sequence).collect()
    }

    #[test]
    fn what_was_taken_is_not_written_again_wherever_in_the_log_it_lies() {
        let state = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..601).map(line).collect();
        let Opened { mut log, .. } = EvidenceLog::open(&log_directory(state.path()), "host").unwrap();
        log.append(&lines[..300], true).unwrap();
        log.publish().unwrap();
        log.append(&lines[300..600], true).unwrap();
        let source = log_in(state.path(), false).unwrap();
        let (mut last, mut out) = (None, Vec::new());
        export(&source, None, &EventQuery::default(), Format::Ocsf, &mut last, &mut out).unwrap();
        let all = sequences(&out);
        assert_eq!(all.len(), 600);
        // From any entry on; nothing more when there is nothing more.
        for at in [0, 255, 256, 299, 300, 599] {
            let (mut last, mut out) = (Some(all[at]), Vec::new());
            export(&source, None, &EventQuery::default(), Format::Ocsf, &mut last, &mut out).unwrap();
            assert_eq!(sequences(&out), all[at + 1..]);
        }
        let odd = EventQuery { agent: Some("odd".into()), ..EventQuery::default() };
        let (mut last, mut out) = (None, Vec::new());
        export(&source, None, &odd, Format::Ocsf, &mut last, &mut out).unwrap();
        assert_eq!((sequences(&out).len(), last), (300, Some(all[599])));
        // New entries change the stamp, and are what is written next.
        let stamp = source.stamp();
        log.append(&lines[600..], true).unwrap();
        assert!(source.stamp() != stamp);
        let (mut last, mut out) = (Some(599), Vec::new());
        export(&source, None, &EventQuery::default(), Format::Ocsf, &mut last, &mut out).unwrap();
        assert_eq!(sequences(&out), [600]);
    }

    #[test]
    fn a_log_in_the_place_of_another_is_noticed() {
        let state = tempfile::tempdir().unwrap();
        let directory = log_directory(state.path());
        let mut origin = None;
        let source = log_in(state.path(), true).unwrap();
        assert!(!is_other(&source, &mut origin).unwrap(), "none is no other");
        for round in 0..2 {
            let Opened { mut log, .. } = EvidenceLog::open(&directory, "host").unwrap();
            log.append(&[line(1), line(2)], true).unwrap();
            assert!(!is_other(&source, &mut origin).unwrap(), "not signed yet");
            log.close().unwrap();
            assert_eq!(is_other(&source, &mut origin).unwrap(), round == 1);
            assert!(!is_other(&source, &mut origin).unwrap());
            assert!(beyond(&source, None).is_ok() && beyond(&source, Some(1)).is_ok());
            let Err(CliError::Failed(failure)) = beyond(&source, Some(2)) else { panic!("taken") };
            assert!(failure.message.contains("the log has 2 entries"), "{}", failure.message);
            drop(log);
            fs::rename(&directory, state.path().join(format!("away-{round}"))).unwrap();
        }
    }

    #[test]
    fn a_log_that_is_not_there_is_named() {
        let state = tempfile::tempdir().unwrap();
        let Err(CliError::Failed(failure)) = log_in(state.path(), false) else { panic!("found") };
        assert!(failure.message.contains("there is no log in"));
        assert!(log_in(state.path(), true).is_ok(), "it may come");
    }
}
