//! `log prove`.

use super::cannot;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::{Context, Outcome, new_file};
use crate::record::entries::EventSource;
use crate::record::evidence::proof::Proof;
use crate::record::evidence::tiles::TileStore;
use crate::record::evidence::{EvidenceSource, LOG_NAME};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The event's id (`event_id`), or its number in the log
    event: String,
    /// Write the proof into a new file instead of to the output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let state = &context.global.state_dir;
        let directory = state.join(LOG_NAME);
        let number = match self.event.parse() {
            Ok(number) => number,
            Err(_) => find(&EvidenceSource::in_state(state), &self.event)?,
        };
        let proof = Proof::of(&TileStore::new(&directory), number)
            .map_err(|error| cannot("the log in", &directory, &error))?;
        match &self.to {
            Some(path) => {
                new_file::write(path, proof.to_string().as_bytes())?;
                context.output.text(&format!("entry {number}: {}\n", path.display()))?;
            }
            None => context.output.text(&proof.to_string())?,
        }
        Ok(Exit::Ok)
    }
}

/// The number of the entry with this event id.
fn find(log: &EvidenceSource, id: &str) -> Result<u64, CliError> {
    let failed = |error| CliError::failure(format!("reading the log: {error}"));
    let wanted = format!("\"event_id\":{}", serde_json::Value::from(id));
    for entry in log.entries_from(0).map_err(failed)? {
        let (number, line) = entry.map_err(failed)?;
        // The envelope's own id, and not the text somewhere in the data.
        let is_it = line.windows(wanted.len()).any(|part| part == wanted.as_bytes())
            && serde_json::from_slice::<serde_json::Value>(&line).is_ok_and(|event| event["event_id"] == id);
        if is_it {
            return Ok(number);
        }
    }
    Err(CliError::new(
        Exit::NotFound,
        format!("the log has no event {id}"),
        Some("`events --json` shows ids"),
    ))
}
