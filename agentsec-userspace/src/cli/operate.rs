//! What the verbs that change something share.

use serde_json::Value;

use super::exit::Exit;
use super::style::{self, Style, Tone, harmless};
use super::{Context, Outcome};
use crate::api::OperationReply;
use crate::api::client::escaped;

/// Whom a verb means.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whom {
    /// Which agent
    pub(super) agent: Option<String>,
    /// Every agent that has this tag
    #[arg(long)]
    pub(super) tag: Option<String>,
}

impl Whom {
    /// Path of its `action`.
    fn path(&self, action: &str) -> String {
        let (what, name) = match (&self.agent, &self.tag) {
            (Some(agent), _) => ("agents", agent.as_str()),
            (None, tag) => ("tags", tag.as_deref().unwrap_or_default()),
        };
        format!("/v1/{what}/{}/{action}", escaped(name))
    }
}

/// Posts `body` to the `action` of one agent or of a tag, and shows what became of it.
pub(super) async fn on(context: &Context, whom: &Whom, action: &str, body: Value) -> Outcome {
    let reply = context.client.post(&whom.path(action), &body).await?;
    show(context, &reply)
}

/// Shows what became of an operation.
pub(super) fn show(context: &Context, reply: &OperationReply) -> Outcome {
    if context.output.json {
        context.output.object(reply)?;
    } else {
        context.output.text(&render(reply, context.output.style))?;
    }
    Ok(if reply.refused.is_empty() { Exit::Ok } else { Exit::Partial })
}

fn render(reply: &OperationReply, style: Style) -> String {
    let mut text = String::new();
    for outcome in &reply.agents {
        let tone = if outcome.changed { style::of_state(outcome.state) } else { Tone::Dim };
        let message = style.paint(tone, &harmless(&outcome.message));
        text.push_str(&format!("{} {message}\n", harmless(&outcome.agent)));
    }
    for refusal in &reply.refused {
        let message = style.paint(Tone::Warning, &format!("refused: {}", harmless(&refusal.message)));
        text.push_str(&format!("{} {message}\n", harmless(&refusal.agent)));
    }
    if text.is_empty() { "nothing to do\n".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{OperationOutcome, OperationRefusal};

    #[test]
    fn what_was_refused_is_shown_with_what_was_done() {
        let agents = vec![OperationOutcome {
            agent: "a".into(),
            changed: true,
            message: "is now OPEN".into(),
            ..OperationOutcome::default()
        }];
        let refused = vec![OperationRefusal { agent: "b".into(), message: "the agent is exempt".into() }];
        let text = render(&OperationReply { agents, refused }, Style::default());
        assert_eq!(text, "a is now OPEN\nb refused: the agent is exempt\n");
        assert_eq!(render(&OperationReply::default(), Style::default()), "nothing to do\n");
    }

    #[test]
    fn an_agent_and_a_tag_have_paths_of_their_own() {
        let path = |agent: Option<&str>, tag: Option<&str>| {
            Whom { agent: agent.map(str::to_owned), tag: tag.map(str::to_owned) }.path("shadow")
        };
        assert_eq!(path(Some("a"), None), "/v1/agents/a/shadow");
        assert_eq!(path(None, Some("a/b")), "/v1/tags/a%2Fb/shadow");
    }
}
