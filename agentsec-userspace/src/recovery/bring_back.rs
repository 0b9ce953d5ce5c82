//! Jobs that bring agents back, each in a thread of its own.

use std::collections::{BTreeMap, BTreeSet};

use agentsec_common::policy::State;
use serde_json::{Value, json};

use crate::bundle::Waited;
use crate::core::EventKind;

use super::durable;
use super::error::{Failure, Kind};
use super::progress::{End, Progress, Way};
use super::recover::{Recovery, Subject};
use super::service::Task;
use super::store;
use super::work::tell;
use super::world::Told;

/// Brings an agent back, and asks for its probation.
pub(super) fn recover(task: &Task, progress: Progress) -> Result<Value, Failure> {
    bring_back(task, progress, |recovery| recovery.run())
}

/// Takes up a recovery that a daemon before this one had begun.
pub(super) fn resume(task: &Task, progress: Progress) -> Result<Value, Failure> {
    match &progress.ended {
        Some(End::Well) => {
            // Since then it may have been let out, and be in trouble anew.
            let world = task.service.world();
            let now = world.agents.get(&progress.agent);
            let is_the_same = now.is_some_and(|now| now.incident == progress.incident);
            return conclude(task, &progress, Ok(()), is_the_same);
        }
        Some(End::Badly(why)) => {
            let failure = Failure::new(Kind::Other, why.clone());
            return conclude(task, &progress, Err(failure), false);
        }
        None => {}
    }
    bring_back(task, progress, |recovery| match recovery.resume()? {
        Way::Forward => Ok(()),
        Way::Back => Err(Failure::new(
            Kind::Cancelled,
            "the daemon ended before anything was put in place; everything is as it was",
        )),
    })
}

fn bring_back(
    task: &Task,
    progress: Progress,
    work: impl FnOnce(&mut Recovery<'_>) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let mut tell_step = |message: String| task.say(message);
    let subjects = match subjects(task, &progress) {
        Ok(subjects) => subjects,
        Err(failure) => return conclude(task, &progress, Err(failure), false),
    };
    let home = store::home(&task.service.shared().paths.state_dir);
    let mut recovery = Recovery {
        home: &home,
        subjects: &subjects,
        progress,
        cancel: &task.cancel,
        before_stop: &|agent| wait_for_evidence(task, agent),
        tell: &mut tell_step,
    };
    let result = work(&mut recovery);
    let progress = recovery.progress;
    conclude(task, &progress, result, true)
}

/// Killing an agent's processes destroys evidence: it waits until that is kept, but not for ever.
fn wait_for_evidence(task: &Task, agent: &str) {
    let shared = task.service.shared();
    if let Waited::GaveUp(waited) = shared.paths.evidence.wait(agent) {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        shared
            .tell_alert(agent, json!({ "what": "stopped_before_evidence_was_kept", "waited_ms": waited_ms }));
    }
}

fn subjects(task: &Task, progress: &Progress) -> Result<BTreeMap<String, Subject>, Failure> {
    let (world, shared) = (task.service.world(), task.service.shared());
    let names: BTreeSet<&String> = progress.plan.steps.iter().map(|step| &step.agent).collect();
    names
        .into_iter()
        .map(|name| Ok((name.clone(), world.subject(name, &shared.paths.state_dir, shared.cgroups())?)))
        .collect()
}

/// Records what came of a recovery; whoever is back goes on probation if `may_release`.
fn conclude(
    task: &Task,
    progress: &Progress,
    result: Result<(), Failure>,
    may_release: bool,
) -> Result<Value, Failure> {
    let read_from: BTreeMap<&String, &String> =
        progress.parts.iter().map(|(agent, part)| (agent, &part.read_from)).collect();
    let snapshots: BTreeMap<&String, &String> =
        progress.plan.steps.iter().map(|step| (&step.agent, &step.snapshot)).collect();
    let world = task.service.world();
    if result.is_ok() {
        suspect(task, progress);
    }
    for (agent, snapshot) in &snapshots {
        let incident = world.agents.get(*agent).and_then(|now| now.incident.clone());
        let data = json!({
            "action_type": "EMERGENCY_RECOVERY",
            "trigger_reason": match &progress.incident {
                Some(incident) => format!("recovery of `{}` from incident {incident}", progress.agent),
                None => format!("recovery of `{}`, which has no incident", progress.agent),
            },
            "automated": progress.automated,
            "by": progress.by,
            "isolation_level": match (&result, world.agents.get(*agent).map(|now| now.state)) {
                (Err(_), _) => "unchanged",
                (Ok(()), Some(State::Closed)) => "none",
                (Ok(()), _) => "partial",
            },
            "affected_services": snapshots.keys().collect::<Vec<_>>(),
            "recovery_snapshot": snapshot,
            "snapshots": snapshots,
            "read_from": read_from,
            "succeeded": result.is_ok(),
            "error": result.as_ref().err().map(|failure| failure.message.clone()),
            "answers": incident,
        });
        tell(task, agent, EventKind::ContainmentAction, data);
    }
    if result.is_ok() && may_release {
        for agent in snapshots.keys() {
            let by = format!("recovery, asked for by {}", progress.by);
            task.service.shared().tell(Told::Release { agent: (*agent).clone(), by });
        }
    }
    // What a daemon that ends no longer hears of is told by the next.
    if progress.ended.is_some() && task.service.shared().is_heard() {
        durable::remove(&Progress::file(
            &store::home(&task.service.shared().paths.state_dir),
            &progress.agent,
        ))?;
    }
    result?;
    task.say("restored and started");
    Ok(json!({ "snapshots": snapshots, "warnings": progress.plan.warnings }))
}

/// What was taken between the incident's beginning and now is no state to come back to.
fn suspect(task: &Task, progress: &Progress) {
    let Some(since) = &progress.since else { return };
    let incident = progress.incident.as_deref().unwrap_or("of its group");
    let shared = task.service.shared();
    for step in &progress.plan.steps {
        let store = task.service.world().store(&step.agent, &shared.paths.state_dir);
        if let Err(failure) = store.and_then(|store| store.suspect(incident, since, &step.snapshot)) {
            let data = json!({ "what": "snapshots_not_suspected", "error": failure.message });
            shared.tell_alert(&step.agent, data);
        }
    }
}
