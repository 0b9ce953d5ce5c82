//! `check-config`: read a configuration as the daemon would, and say what is wrong with it.

use std::path::{Path, PathBuf};

use super::error::CliError;
use super::exit::Exit;
use super::run::CONFIG;
use super::{Context, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration; drop-ins are read from conf.d beside it
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let agents = check(&self.config).map_err(|error| CliError::configuration(&error))?;
        if context.output.json {
            let found = serde_json::json!({ "config": self.config, "agents": agents });
            context.output.object(&found)?;
        } else {
            context.output.text(&format!("{}: good; {} agents\n", self.config.display(), agents.len()))?;
        }
        Ok(Exit::Ok)
    }
}

/// The names of the agents that the configuration defines.
fn check(config: &Path) -> anyhow::Result<Vec<String>> {
    Ok(crate::config::load(config)?.agents.into_keys().collect())
}
