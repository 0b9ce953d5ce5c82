//! `log reindex`: the index, built anew from the log.

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::progress::{Entries, Watched};
use crate::cli::units::count;
use crate::cli::{Context, Outcome};
use crate::record::evidence::EvidenceSource;
use crate::record::index::{Files, IndexError, rebuild};
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let state = &context.global.state_dir;
        let log = EvidenceSource::in_state(state);
        let all = log.size().map_err(|error| explain(&error.into(), state))?;
        let source = Watched::new(log, all, Entries::of(context, "building the index"));
        let files = Files::in_state(state);
        let start = Instant::now();
        let built = rebuild(&files, &source).map_err(|error| explain(&error, state))?;
        let seconds = start.elapsed().as_secs_f64();
        drop(source);
        let index = files.index();
        if context.output.json {
            let told = serde_json::json!({
                "entries": built.entries, "unreadable": built.unreadable, "seconds": seconds, "index": index,
            });
            context.output.object(&told)?;
        } else {
            let entries = count(built.entries);
            let unreadable = match built.unreadable {
                0 => String::new(),
                some => format!(", {} of them no events", count(some)),
            };
            context
                .output
                .text(&format!("{entries} entries{unreadable} in {seconds:.1} s: {}\n", index.display()))?;
        }
        Ok(Exit::Ok)
    }
}

fn explain(error: &IndexError, state: &std::path::Path) -> CliError {
    let message = format!("building the index in {}: {error}", state.display());
    match error {
        IndexError::Busy => CliError::new(
            Exit::Refused,
            message,
            Some("the daemon does so when it has found none: try again in a minute"),
        ),
        IndexError::Io(system) if system.kind() == std::io::ErrorKind::PermissionDenied => CliError::new(
            Exit::Refused,
            message,
            Some("run this as root: the log is readable by its owner only"),
        ),
        _ => CliError::failure(message),
    }
}
