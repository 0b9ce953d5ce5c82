//! Which snapshots bring an agent back: the newest point that is verified and from before anything suspicious, for
//! the agent and everybody whom it depends on. Pure: the same knowledge gives the same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::catalogue::Record;
use super::moment::Moment;
use super::testimony::Attested;

/// What the plan rests on.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Every agent's snapshots, oldest first.
    pub records: BTreeMap<String, Vec<Record>>,
    /// Whom each depends on.
    pub dependencies: BTreeMap<String, Vec<String>>,
    /// The first suspicious event of those that have an incident.
    pub suspicious: BTreeMap<String, Moment>,
    /// By a snapshot's id, whether the log says that it is ours.
    pub attested: BTreeMap<String, Attested>,
}

/// One agent's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The agent.
    pub agent: String,
    /// Its snapshot.
    pub snapshot: String,
}

/// What is to be done, in the order in which agents start: dependencies first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// What an operator should know of it.
    pub warnings: Vec<String>,
    /// Newer points that were passed over, newest first, and why.
    pub passed_over: Vec<String>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// It has no snapshots at all.
    NoSnapshots(String),
    /// None of them will do: each, newest first, with the reason.
    NoneFits(Vec<String>),
    /// None, or more than one, begins with this.
    Unknown(String),
    /// The one that was asked for will not do.
    Unfit(String),
    /// They depend on each other in a circle.
    Circle(String),
}

impl fmt::Display for NoPlan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSnapshots(agent) => write!(out, "`{agent}` has no snapshots"),
            Self::NoneFits(reasons) => {
                write!(
                    out,
                    "no snapshot will do (name one with --snapshot to insist): {}",
                    reasons.join("; ")
                )
            }
            Self::Unknown(id) => write!(out, "no snapshot, or more than one, begins with `{id}`"),
            Self::Unfit(why) => write!(out, "this snapshot cannot be used: {why}"),
            Self::Circle(agent) => write!(out, "`{agent}` depends on itself"),
        }
    }
}

impl std::error::Error for NoPlan {}

/// The most passed-over points that are told.
const TOLD: usize = 20;

/// `agent` and everybody whom it depends on, dependencies first.
///
/// # Errors
///
/// When they depend on each other in a circle.
pub fn order(agent: &str, dependencies: &BTreeMap<String, Vec<String>>) -> Result<Vec<String>, NoPlan> {
    fn visit<'a>(
        agent: &'a str,
        dependencies: &'a BTreeMap<String, Vec<String>>,
        above: &mut BTreeSet<&'a str>,
        done: &mut Vec<String>,
    ) -> Result<(), NoPlan> {
        if done.iter().any(|name| name == agent) {
            return Ok(());
        }
        if !above.insert(agent) {
            return Err(NoPlan::Circle(agent.to_owned()));
        }
        for other in dependencies.get(agent).into_iter().flatten() {
            visit(other, dependencies, above, done)?;
        }
        above.remove(agent);
        done.push(agent.to_owned());
        Ok(())
    }
    let mut done = Vec::new();
    visit(agent, dependencies, &mut BTreeSet::new(), &mut done)?;
    Ok(done)
}

/// The plan that brings `agent` back; to the snapshot `wanted` if one is named, whether or not it is suspicious.
///
/// # Errors
///
/// When no snapshot will do.
pub fn plan(known: &Known, agent: &str, wanted: Option<&str>) -> Result<Plan, NoPlan> {
    let order = order(agent, &known.dependencies)?;
    let records = known.records.get(agent).map(Vec::as_slice).unwrap_or_default();
    if records.is_empty() {
        return Err(NoPlan::NoSnapshots(agent.to_owned()));
    }
    if let Some(id) = wanted {
        let mut found = records.iter().filter(|record| !id.is_empty() && record.id.starts_with(id));
        let (Some(record), None) = (found.next(), found.next()) else {
            return Err(NoPlan::Unknown(id.to_owned()));
        };
        return insist(known, agent, record, &order);
    }
    let mut passed_over = Vec::new();
    for record in records.iter().rev() {
        let fit = members(known, agent, record, &order).and_then(|found| {
            found.iter().try_for_each(|(name, member)| fits(known, name, member))?;
            Ok(found)
        });
        match fit {
            Ok(found) => {
                return Ok(Plan {
                    steps: steps(&order, &found),
                    warnings: unknown(known, &found),
                    passed_over,
                });
            }
            Err(why) if passed_over.len() < TOLD => passed_over.push(format!("{}: {why}", short(&record.id))),
            Err(_) => {}
        }
    }
    Err(NoPlan::NoneFits(passed_over))
}

/// Who depends on somebody in the plan and is not in it: their states may no longer fit.
#[must_use]
pub fn left_out(plan: &Plan, dependencies: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let is_in = |name: &String| plan.steps.iter().any(|step| step.agent == *name);
    let others = dependencies.iter().filter(|(name, _)| !is_in(name));
    let theirs =
        others.flat_map(|(name, on)| on.iter().filter(|other| is_in(other)).map(move |on| (name, on)));
    theirs.map(|(name, on)| format!("`{name}` depends on `{on}` and keeps the state that it has")).collect()
}

/// A plan with the snapshot that an operator has named: only what cannot be restored is refused.
fn insist(known: &Known, agent: &str, record: &Record, order: &[String]) -> Result<Plan, NoPlan> {
    let found = members(known, agent, record, order).map_err(NoPlan::Unfit)?;
    let mut warnings = unknown(known, &found);
    for (name, member) in &found {
        if let Some(why) = unusable(member) {
            return Err(NoPlan::Unfit(format!("{} of `{name}` {why}", short(&member.id))));
        }
        warnings.extend(fits(known, name, member).err());
    }
    Ok(Plan { steps: steps(order, &found), warnings, passed_over: Vec::new() })
}

/// The snapshots that belong to `record`, one for each agent in `order`.
fn members<'a>(
    known: &'a Known,
    agent: &str,
    record: &'a Record,
    order: &[String],
) -> Result<BTreeMap<String, &'a Record>, String> {
    let mut found = BTreeMap::from([(agent.to_owned(), record)]);
    // Dependents come last in the order, so each is found before those whom it depends on.
    for name in order.iter().rev() {
        let Some(member) = found.get(name).copied() else {
            return Err(format!("it was taken without `{name}`"));
        };
        for (other, id) in &member.depends {
            let theirs = known.records.get(other).into_iter().flatten().find(|record| record.id == *id);
            let theirs = theirs.ok_or_else(|| format!("{} of `{other}` is not known", short(id)))?;
            if let Some(before) = found.insert(other.clone(), theirs)
                && before.id != theirs.id
            {
                return Err(format!("two states of `{other}` would be needed"));
            }
        }
    }
    found.retain(|name, _| order.contains(name));
    Ok(found)
}

fn steps(order: &[String], found: &BTreeMap<String, &Record>) -> Vec<Step> {
    order
        .iter()
        .filter_map(|name| Some(Step { agent: name.clone(), snapshot: found.get(name)?.id.clone() }))
        .collect()
}

/// Whether a snapshot is verified and from before everything suspicious of anybody in the group.
fn fits(known: &Known, name: &str, record: &Record) -> Result<(), String> {
    if let Some(why) = unusable(record) {
        return Err(format!("{} of `{name}` {why}", short(&record.id)));
    }
    if !record.is_verified() {
        return Err(format!("{} of `{name}` is not verified", short(&record.id)));
    }
    if let Some(incident) = &record.suspect {
        let id = short(&record.id);
        return Err(format!(
            "{id} of `{name}` is from incident {incident}, which was answered with an earlier one"
        ));
    }
    if let Some(Attested::No(why)) = known.attested.get(&record.id) {
        return Err(format!("{} of `{name}` may not be ours: {why}", short(&record.id)));
    }
    for (suspect, since) in &known.suspicious {
        if !record.finished.is_before(since) {
            let (id, at) = (short(&record.id), since.shown());
            return Err(format!(
                "{id} of `{name}` is not from before {at}, when `{suspect}` became suspicious"
            ));
        }
    }
    Ok(())
}

/// Of which snapshots the log cannot say whether they are ours: a recovery does not wait for a log that is broken.
fn unknown(known: &Known, found: &BTreeMap<String, &Record>) -> Vec<String> {
    let doubt = |(name, record): (&String, &&Record)| match known.attested.get(&record.id) {
        Some(Attested::Unknown(why)) => {
            Some(format!("whether {} of `{name}` is ours is not known: {why}", short(&record.id)))
        }
        _ => None,
    };
    found.iter().filter_map(doubt).collect()
}

fn unusable(record: &Record) -> Option<String> {
    if record.is_elsewhere() {
        return None;
    }
    match &record.damaged {
        _ if record.missing => Some("is no longer in its repository".into()),
        Some(why) => Some(format!("is damaged: {why}")),
        None => None,
    }
}

/// An id as people read it.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
