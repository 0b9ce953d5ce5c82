//! `unload`: take everything of ours out of the kernel.

use std::path::Path;

use super::error::CliError;
use super::exit::Exit;
use super::{Context, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        if context.client.is_served().await {
            let message = "a daemon is running; it would put everything back";
            return Err(CliError::new(Exit::Refused, message, Some("stop it first")));
        }
        let removed = unload(&context.global.pin_path)?;
        if context.output.json {
            context.output.object(&serde_json::json!({ "removed": removed }))?;
        } else {
            let lines: String = removed.iter().map(|what| format!("removed {what}\n")).collect();
            let nothing = format!("nothing of AgentSec under {}\n", context.global.pin_path.display());
            context.output.text(if lines.is_empty() { &nothing } else { &lines })?;
        }
        Ok(Exit::Ok)
    }
}

/// Unpins programs, maps and links; what was removed.
fn unload(pin_path: &Path) -> anyhow::Result<Vec<String>> {
    // CALL SITE: crate::kernel::breakglass::unload(pin_path)
    anyhow::bail!("unloading {} is not part of this build", pin_path.display())
}
