//! `snapshot verify`.

use serde_json::json;

use super::super::exit::Exit;
use super::super::{Context, Outcome, job};
use crate::api::client::escaped;
use crate::recovery::jobs::Job;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Which agent
    agent: String,
    /// Its snapshot's id, or the beginning of it
    snapshot: String,
}

impl Args {
    pub(in crate::cli) async fn run(self, context: &Context) -> Outcome {
        let (agent, snapshot) = (escaped(&self.agent), escaped(&self.snapshot));
        let path = format!("/v1/agents/{agent}/snapshots/{snapshot}/verify");
        let job: Job = context.client.post(&path, &json!({})).await?;
        let job = job::follow(context, job).await?;
        if context.output.json {
            context.output.object(&job.result)?;
        } else {
            let id = job.result["id"].as_str().unwrap_or(&self.snapshot).to_owned();
            context.output.text(&format!("snapshot {id} is whole: every byte was read and is right\n"))?;
        }
        Ok(Exit::Ok)
    }
}
