//! What the daemon's loop tells recovery of the agents, and what recovery tells the loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agentsec_common::policy::State;
use serde_json::Value;

use crate::config::recovery::{AgentRecovery, Freeze, RecoveryConfig};
use crate::core::EventKind;

use super::error::{Failure, Kind};
use super::recover::Subject;
use super::store::Store;

/// One agent now.
#[derive(Clone, Debug)]
pub struct AgentNow {
    /// How it is brought back.
    pub recovery: AgentRecovery,
    /// The state in force.
    pub state: State,
    /// Its risk, per mille.
    pub risk_milli: u16,
    /// Whether an operator holds it.
    pub hold: bool,
    /// Its incident.
    pub incident: Option<String>,
    /// When it tripped, Unix nanoseconds.
    pub tripped_ns: Option<u64>,
    /// The cgroup in which it was found, by path.
    pub cgroup: Option<String>,
}

/// All recoverable agents now.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// What all share.
    pub common: RecoveryConfig,
    /// Below what there is room for snapshots in memory, if anywhere.
    pub memory: Option<PathBuf>,
    /// The agents.
    pub agents: BTreeMap<String, AgentNow>,
}

impl World {
    /// Whom each depends on.
    #[must_use]
    pub fn dependencies(&self) -> BTreeMap<String, Vec<String>> {
        self.agents.iter().map(|(id, agent)| (id.clone(), agent.recovery.dependencies.clone())).collect()
    }

    /// An agent that can be brought back.
    ///
    /// # Errors
    ///
    /// When it is not one.
    pub fn agent(&self, id: &str) -> Result<&AgentNow, Failure> {
        self.agents.get(id).ok_or_else(|| {
            let message = format!("there is no agent `{id}` with a section agents.{id}.recovery");
            Failure::new(Kind::NoSnapshot, message)
        })
    }

    /// The store of an agent.
    ///
    /// # Errors
    ///
    /// When it is not recoverable, or the environment file cannot be used.
    pub fn store(&self, id: &str, state_dir: &Path) -> Result<Store, Failure> {
        let store = Store::new(id, &self.agent(id)?.recovery, &self.common, state_dir)?;
        let mut store = store.in_memory(self.memory.as_deref(), &self.common);
        // Whoever is being contained goes first.
        store.restic.nice = true;
        Ok(store)
    }

    /// An agent with what stops it.
    ///
    /// # Errors
    ///
    /// As [`World::store`].
    pub fn subject(&self, id: &str, state_dir: &Path, tree: Option<&Path>) -> Result<Subject, Failure> {
        let agent = self.agent(id)?;
        let path = match &agent.recovery.freeze {
            Freeze::Cgroup(path) => Some(path),
            Freeze::Own | Freeze::No => agent.cgroup.as_ref(),
        };
        // The root of the tree is nobody's: everything would die.
        let path = path.filter(|path| !path.is_empty());
        path.map_or(Ok(()), |path| check_apart(id, path))?;
        let cgroup = path.and_then(|path| Some(tree?.join(path)));
        let mut store = self.store(id, state_dir)?;
        // Somebody waits for this.
        store.restic.nice = false;
        Ok(Subject { store, cgroup })
    }

    /// The cgroup that is frozen while an agent's state is read.
    ///
    /// # Errors
    ///
    /// When one is to be frozen and none is known.
    pub fn freezes(&self, id: &str, tree: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
        let agent = self.agent(id)?;
        let path = match &agent.recovery.freeze {
            Freeze::No => return Ok(None),
            Freeze::Cgroup(path) => Some(path),
            Freeze::Own => agent.cgroup.as_ref(),
        };
        match (path, tree) {
            (Some(path), Some(tree)) => check_apart(id, path).map(|()| Some(tree.join(path))),
            _ => Err(Failure::new(
                Kind::Source,
                format!(
                    "`{id}` is to be frozen, but no cgroup of it is known: give agents.{id}.recovery.freeze its path"
                ),
            )),
        }
    }
}

/// Who freezes or kills a cgroup must not be in it.
fn check_apart(id: &str, path: &str) -> Result<(), Failure> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if !own.lines().filter_map(|line| line.strip_prefix("0::/")).any(|own| Path::new(own).starts_with(path)) {
        return Ok(());
    }
    let message =
        format!("the daemon itself is in the cgroup {path} of `{id}`, which would be frozen or killed");
    Err(Failure::new(Kind::Source, message))
}

/// What recovery tells the daemon's loop.
#[derive(Clone, Debug)]
pub enum Told {
    /// Something to record.
    Event {
        /// Whom it is about.
        agent: String,
        /// Its kind.
        kind: EventKind,
        /// Its data.
        data: Value,
    },
    /// Everything before this has been taken.
    Heard(std::sync::mpsc::Sender<()>),
    /// An agent is back in a known state: it may be probed.
    Release {
        /// Whom.
        agent: String,
        /// Who brought it back.
        by: String,
    },
}
