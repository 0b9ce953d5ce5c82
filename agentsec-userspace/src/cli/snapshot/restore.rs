//! `snapshot restore`: works on the repository itself, so that it also does when no daemon runs. One that runs is told,
//! for its log.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::run::CONFIG;
use super::super::{Context, Outcome};
use crate::api::client::{ClientError, escaped};
use crate::api::views::recovery::Restored;
use crate::config;
use crate::recovery::memory;
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
    pub(in crate::cli) async fn run(self, context: &Context) -> Outcome {
        let config = config::load(&self.config)
            .map_err(|errors| CliError::configuration(&anyhow::Error::new(errors)))?;
        let (store, id) = find(&config, context, &self.snapshot).map_err(|failure| told(&failure))?;
        let to = std::path::absolute(&self.to)?;
        let target = fit(&to, self.replace).map_err(|failure| told(&failure))?;
        let restored = restore(&store, &id, &target);
        let logged = log(context, &store.agent, &id, &to, &restored).await;
        let read_from = restored.map_err(|failure| told(&failure))?;
        if context.output.json {
            let answer = json!({
                "agent": store.agent, "snapshot": id, "to": to, "read_from": read_from, "logged": logged.is_ok(),
            });
            context.output.object(&answer)?;
            return Ok(Exit::Ok);
        }
        let mut text =
            format!("snapshot {id} of {} is in {} (read from {read_from})\n", store.agent, to.display());
        if let Err(why) = logged {
            text.push_str(&format!("the log does not tell of it: {why}\n"));
        }
        context.output.text(&text)?;
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
fn find(config: &config::Config, context: &Context, id: &str) -> Result<(Store, String), Failure> {
    let state_dir = &context.global.state_dir;
    let memory = memory::home(&context.global.run_dir);
    let mut found = Vec::new();
    for (name, agent) in &config.agents {
        let Some(recovery) = &agent.recovery else { continue };
        let store = Store::new(name, recovery, &config.recovery, state_dir)?
            .in_memory(memory.as_deref(), &config.recovery);
        let ids: Vec<String> = store.catalogue()?.records.into_iter().map(|record| record.id).collect();
        found.extend(
            ids.into_iter()
                .filter(|known| !id.is_empty() && known.starts_with(id))
                .map(|known| (store.clone(), known)),
        );
    }
    let message = match found.len() {
        1 => return Ok(found.remove(0)),
        0 => format!("no agent has a snapshot `{id}` (catalogues in {})", state_dir.display()),
        several => format!("{several} snapshots begin with `{id}`"),
    };
    Err(Failure::new(Kind::NoSnapshot, message))
}

/// A target that may be written.
fn fit(to: &Path, replace: bool) -> Result<Target, Failure> {
    let target = Target::of(to)?;
    let is_empty =
        !target.exists()? || fs::read_dir(target.path()).map_err(Failure::io(to.display()))?.next().is_none();
    if is_empty || replace {
        return Ok(target);
    }
    let message = format!("{} is not empty; --replace removes what is in it", to.display());
    Err(Failure::new(Kind::Target, message))
}

/// Where it was read.
fn restore(store: &Store, id: &str, target: &Target) -> Result<String, Failure> {
    let name = staging::name_of_process(&store.agent);
    let laid_out = store.lay_out(id, target, &name, &Cancel::default())?;
    let exchanged = staging::exchange(&laid_out.directory, target);
    staging::clear(&laid_out.place)?;
    exchanged.map(|_| laid_out.read_from())
}

/// Tells the daemon what came of it; why there is nobody to be told.
async fn log(
    context: &Context,
    agent: &str,
    id: &str,
    to: &Path,
    restored: &Result<String, Failure>,
) -> Result<(), String> {
    let path = format!("/v1/agents/{}/snapshots/{id}/restored", escaped(agent));
    let body = Restored {
        to: to.display().to_string(),
        read_from: restored.as_ref().ok().cloned(),
        error: restored.as_ref().err().map(|failure| failure.message.clone()),
    };
    let answer: Result<serde_json::Value, ClientError> = context.client.post(&path, &body).await;
    answer.map(drop).map_err(|error| error.to_string())
}
