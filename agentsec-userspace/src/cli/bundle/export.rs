//! `bundle export`.

use std::path::PathBuf;

use serde_json::json;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::{Context, Outcome, new_file};
use super::found::{self, Verdict};
use super::ledger::Ledger;
use crate::bundle::{archive, sha256};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The bundle's id, or the beginning of it
    bundle: String,
    /// File to write: a tar, or an encrypted one; it must not exist
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Decrypt it with the secret key of age in this file
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Write it although it is not what the log says, or the log does not know it
    #[arg(long)]
    unverified: bool,
}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let ledger = Ledger::read(&context.global.state_dir)?;
        let found = found::one(context, &ledger, &self.bundle)?;
        let (bytes, verdict) = found::read(&found, &ledger)?;
        if verdict != Verdict::Matches && !self.unverified {
            let message = match verdict {
                Verdict::NotInLog => format!("the log does not know bundle {}", found.bundle),
                _ => format!("bundle {} is not what the log says", found.bundle),
            };
            let remedy = "--unverified exports it all the same, as what it is: unverified";
            return Err(CliError::new(Exit::Refused, message, Some(remedy)));
        }
        let stored = sha256(&bytes);
        let written = match &self.identity {
            Some(_) => {
                let plain = super::opened(bytes, self.identity.as_ref())?;
                if let Err(flaw) = archive::read(&plain)
                    && !self.unverified
                {
                    return Err(CliError::new(
                        Exit::Unhealthy,
                        format!("bundle {}: {flaw}", found.bundle),
                        None,
                    ));
                }
                plain
            }
            None => bytes,
        };
        new_file::write(&self.to, &written)?;
        let hash = sha256(&written);
        if context.output.json {
            context.output.object(&json!({
                "bundle": found.bundle, "to": self.to, "bytes": written.len(), "sha256": hash, "stored_sha256": stored,
                "log": verdict,
            }))?;
        } else {
            let checked = if verdict == Verdict::Matches { "as the log says" } else { "UNVERIFIED" };
            context.output.text(&format!("{hash}  {} ({checked})\n", self.to.display()))?;
        }
        Ok(Exit::Ok)
    }
}
