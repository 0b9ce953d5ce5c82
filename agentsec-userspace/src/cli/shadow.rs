//! `shadow`: judge without dropping.

use serde_json::json;

use super::{Context, Outcome, operate};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    whom: operate::Whom,
    /// Enforce again
    #[arg(long)]
    off: bool,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        operate::on(context, &self.whom, "shadow", json!({ "on": !self.off })).await
    }
}
