//! `snapshot create`.

use std::io::Read;
use std::path::PathBuf;

use serde_json::json;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::units::{bytes, count};
use super::super::{Context, Outcome, job};
use crate::api::client::escaped;
use crate::recovery::Record;
use crate::recovery::jobs::Job;

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

fn read(from: &PathBuf) -> Result<Vec<u8>, CliError> {
    let mut state = Vec::new();
    let read = if from.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut state).map(drop)
    } else {
        std::fs::read(from).map(|bytes| state = bytes)
    };
    read.map_err(|error| CliError::failure(format!("{}: {error}", from.display())))?;
    Ok(state)
}
