//! `quarantine`: open a circuit by hand.

use serde_json::json;

use super::{Context, Outcome, operate};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    whom: operate::Whom,
    /// Why, for the forensic log
    #[arg(long)]
    reason: String,
    /// Keep it open: no automatic probe
    #[arg(long)]
    hold: bool,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let body = json!({ "reason": self.reason, "hold": self.hold });
        operate::on(context, &self.whom, "quarantine", body).await
    }
}
