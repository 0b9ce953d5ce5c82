//! `snapshot create`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::units::{bytes, count};
use super::super::{Context, Outcome, job};
use crate::api::client::escaped;
use crate::recovery::Record;
use crate::recovery::jobs::Job;
use crate::recovery::store::HANDED_BYTES;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Which agent
    agent: String,
    /// State to hand over first, for an agent whose state is handed over; - reads the standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

impl Args {
    pub(in crate::cli) async fn run(self, context: &Context) -> Outcome {
        let path = format!("/v1/agents/{}", escaped(&self.agent));
        if let Some(from) = &self.from {
            let state = read(from)?;
            let _: serde_json::Value = context.client.put(&format!("{path}/state"), state.into()).await?;
        }
        let job: Job = context.client.post(&format!("{path}/snapshots"), &json!({})).await?;
        let job = job::follow(context, job).await?;
        if context.output.json {
            context.output.object(&job.result)?;
            return Ok(Exit::Ok);
        }
        let record: Record = serde_json::from_value(job.result).unwrap_or_default();
        let vanished = match record.vanished {
            0 => String::new(),
            some => format!("; {} files vanished meanwhile", count(some)),
        };
        context.output.text(&format!(
            "snapshot {} of {}: {} files, {}, {} of it new; verified{vanished}\n",
            record.id,
            self.agent,
            count(record.files),
            bytes(record.bytes),
            bytes(record.added),
        ))?;
        Ok(Exit::Ok)
    }
}

/// All of it, or, if it is more than the daemon takes, a little more than that: the daemon says so.
fn read(from: &Path) -> Result<Vec<u8>, CliError> {
    let mut state = Vec::new();
    let input: io::Result<Box<dyn Read>> = if from.as_os_str() == "-" {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(from).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let read = input.and_then(|input| input.take(HANDED_BYTES as u64 + 1).read_to_end(&mut state));
    read.map_err(|error| CliError::failure(format!("{}: {error}", from.display())))?;
    Ok(state)
}
