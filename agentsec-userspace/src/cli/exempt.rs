//! `exempt`: neither judge nor drop.

use serde_json::json;

use super::{Context, Outcome, operate};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    whom: operate::Whom,
    /// Judge and enforce again
    #[arg(long)]
    off: bool,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        operate::on(context, &self.whom, "exempt", json!({ "on": !self.off })).await
    }
}
