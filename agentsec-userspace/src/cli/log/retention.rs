//! `log retention`: what the daemon would let go of the log now.

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::run::CONFIG;
use crate::cli::units::{bytes, count};
use crate::cli::{Context, Outcome};
use crate::clock;
use crate::record::retention::service::dry_run;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The configuration; drop-ins are read from conf.d beside it
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let config = crate::config::load(&self.config)
            .map_err(|errors| CliError::configuration(&anyhow::Error::new(errors)))?;
        let plan = dry_run(&context.global.state_dir, &config.log, clock::now())?;
        if context.output.json {
            context.output.object(&plan)?;
            return Ok(Exit::Ok);
        }
        let mut text = format!(
            "{} of entries are here; those before entry {} have gone, those before {} are covered\n",
            bytes(plan.bytes_here),
            count(plan.removed_before),
            count(plan.covered),
        );
        text += &match plan.is_empty() {
            true => "nothing may go now\n".to_owned(),
            false => format!(
                "entries {} to {} may go now: {}\n",
                count(plan.removed_before),
                count(plan.cut - 1),
                bytes(plan.bytes)
            ),
        };
        context.output.text(&text)?;
        Ok(Exit::Ok)
    }
}
