//! `recover`: bring an agent back, and see how it does on probation.

use std::time::Duration;

use serde_json::{Value, json};

use super::error::CliError;
use super::exit::Exit;
use super::style::{Style, Tone, harmless};
use super::{Context, Outcome, job};
use crate::api::client::escaped;
use crate::api::views::recovery::PlanView;
use crate::api::views::{State, Status};
use crate::recovery::jobs::Job;
use crate::recovery::plan::short;

/// How often the agent is looked at while it is on probation.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which agent
    agent: String,
    /// Bring it back to this snapshot, even if it is not from before the incident
    #[arg(long, value_name = "ID")]
    snapshot: Option<String>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the end of its probation
    #[arg(long)]
    no_wait: bool,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let path = format!("/v1/agents/{}/recover", escaped(&self.agent));
        let body = json!({ "snapshot": self.snapshot, "dry_run": true });
        let view: PlanView = context.client.post(&path, &body).await?;
        if self.dry_run {
            if context.output.json {
                context.output.object(&view)?;
            } else {
                context.output.text(&render(&view, context.output.style))?;
            }
            return Ok(Exit::Ok);
        }
        if !context.output.json {
            context.output.text(&render(&view, context.output.style))?;
        }
        let before = state(context, &self.agent).await?;
        // The snapshots that were shown are the ones that are used.
        let chosen = view.plan.steps.iter().find(|step| step.agent == self.agent);
        let body = json!({ "snapshot": chosen.map(|step| &step.snapshot) });
        let job: Job = context.client.post(&path, &body).await?;
        let job = job::follow(context, job).await?;
        let probe = match (before, self.no_wait) {
            // Who was not contained is not probed.
            (State::Closed, _) => Probe::None,
            (_, true) => Probe::Awaited,
            (_, false) => Probe::Ended(probation(context, &self.agent).await?),
        };
        report(context, &self.agent, &job.result, probe)
    }
}

/// What became of an agent's probation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// It has none.
    None,
    /// Its end is not waited for.
    Awaited,
    /// It came to an end.
    Ended(State),
}

/// The state that an agent is in.
async fn state(context: &Context, agent: &str) -> Result<State, CliError> {
    let status: Status = context.client.get("/v1/status").await?;
    let found = status.agents.iter().find(|found| found.id == agent).map(|found| found.state);
    found.ok_or_else(|| CliError::failure(format!("`{agent}` is no longer known")))
}

/// Waits until an agent is no longer on probation.
async fn probation(context: &Context, agent: &str) -> Result<State, CliError> {
    // The release follows the job's end within a turn of the daemon's loop.
    let mut looks = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let state = state(context, agent).await?;
        looks += 1;
        if state == State::Closed || (state == State::Open && looks > 8) {
            return Ok(state);
        }
    }
}

fn report(context: &Context, agent: &str, result: &Value, probe: Probe) -> Outcome {
    let exit = if probe == Probe::Ended(State::Open) { Exit::Unhealthy } else { Exit::Ok };
    if context.output.json {
        let state = if let Probe::Ended(state) = probe { Some(state.name()) } else { None };
        context.output.object(&json!({ "agent": agent, "recovered": result, "probe_ended": state }))?;
        return Ok(exit);
    }
    let agent = harmless(agent);
    context.output.text(&match probe {
        Probe::None => format!("{agent} is restored and started; it was CLOSED, so it is not on probation\n"),
        Probe::Awaited => format!("{agent} is restored and started; it is on probation\n"),
        Probe::Ended(State::Closed) => {
            format!("{agent} is restored, and its probation was clean: it is CLOSED\n")
        }
        Probe::Ended(state) => format!("{agent} is restored, but its probation ended {}\n", state.name()),
    })?;
    Ok(exit)
}

fn render(view: &PlanView, style: Style) -> String {
    let mut text = String::new();
    if let Some(since) = &view.suspicious_since {
        text.push_str(&format!("{} is suspicious since {since}\n", harmless(&view.agent)));
    }
    for passed in &view.plan.passed_over {
        text.push_str(&style.paint(Tone::Dim, &format!("passed over {}\n", harmless(passed))));
    }
    for warning in &view.plan.warnings {
        text.push_str(&style.paint(Tone::Warning, &format!("! {}\n", harmless(warning))));
    }
    let names = |reverse: bool| {
        let mut names: Vec<String> = view.plan.steps.iter().map(|step| harmless(&step.agent)).collect();
        if reverse {
            names.reverse();
        }
        names.join(", ")
    };
    let snapshots: Vec<String> = view
        .plan
        .steps
        .iter()
        .map(|step| format!("{} to {}", harmless(&step.agent), short(&step.snapshot)))
        .collect();
    text.push_str(&format!(
        "stop {}; restore {}; start {}\n",
        names(true),
        snapshots.join(", "),
        names(false)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::plan::{Plan, Step};

    #[test]
    fn a_plan_says_whom_it_stops_restores_and_starts_in_which_order() {
        let step = |agent: &str, id: &str| Step { agent: agent.into(), snapshot: id.into() };
        let plan = Plan {
            steps: vec![step("db", "dddddddd1"), step("app", "aaaaaaaa1")],
            warnings: vec!["old".into()],
            passed_over: vec!["x: damaged".into()],
        };
        let view = PlanView { agent: "app".into(), plan, suspicious_since: Some("T".into()) };
        let expected = "app is suspicious since T\npassed over x: damaged\n! old\n\
                        stop app, db; restore db to dddddddd, app to aaaaaaaa; start db, app\n";
        assert_eq!(render(&view, Style::default()), expected);
    }
}
