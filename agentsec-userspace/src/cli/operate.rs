//! What the verbs that change something share.

use serde_json::Value;

use super::exit::Exit;
use super::style::{self, Tone, harmless};
use super::{Context, Outcome};
use crate::api::OperationReply;
use crate::api::client::escaped;

/// Posts `body` to an agent's `action`, and shows what became of it.
pub(super) async fn on_agent(context: &Context, agent: &str, action: &str, body: Value) -> Outcome {
    let path = format!("/v1/agents/{}/{action}", escaped(agent));
    let reply = context.client.post(&path, &body).await?;
    show(context, &reply)
}

/// Shows what became of an operation.
pub(super) fn show(context: &Context, reply: &OperationReply) -> Outcome {
    if context.output.json {
        context.output.object(reply)?;
        return Ok(Exit::Ok);
    }
    if reply.agents.is_empty() {
        context.output.text("nothing to do\n")?;
    }
    let style = context.output.style;
    for outcome in &reply.agents {
        let tone = if outcome.changed { style::of_state(outcome.state) } else { Tone::Dim };
        let message = style.paint(tone, &harmless(&outcome.message));
        context.output.text(&format!("{} {message}\n", harmless(&outcome.agent)))?;
    }
    Ok(Exit::Ok)
}
