//! `bundle export`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::{Context, Outcome};
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
        write_new(&self.to, &written).map_err(|error| not_written(&self.to, &error))?;
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

fn not_written(to: &Path, error: &io::Error) -> CliError {
    let exit = if error.kind() == io::ErrorKind::AlreadyExists { Exit::Refused } else { Exit::Failure };
    CliError::new(exit, format!("cannot write {}: {error}", to.display()), None)
}

/// Writes a file that must not exist yet, whole or not at all, for its owner only.
fn write_new(to: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Unlike a rename this never takes the place of anything.
        fs::hard_link(&beside, to)
    })();
    let _ = fs::remove_file(&beside);
    written
}
