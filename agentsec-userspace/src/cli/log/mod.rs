//! `log`: the forensic log itself.

mod reindex;

use super::{Context, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Build the index anew that answers questions, from the log alone; with or without a daemon
    Reindex(reindex::Args),
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Reindex(args) => args.run(context),
        }
    }
}
