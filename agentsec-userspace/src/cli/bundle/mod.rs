//! `bundle`: the evidence of trips, from the files themselves: it works while the daemon is dead.

mod export;
mod found;
mod ledger;
mod list;
mod show;

use std::path::PathBuf;

use clap::Subcommand;

use super::error::CliError;
use super::exit::Exit;
use super::{Context, Outcome};
use crate::bundle::{archive, sealed};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the bundles, and trips that have none; compares each with its hash in the log
    List(list::Args),
    /// Show what is in a bundle, or one part of it
    Show(show::Args),
    /// Copy a bundle, once it is what the log says, to where it is examined
    Export(export::Args),
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::List(args) => args.run(context),
            Verb::Show(args) => args.run(context),
            Verb::Export(args) => args.run(context),
        }
    }
}

/// The archive in the clear: decrypted, where it is encrypted, with the keys in `identity`.
fn opened(bytes: Vec<u8>, identity: Option<&PathBuf>) -> Result<Vec<u8>, CliError> {
    if !sealed::is_sealed(&bytes) {
        return Ok(bytes);
    }
    let Some(path) = identity else {
        let remedy = "--identity FILE decrypts it with the secret key that belongs to a recipient";
        return Err(CliError::new(Exit::Refused, "the bundle is encrypted", Some(remedy)));
    };
    let keys =
        std::fs::read(path).map_err(|error| CliError::failure(format!("{}: {error}", path.display())))?;
    sealed::open(&keys, &bytes, archive::MOST_BYTES)
        .map_err(|error| CliError::new(Exit::Refused, format!("the bundle is not decrypted: {error}"), None))
}
