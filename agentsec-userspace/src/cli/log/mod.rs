//! `log`: the forensic log itself.

mod anchors;
mod export;
mod reindex;
mod retention;

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
            Verb::Reindex(args) => args.run(context),
            Verb::Export(args) => args.run(context),
            Verb::Anchors(args) => args.run(context),
            Verb::Retention(args) => args.run(context),
        }
    }
}
