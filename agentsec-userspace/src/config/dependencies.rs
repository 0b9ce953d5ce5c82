//! What `[agents.NAME.recovery]` cannot know alone: that dependencies exist and go round in no circle, and that no
//! two agents restore the same files.

use super::Config;
use super::recovery::{AgentRecovery, StateSource};
use super::section::Section;
use super::validate::spot_of;
use std::collections::{BTreeMap, BTreeSet};

/// Reports every problem between the agents' sections.
pub(super) fn check(config: &Config, root: &Section<'_>) {
    let all: BTreeMap<&str, &AgentRecovery> = config
        .agents
        .iter()
        .filter_map(|(name, agent)| Some((name.as_str(), agent.recovery.as_ref()?)))
        .collect();
    for (name, recovery) in &all {
        let report = |key: &str, message: String, allowed: &str| {
            if let Some(spot) = spot_of(root, "agents", name, "recovery") {
                let key = format!("agents.{name}.recovery{key}");
                root.report.problem(spot, &key, message, Some(allowed.into()));
            }
        };
        if config.agents[*name].adopts() {
            report("", "belongs to a pattern".into(), "an agent with a section of its own");
        }
        let is_stream = !matches!(recovery.source, StateSource::Directory(_));
        if is_stream && recovery.restore.is_empty() {
            let allowed = "the command that reads the state on its standard input";
            report(".restore", "is missing".into(), allowed);
        } else if !is_stream && !recovery.restore.is_empty() {
            report(".restore", "has no use: a directory is put back as it is".into(), "no restore");
        }
        for other in &recovery.dependencies {
            if !all.contains_key(other.as_str()) {
                let message = format!("{other:?} is not recoverable");
                report(".dependencies", message, "agents with a recovery section");
            }
        }
        if reaches(&all, name, name) {
            let message = "depends on itself, directly or through others".into();
            report(".dependencies", message, "dependencies without a circle");
        }
        let same = |theirs: &AgentRecovery| {
            recovery.repository.is_some() && theirs.repository == recovery.repository
        };
        if let Some((other, _)) = all.iter().find(|(other, theirs)| *other < name && same(theirs)) {
            let allowed = "a repository that no other agent has";
            report(".repository", format!("is that of `{other}` too"), allowed);
        }
        if let Some(other) = shared(&all, name, recovery) {
            let allowed = "a directory that is neither inside nor around another's";
            report(".directory", format!("overlaps that of `{other}`"), allowed);
        }
    }
}

/// Whether `from` depends on `to`.
fn reaches(all: &BTreeMap<&str, &AgentRecovery>, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(name) = next.pop() {
        for other in all.get(name).into_iter().flat_map(|recovery| &recovery.dependencies) {
            if other == to {
                return true;
            }
            if seen.insert(other.as_str()) {
                next.push(other);
            }
        }
    }
    false
}

/// An agent before `name` whose directory is inside or around its own.
fn shared<'a>(
    all: &BTreeMap<&'a str, &AgentRecovery>,
    name: &str,
    recovery: &AgentRecovery,
) -> Option<&'a str> {
    let StateSource::Directory(own) = &recovery.source else { return None };
    all.iter().take_while(|(other, _)| **other != name).find_map(|(other, theirs)| match &theirs.source {
        StateSource::Directory(path) if path.starts_with(own) || own.starts_with(path) => Some(*other),
        _ => None,
    })
}
