//! `log verify-proof`.

use super::{cannot, public_key};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::style::harmless;
use crate::cli::{Context, Outcome};
use crate::record::evidence::proof::Proof;
use crate::record::evidence::{LOG_NAME, key};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The proof, as `log prove` has written it
    proof: PathBuf,
    /// The log's public key, or a file with it; without this, the one on this host
    #[arg(long, value_name = "KEY|FILE")]
    key: Option<String>,
}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let text = std::fs::read_to_string(&self.proof)
            .map_err(|error| cannot("reading", &self.proof, &error.into()))?;
        let key = match &self.key {
            Some(given) => public_key(given)?,
            None => {
                let directory = context.global.state_dir.join(LOG_NAME);
                key::read_public(&directory).map_err(|error| cannot("the log in", &directory, &error))?
            }
        };
        let proved =
            Proof::parse(&text).and_then(|proof| proof.verify(&key).map(|checkpoint| (proof, checkpoint)));
        let (proof, checkpoint) = proved.map_err(|flaw| {
            CliError::new(Exit::Unhealthy, format!("{} proves nothing: {flaw}", self.proof.display()), None)
        })?;
        let event = String::from_utf8_lossy(&proof.entry);
        if context.output.json {
            let told = serde_json::json!({
                "proved": true, "origin": checkpoint.origin, "index": proof.index, "size": checkpoint.size, "event": event,
            });
            context.output.object(&told)?;
        } else {
            let of =
                format!("entry {} of {} in {}", proof.index, checkpoint.size, harmless(&checkpoint.origin));
            context.output.text(&format!("{}\nproved: {of}\n", harmless(&event)))?;
        }
        Ok(Exit::Ok)
    }
}
