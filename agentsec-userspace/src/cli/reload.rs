//! `reload`: put the edited configuration into force.

use serde_json::json;

use super::exit::Exit;
use super::style::harmless;
use super::{Context, Outcome};
use crate::api::ReloadReply;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let reply: ReloadReply = context.client.post("/v1/reload", &json!({})).await?;
        if context.output.json {
            context.output.object(&reply)?;
        } else {
            context.output.text(&render(&reply))?;
        }
        Ok(Exit::Ok)
    }
}

fn render(reply: &ReloadReply) -> String {
    let files: Vec<String> = reply.sources.iter().map(|source| harmless(&source.file)).collect();
    let mut text = format!("in force: {}\n", files.join(", "));
    for (what, agents) in [
        ("added", &reply.added),
        ("changed", &reply.changed),
        ("removed", &reply.removed),
        ("no longer configured, and kept until released", &reply.kept),
    ] {
        if !agents.is_empty() {
            text.push_str(&format!("{what}: {}\n", harmless(&agents.join(", "))));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceDigest;

    #[test]
    fn only_what_has_changed_is_said() {
        let source = SourceDigest { file: "a.toml".into(), sha256: String::new() };
        let mut reply = ReloadReply { sources: vec![source], ..ReloadReply::default() };
        assert_eq!(render(&reply), "in force: a.toml\n");
        (reply.added, reply.kept) = (vec!["a".into(), "b".into()], vec!["c".into()]);
        let expected = "in force: a.toml\nadded: a, b\nno longer configured, and kept until released: c\n";
        assert_eq!(render(&reply), expected);
    }
}
