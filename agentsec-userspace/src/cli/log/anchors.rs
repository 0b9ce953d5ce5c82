//! `log anchors`: where the log's checkpoints lie outside this host, and what hinders them.

use crate::cli::exit::Exit;
use crate::cli::style::harmless;
use crate::cli::units::count;
use crate::cli::{Context, Outcome};
use crate::record::anchor::AnchorState;
use crate::record::anchor::state::Memory;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let states = Memory::in_state(&context.global.state_dir).load()?;
        if context.output.json {
            context.output.object(&states)?;
        } else if states.is_empty() {
            context.output.text("there are no anchors: the log is attested by this host alone\n")?;
        } else {
            let text: String = states.iter().map(|(name, state)| line(name, state)).collect();
            context.output.text(&text)?;
        }
        let healthy = states.values().all(|state| state.failures == 0 && !state.contradicted);
        Ok(if healthy { Exit::Ok } else { Exit::Unhealthy })
    }
}

fn line(name: &str, state: &AnchorState) -> String {
    let anchored = match &state.anchored {
        Some(anchored) => {
            let cosigned = if anchored.cosigned_at.is_some() { ", cosigned" } else { "" };
            format!("{} entries since {}{cosigned}", count(anchored.size), anchored.at)
        }
        None => "nothing yet".to_owned(),
    };
    let error = state.error.as_deref().map(harmless).unwrap_or_default();
    let trouble = match (state.contradicted, state.failures) {
        (true, _) => format!("\n  CONTRADICTED: {error}"),
        (false, 0) => String::new(),
        (false, failures) => format!("\n  failed {} times: {error}", count(failures.into())),
    };
    format!("{name} ({}): {anchored}{trouble}\n", harmless(&state.place))
}
