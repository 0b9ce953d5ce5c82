//! An operator's request, for one agent or for many in one step.
//!
//! Of many agents, everything that makes the kernel stricter is commanded before the first event, and everything
//! that makes it laxer after the last: no agent of a group goes on talking while another's event is written.

use super::agent::Agent;
use super::command::{Command, Done, Refusal};
use super::draft::{Draft, EventKind};
use super::guard::Guard;
use super::input::{Request, Target};
use super::operator;
use super::persist;
use super::time::Time;
use agentsec_common::agent::Slot;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What became of each agent.
type Outcomes = Vec<(String, Result<Done, Refusal>)>;

/// Carries out `request` for everybody it means. A refusal of one agent does not stop the others.
pub(super) fn carry_out(
    agents: &mut BTreeMap<Slot, Agent>,
    now: Time,
    request: &Request,
    by: &str,
    guard: &mut Guard,
    out: &mut Vec<Command>,
) {
    let target = request.target();
    let group = match target {
        Target::Tag(tag) => Some(persist::group(tag, now)),
        Target::Agent(_) | Target::All => None,
    };
    let mut step = Step::default();
    let mut outcomes = Outcomes::new();
    for agent in agents.values_mut().filter(|agent| is_meant(agent, target)) {
        let mut own = Vec::new();
        let outcome = operator::carry_out(agent, now, request, by, guard, &mut own);
        step.add(own, group.as_deref());
        outcomes.push((agent.id.clone(), outcome));
    }
    match target {
        Target::Agent(id) if outcomes.is_empty() => outcomes.push((id.clone(), Err(Refusal::UnknownAgent))),
        Target::Tag(tag) if outcomes.is_empty() => outcomes.push((tag.clone(), Err(Refusal::UnknownTag))),
        _ => {}
    }
    outcomes.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut event = command_event(agents, now, request, by, &outcomes);
    event.correlation_id = event.correlation_id.or(group);
    step.events.push(Command::Record(event));
    out.extend(step.stricter.into_iter().chain(step.events).chain(step.laxer));
    out.push(Command::Reply(outcomes));
}

fn is_meant(agent: &Agent, target: &Target) -> bool {
    match target {
        Target::Agent(id) => agent.id == *id,
        Target::Tag(tag) => agent.settings.tags.contains(tag),
        Target::All => true,
    }
}

/// Commands of several agents, sorted.
#[derive(Default)]
struct Step {
    stricter: Vec<Command>,
    events: Vec<Command>,
    laxer: Vec<Command>,
}

impl Step {
    /// Sorts one agent's commands: what comes before its last event is stricter, what comes after it laxer.
    fn add(&mut self, own: Vec<Command>, group: Option<&str>) {
        let last_event = own.iter().rposition(|command| matches!(command, Command::Record(_)));
        for (index, command) in own.into_iter().enumerate() {
            match command {
                Command::Record(mut draft) => {
                    name_group(&mut draft, group);
                    self.events.push(Command::Record(draft));
                }
                word if last_event.is_some_and(|last| index < last) => self.stricter.push(word),
                word => self.laxer.push(word),
            }
        }
    }
}

/// Says in an agent's event which group's it is. The kernel's own trips belong to none.
fn name_group(draft: &mut Draft, group: Option<&str>) {
    if let (Some(group), None, Value::Object(data)) = (group, draft.trip, &mut draft.data) {
        data.insert("group".into(), group.into());
    }
}

fn command_event(
    agents: &BTreeMap<Slot, Agent>,
    now: Time,
    request: &Request,
    by: &str,
    outcomes: &Outcomes,
) -> Draft {
    let outcome = |(id, outcome): &(String, Result<Done, Refusal>)| match outcome {
        Ok(done) => json!({ "agent_id": id, "changed": done.changed, "outcome": done.text }),
        Err(refusal) => json!({ "agent_id": id, "changed": false, "refused": refusal.to_string() }),
    };
    let (reason, flag) = match request {
        Request::Quarantine { reason, hold, .. } => (Some(reason), hold.then_some("hold")),
        Request::Release { force, .. } => (None, force.then_some("force")),
        Request::Shadow { off, .. } | Request::Exempt { off, .. } => (None, off.then_some("off")),
    };
    let mut data = json!({
        "command": request.verb(),
        "flag": flag,
        "reason": reason,
        "by": by,
        "outcomes": outcomes.iter().map(outcome).collect::<Vec<_>>(),
    });
    match request.target() {
        Target::All => Draft::daemon(now, EventKind::OperatorCommand, data),
        Target::Tag(tag) => {
            let known = outcomes.iter().filter(|(_, outcome)| *outcome != Err(Refusal::UnknownTag));
            data["tag"] = json!(tag);
            data["agents"] = json!(known.count());
            Draft::daemon(now, EventKind::OperatorCommand, data)
        }
        Target::Agent(id) => match agents.values().find(|agent| agent.id == *id) {
            Some(agent) => agent.draft(now, EventKind::OperatorCommand, data),
            None => {
                Draft { agent_id: Some(id.clone()), ..Draft::daemon(now, EventKind::OperatorCommand, data) }
            }
        },
    }
}
