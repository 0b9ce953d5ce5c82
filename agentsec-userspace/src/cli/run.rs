//! `run`: the daemon itself.

use std::path::PathBuf;

use super::error::CliError;
use super::exit::Exit;
use super::{Context, Outcome};

/// Where the configuration is unless told otherwise.
pub(super) const CONFIG: &str = "/etc/agentsec/agentsec.toml";

/// What the daemon is told by its command line.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Its configuration.
    pub config: PathBuf,
    /// Directory of its sockets.
    pub run_dir: PathBuf,
    /// Directory of its state.
    pub state_dir: PathBuf,
    /// Directory in a BPF file system where it pins programs and maps.
    pub pin_path: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration; drop-ins are read from conf.d beside it
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let global = context.global.clone();
        start(RunOptions {
            config: self.config,
            run_dir: global.run_dir,
            state_dir: global.state_dir,
            pin_path: global.pin_path,
        })?;
        Ok(Exit::Ok)
    }
}

/// Runs the daemon until it is told to stop. A wrong configuration is [`CliError::configuration`].
fn start(options: RunOptions) -> Result<(), CliError> {
    let config = crate::config::load(&options.config)
        .map_err(|errors| CliError::configuration(&anyhow::Error::new(errors)))?;
    Ok(crate::daemon::run(options, config)?)
}
