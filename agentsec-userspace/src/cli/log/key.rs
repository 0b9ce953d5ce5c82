//! `log key`.

use super::cannot;
use crate::cli::exit::Exit;
use crate::cli::{Context, Outcome};
use crate::record::evidence::{LOG_NAME, key};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let directory = context.global.state_dir.join(LOG_NAME);
        let public =
            key::read_public(&directory).map_err(|error| cannot("the log in", &directory, &error))?;
        if context.output.json {
            context
                .output
                .object(&serde_json::json!({ "origin": public.name(), "key": public.to_string() }))?;
        } else {
            context.output.text(&format!("{public}\n"))?;
        }
        Ok(Exit::Ok)
    }
}
