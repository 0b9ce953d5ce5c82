//! What survives the daemon beside the pins: every breaker's details, in one file that is replaced whole.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::core::persist::AgentState;

use super::saver::{Saver, Target};

/// Version of the file's format.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    agents: Vec<AgentState>,
}

/// The state file.
pub(super) struct StateFile {
    saver: Saver,
    dirty: bool,
    /// States of agents that are not known now: they may come back.
    absent: BTreeMap<String, AgentState>,
}

impl StateFile {
    /// Reads the file in `directory`. One that is not there is empty.
    ///
    /// # Errors
    ///
    /// When it cannot be read or understood: starting without it could let a contained agent out. When there is no thread to
    /// write it.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("state.json");
        let absent = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).with_context(|| {
                format!("{} cannot be understood; move it away to start without it", path.display())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let target = Target { path, is_synced: true };
        let saver = Saver::start("state", target).context("starting the thread that saves states")?;
        Ok(Self { saver, dirty: false, absent })
    }

    /// Takes what was saved of an agent.
    pub(super) fn take(&mut self, id: &str) -> Option<AgentState> {
        self.absent.remove(id)
    }

    /// The file no longer says what is the case.
    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    /// Whether it has to be written.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Replaces the file by `known` and what is kept of absent agents, soon.
    ///
    /// # Errors
    ///
    /// When it cannot be put into words: it stays dirty.
    pub(super) fn save(&mut self, known: Vec<AgentState>) -> Result<()> {
        let agents = known.into_iter().chain(self.absent.values().cloned()).collect();
        self.saver.save(serde_json::to_vec_pretty(&Document { format: FORMAT, agents })?);
        self.dirty = false;
        Ok(())
    }

    /// Waits until the file says what was saved, for at most `limit`.
    pub(super) fn wait(&self, limit: Duration) {
        self.saver.wait(limit);
    }

    /// Why the file does not say what was saved, if it should by now.
    pub(super) fn trouble(&self) -> Option<String> {
        self.saver.trouble()
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, AgentState>> {
    let document: Document = serde_json::from_slice(bytes)?;
    if document.format != FORMAT {
        bail!("its format is {}, and this version knows {FORMAT}", document.format);
    }
    Ok(document.agents.into_iter().map(|agent| (agent.id.clone(), agent)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_understood_is_not_ignored() {
        let directory = tempfile::tempdir().unwrap();
        assert!(StateFile::open(directory.path()).is_ok(), "none is a first start");
        for content in ["", "{", r#"{"format":99,"agents":[]}"#] {
            fs::write(directory.path().join("state.json"), content).unwrap();
            let error = StateFile::open(directory.path()).err().unwrap().to_string();
            assert!(error.contains("state.json"), "{error}");
        }
    }

    #[test]
    fn a_state_survives_the_file_and_an_agent_that_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let state: AgentState = serde_json::from_value(serde_json::json!({
            "id": "a", "state": "OPEN", "mode": "enforce", "configured_mode": "enforce", "epoch": 3,
            "acked_trip": 1, "hold": true, "cooldown_ns": 5, "deadline_mono_ns": null,
            "deadline_wall_ns": null, "boot_id": "b", "incident": "i", "tripped": null, "shadowed_from": null,
        }))
        .unwrap();
        let long = Duration::from_secs(60);
        let mut file = StateFile::open(directory.path()).unwrap();
        file.save(vec![state.clone()]).unwrap();
        file.wait(long);
        let mut file = StateFile::open(directory.path()).unwrap();
        file.save(Vec::new()).unwrap();
        file.wait(long);
        let mut file = StateFile::open(directory.path()).unwrap();
        assert_eq!(file.take("a"), Some(state), "nobody asked for it, so it was kept");
        assert_eq!(file.take("a"), None);
    }
}
