//! `snapshot`: take, list, verify and restore.

mod create;
mod list;
mod restore;
mod verify;

use clap::Subcommand;

use super::{Context, Outcome, asynchronously};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take a snapshot of an agent's state, and of those that it depends on, and verify it
    Create(create::Args),
    /// List an agent's snapshots: what it can be brought back to
    List(list::Args),
    /// Read every byte of a snapshot again
    Verify(verify::Args),
    /// Lay a snapshot out in a directory; needs no daemon
    Restore(restore::Args),
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Create(args) => asynchronously(args.run(context)),
            Verb::List(args) => asynchronously(args.run(context)),
            Verb::Verify(args) => asynchronously(args.run(context)),
            Verb::Restore(args) => asynchronously(args.run(context)),
        }
    }
}
