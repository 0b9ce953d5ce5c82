//! `release`: let one agent out, or everybody, with or without a daemon.

use serde_json::json;

use super::exit::Exit;
use super::{Context, Outcome, operate};
use crate::api::client::ClientError;
use crate::kernel::breakglass;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whom
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    agent: Option<String>,
    /// Everybody who is contained; without a daemon, straight from the pins (break-glass)
    #[arg(long)]
    all: bool,
    /// Straight to CLOSED, without probing, and in spite of a hold
    #[arg(long)]
    force: bool,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let body = json!({ "force": self.force });
        if let Some(agent) = &self.agent {
            return operate::on_agent(context, agent, "release", body).await;
        }
        match context.client.post("/v1/release-all", &body).await {
            Ok(reply) => operate::show(context, &reply),
            Err(ClientError::NotRunning { .. }) => without_daemon(context),
            Err(error) => Err(error.into()),
        }
    }
}

fn without_daemon(context: &Context) -> Outcome {
    let released = breakglass::release_all(&context.global.pin_path)?;
    if context.output.json {
        context.output.object(&json!({ "without_daemon": true, "released": released }))?;
    } else {
        let names = if released.is_empty() { "nobody was contained".into() } else { released.join(", ") };
        context.output.text(&format!("released without a daemon: {}\n", super::style::harmless(&names)))?;
    }
    Ok(Exit::Ok)
}
