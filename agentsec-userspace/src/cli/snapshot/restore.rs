//! `snapshot restore`: works on the repository itself, so that it also does when no daemon runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::run::CONFIG;
use super::super::{Context, Outcome};
use crate::config;
use crate::recovery::staging::{self, Target};
use crate::recovery::{Cancel, Failure, Kind, Store};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The snapshot's id, or the beginning of it
    snapshot: String,
    /// Directory that becomes the state's: absent or empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Put it in the place of a directory that is not empty, which is removed
    #[arg(long)]
    replace: bool,
    /// The daemon's configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

impl Args {
    pub(in crate::cli) fn run(self, context: &Context) -> Outcome {
        let config = config::load(&self.config)
            .map_err(|errors| CliError::configuration(&anyhow::Error::new(errors)))?;
        let (store, id) =
            find(&config, &context.global.state_dir, &self.snapshot).map_err(|failure| told(&failure))?;
        let to = std::path::absolute(&self.to)?;
        restore(&store, &id, &to, self.replace).map_err(|failure| told(&failure))?;
        if context.output.json {
            context.output.object(&json!({ "agent": store.agent, "snapshot": id, "to": to }))?;
        } else {
            context.output.text(&format!("snapshot {id} of {} is in {}\n", store.agent, to.display()))?;
        }
        Ok(Exit::Ok)
    }
}

fn told(failure: &Failure) -> CliError {
    let exit = match failure.kind {
        Kind::NoSnapshot => Exit::NotFound,
        Kind::Target | Kind::Key => Exit::Refused,
        _ => Exit::Failure,
    };
    CliError::new(exit, failure.message.clone(), None)
}

/// The one agent that has the snapshot.
fn find(config: &config::Config, state_dir: &Path, id: &str) -> Result<(Store, String), Failure> {
    let mut found = Vec::new();
    for (name, agent) in &config.agents {
        let Some(recovery) = &agent.recovery else { continue };
        let store = Store::new(name, recovery, &config.recovery, state_dir)?;
        let ids: Vec<String> = store.catalogue()?.records.into_iter().map(|record| record.id).collect();
        found.extend(
            ids.into_iter().filter(|known| known.starts_with(id)).map(|known| (store.clone(), known)),
        );
    }
    let message = match found.len() {
        1 => return Ok(found.remove(0)),
        0 => format!("no agent has a snapshot `{id}` (catalogues in {})", state_dir.display()),
        several => format!("{several} snapshots begin with `{id}`"),
    };
    Err(Failure::new(Kind::NoSnapshot, message))
}

fn restore(store: &Store, id: &str, to: &Path, replace: bool) -> Result<(), Failure> {
    let target = Target::of(to)?;
    let is_empty =
        !target.exists()? || fs::read_dir(target.path()).map_err(Failure::io(to.display()))?.next().is_none();
    if !is_empty && !replace {
        let message = format!("{} is not empty; --replace removes what is in it", to.display());
        return Err(Failure::new(Kind::Target, message));
    }
    let name = staging::name_of_process(&store.agent);
    let (laid_out, place) = store.lay_out(id, &target, &name, &Cancel::default())?;
    let exchanged = staging::exchange(&laid_out, &target);
    staging::clear(&place)?;
    exchanged.map(drop)
}
