//! `log`: the forensic log itself.

mod anchors;
mod export;
mod key;
mod prove;
mod reindex;
mod retention;
mod verify;
mod verify_proof;

use super::error::CliError;
use super::exit::Exit;
use super::{Context, Outcome};
use crate::record::evidence::note::PublicKey;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check every entry against what was signed, and against checkpoints from elsewhere
    Verify(verify::Args),
    /// Write a proof that an event is in the log, which anybody checks without the log
    Prove(prove::Args),
    /// Check such a proof, and show the event that it proves
    VerifyProof(verify_proof::Args),
    /// Print the public half of the log's key: keep it where this host cannot change it
    Key(key::Args),
    /// Build the index anew that answers questions, from the log alone; with or without a daemon
    Reindex(reindex::Args),
    /// Write the log for other systems, a JSON document in each line; with or without a daemon
    Export(export::Args),
    /// Show where checkpoints of the log lie outside this host
    Anchors(anchors::Args),
    /// Show what the daemon would let go of the log now; nothing is changed
    Retention(retention::Args),
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Verify(args) => args.run(context),
            Verb::Prove(args) => args.run(context),
            Verb::VerifyProof(args) => args.run(context),
            Verb::Key(args) => args.run(context),
            Verb::Reindex(args) => args.run(context),
            Verb::Export(args) => args.run(context),
            Verb::Anchors(args) => args.run(context),
            Verb::Retention(args) => args.run(context),
        }
    }
}

/// A public key as it is given on the command line: itself, or a file with it.
fn public_key(given: &str) -> Result<PublicKey, CliError> {
    let text = if Path::new(given).exists() {
        std::fs::read_to_string(given).map_err(|error| cannot("reading", Path::new(given), &error.into()))?
    } else {
        given.to_owned()
    };
    PublicKey::parse(text.trim_end()).map_err(|_| {
        let message =
            format!("--key {given}: it is neither a public key (NAME+HASH+BASE64) nor a file with one");
        CliError::new(Exit::Usage, message, Some("`agentsec log key` prints it on the host of the log"))
    })
}

fn cannot(what: &str, path: &Path, error: &anyhow::Error) -> CliError {
    let message = format!("{what} {}: {error:#}", path.display());
    let denied = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    if denied == Some(std::io::ErrorKind::PermissionDenied) {
        return CliError::new(
            Exit::Refused,
            message,
            Some("run this as root: the log is readable by its owner only"),
        );
    }
    CliError::failure(message)
}
