//! `release`: let one agent out, all of a tag, or everybody, the last with or without a daemon.

use serde_json::json;

use super::exit::Exit;
use super::{Context, Outcome, operate};
use crate::api::client::ClientError;
use crate::kernel::breakglass;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent
    #[arg(required_unless_present_any = ["tag", "all"], conflicts_with_all = ["tag", "all"])]
    agent: Option<String>,
    /// Every agent that has this tag
    #[arg(long, conflicts_with = "all")]
    tag: Option<String>,
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
        if !self.all {
            let whom = operate::Whom { agent: self.agent, tag: self.tag };
            return operate::on(context, &whom, "release", body).await;
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
