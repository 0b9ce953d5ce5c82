//! What bringing agents back rests on. Containment does without, so nothing of it matters where nobody is recoverable.

use std::path::Path;

use crate::config::recovery::{AgentRecovery, RecoveryConfig};
use crate::config::{self, Config};
use crate::kernel::probe::{Check, CheckStatus};
use crate::recovery::health::{self, Repository};
use crate::recovery::{Failure, Store};

/// Names of the checks and what they are for.
const RESTIC: (&str, &str) = ("restic", "taking snapshots of agents' state and bringing them back");
const REPOSITORIES: (&str, &str) = ("repositories", "having a known-good state to come back to");

const REMEDY: &str = "docs/recovery.md tells where repositories, key and credentials are looked for";

/// The program, and every agent's repository as far as there are agents to be brought back.
pub(super) fn checks(path: &Path, state_dir: &Path) -> Vec<Check> {
    if !path.exists() {
        return vec![of_program(&RecoveryConfig::default().program, false)];
    }
    let config = match config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            let found = format!("{} has {} mistakes", path.display(), errors.0.len());
            let remedy = format!("agentsec check-config --config {} tells them", path.display());
            return vec![bad(REPOSITORIES, found, &remedy)];
        }
    };
    let agents = recoverable(&config);
    let mut checks = vec![of_program(&config.recovery.program, !agents.is_empty())];
    if !agents.is_empty() && checks[0].status == CheckStatus::Ok {
        checks.push(of_repositories(&config, &agents, state_dir));
    }
    checks
}

fn recoverable(config: &Config) -> Vec<(&String, &AgentRecovery)> {
    config.agents.iter().filter_map(|(name, agent)| Some((name, agent.recovery.as_ref()?))).collect()
}

fn of_program(program: &Path, is_needed: bool) -> Check {
    match health::version(program) {
        Ok(version) => good(RESTIC, version),
        Err(failure) if is_needed => bad(RESTIC, failure.message, "apt-get install restic"),
        Err(failure) => good(RESTIC, format!("{failure}; no agent is configured to be recovered")),
    }
}

fn of_repositories(config: &Config, agents: &[(&String, &AgentRecovery)], state_dir: &Path) -> Check {
    let store = |(name, recovery): &(&String, &AgentRecovery)| {
        Store::new(name, recovery, &config.recovery, state_dir)
    };
    let stores: Result<Vec<Store>, Failure> = agents.iter().map(store).collect();
    let stores = stores.map(|stores| stores.into_iter().flat_map(with_copy).collect::<Vec<_>>());
    match stores.map(|stores| told(&stores, &health::repositories(&stores))) {
        Ok((found, true)) => good(REPOSITORIES, found),
        Ok((found, false)) => bad(REPOSITORIES, found, REMEDY),
        Err(failure) => bad(REPOSITORIES, failure.message, REMEDY),
    }
}

/// A store, and the one where its copies go as if that were an agent's own.
fn with_copy(store: Store) -> Vec<Store> {
    let copy = store.copy_to.as_ref().map(|location| {
        let mut copy = store.clone();
        copy.agent = format!("copy of {}", store.agent);
        copy.restic.repository.clone_from(location);
        copy
    });
    std::iter::once(store).chain(copy).collect()
}

/// One line over all repositories, and whether all of them can be used.
fn told(stores: &[Store], found: &[Repository]) -> (String, bool) {
    let number = |kind: &Repository| found.iter().filter(|repository| *repository == kind).count();
    let mut parts = vec![format!("{} of {} open with the key", number(&Repository::Open), found.len())];
    match number(&Repository::NotYet) {
        0 => {}
        some => parts.push(format!("{some} not made yet, which the first snapshot does")),
    }
    let unusable = stores.iter().zip(found).filter_map(|(store, repository)| match repository {
        Repository::Unusable(why) => Some(format!("{}: {why}", store.agent)),
        _ => None,
    });
    let usable = parts.len();
    parts.extend(unusable);
    (parts.join("; "), parts.len() == usable)
}

fn good((name, why): (&'static str, &'static str), found: String) -> Check {
    Check { name, status: CheckStatus::Ok, found, why, remedy: None }
}

fn bad((name, why): (&'static str, &'static str), found: String, remedy: &str) -> Check {
    Check { name, status: CheckStatus::Fail, found, why, remedy: Some(remedy.into()) }
}
