//! `unload`: take everything of ours out of the kernel.

use super::error::CliError;
use super::exit::Exit;
use super::{Context, Outcome};
use crate::kernel::breakglass::{self, Unloaded};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        if context.client.is_served().await {
            let message = "a daemon is running; it would put everything back";
            return Err(CliError::new(Exit::Refused, message, Some("stop it first")));
        }
        let removed = breakglass::unload(&context.global.pin_path)?;
        let pin_path = context.global.pin_path.display();
        if context.output.json {
            let removed = serde_json::json!({ "links": removed.links, "maps": removed.maps });
            context.output.object(&serde_json::json!({ "removed": removed }))?;
        } else if removed == Unloaded::default() {
            context.output.text(&format!("nothing of AgentSec under {pin_path}\n"))?;
        } else {
            let Unloaded { links, maps } = removed;
            context.output.text(&format!("removed {links} links and {maps} maps from {pin_path}\n"))?;
        }
        Ok(Exit::Ok)
    }
}
