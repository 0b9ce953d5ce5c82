//! `report`: an interaction that no packet shows.

use super::error::CliError;
use super::exit::Exit;
use super::{Context, Outcome};
use crate::api::Reported;
use crate::api::client::escaped;
use crate::core::interaction::Report;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent
    agent: String,
    /// Names the interaction; the other side reports the same
    #[arg(long)]
    id: String,
    /// The agent that it sent to, or what names the other side
    #[arg(long, value_name = "AGENT", conflicts_with = "from")]
    to: Option<String>,
    /// The agent that it got this from, or what names the other side
    #[arg(long, value_name = "AGENT")]
    from: Option<String>,
    /// What it was, such as "queue publish"
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// SHA-256 of the payload
    #[arg(long, value_name = "SHA256")]
    payload_hash: Option<String>,
    /// The answer's status
    #[arg(long, value_name = "CODE")]
    response_code: Option<u16>,
    /// Time to the answer, milliseconds
    #[arg(long, value_name = "MS")]
    latency_ms: Option<f64>,
    /// How the sender said who it is: a scheme such as bearer or mtls, never the credential
    #[arg(long, value_name = "SCHEME")]
    auth_method: Option<String>,
    /// W3C trace id
    #[arg(long, value_name = "TRACE")]
    trace_id: Option<String>,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let path = format!("/v1/agents/{}/interactions", escaped(&self.agent));
        let report = Report {
            id: self.id,
            received: self.from.is_some(),
            peer: self.from.or(self.to),
            message_type: self.message_type,
            payload_hash: self.payload_hash,
            response_code: self.response_code,
            latency_ms: self.latency_ms,
            auth_method: self.auth_method,
            trace_id: self.trace_id,
        };
        // JSON knows neither infinity nor what is no number: they would arrive as if nothing had been said.
        report.check().map_err(|wrong| CliError::new(Exit::Usage, wrong, None))?;
        let reported: Reported = context.client.post(&path, &report).await?;
        if context.output.json {
            context.output.object(&reported)?;
        } else {
            let id = super::style::harmless(&reported.correlation_id);
            let how = if reported.waits {
                "it waits in memory, since the log takes no events now; once it does,"
            } else {
                "recorded;"
            };
            context.output.text(&format!("{how} `events --correlation {id}` finds it\n"))?;
        }
        Ok(Exit::Ok)
    }
}
