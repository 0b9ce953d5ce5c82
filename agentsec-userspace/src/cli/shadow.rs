//! `shadow`: judge without dropping.

use serde_json::json;

use super::{Context, Outcome, operate};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whom
    agent: String,
    /// Enforce again
    #[arg(long)]
    off: bool,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        operate::on_agent(context, &self.agent, "shadow", json!({ "on": !self.off })).await
    }
}
