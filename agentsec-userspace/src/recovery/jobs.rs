//! What is being done for whom: one thing at a time for an agent, and a bounded number over all.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::child::Cancel;
use super::error::{Failure, Kind};

/// The most that run at once, recoveries apart.
const RUNNING: usize = 4;
/// The most recoveries at once.
const RECOVERING: usize = 16;
/// Finished jobs that can still be asked for.
const FINISHED: usize = 64;

/// What a job does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Takes a snapshot.
    #[default]
    Create,
    /// Reads one again.
    Verify,
    /// Brings an agent back.
    Recover,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is at work.
    #[default]
    Running,
    /// It did what it was asked.
    Done,
    /// It did not.
    Failed,
}

/// A job, as the API shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub job: u64,
    /// The agent.
    pub agent: String,
    /// What it does.
    pub work: Work,
    /// How it stands.
    pub standing: Standing,
    /// Bytes dealt with in the current step.
    pub done_bytes: u64,
    /// Bytes of the current step.
    pub all_bytes: u64,
    /// What it is doing, or what came of it, in words.
    pub message: String,
    /// What came of it.
    pub result: Value,
}

#[derive(Debug)]
struct Entry {
    job: Job,
    agents: BTreeSet<String>,
    cancel: Cancel,
}

/// All jobs.
#[derive(Debug, Default)]
pub struct Jobs {
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

impl Jobs {
    /// Begins a job that concerns `agents`; its number and what cancels it. A recovery cancels what else is being
    /// done for its agents.
    ///
    /// # Errors
    ///
    /// When one of them is busy, or too much is being done already.
    pub fn begin(
        &mut self,
        agent: &str,
        work: Work,
        agents: BTreeSet<String>,
    ) -> Result<(u64, Cancel), Failure> {
        let running = || self.entries.values().filter(|entry| entry.job.standing == Standing::Running);
        let busy: Vec<&Entry> = running().filter(|entry| !entry.agents.is_disjoint(&agents)).collect();
        let recovery = busy.iter().find(|entry| entry.job.work == Work::Recover);
        if let Some(entry) = recovery.or_else(|| busy.first().filter(|_| work != Work::Recover)) {
            let message =
                format!("`{}` is busy: job {} ({:?})", entry.job.agent, entry.job.job, entry.job.work);
            return Err(Failure::new(Kind::Locked, message));
        }
        busy.iter().for_each(|entry| entry.cancel.cancel());
        let (recovering, others): (Vec<&Entry>, Vec<&Entry>) =
            running().partition(|entry| entry.job.work == Work::Recover);
        let (count, most) = match work {
            Work::Recover => (recovering.len(), RECOVERING),
            _ => (others.len(), RUNNING),
        };
        if count >= most {
            return Err(Failure::new(Kind::Locked, format!("{count} jobs are running, which is the most")));
        }
        self.next += 1;
        let job = Job { job: self.next, agent: agent.to_owned(), work, ..Job::default() };
        let cancel = Cancel::default();
        self.entries.insert(self.next, Entry { job, agents, cancel: cancel.clone() });
        self.forget();
        Ok((self.next, cancel))
    }

    /// Whether another running job concerns one of this job's agents.
    #[must_use]
    pub fn must_wait(&self, number: u64) -> bool {
        let Some(own) = self.entries.get(&number) else { return false };
        self.entries.iter().any(|(other, entry)| {
            *other != number
                && entry.job.standing == Standing::Running
                && !entry.agents.is_disjoint(&own.agents)
        })
    }

    /// Changes what is shown of a job.
    pub fn update(&mut self, number: u64, change: impl FnOnce(&mut Job)) {
        if let Some(entry) = self.entries.get_mut(&number) {
            change(&mut entry.job);
        }
    }

    /// A job.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Job> {
        self.entries.get(&number).map(|entry| entry.job.clone())
    }

    /// Whether anything is being done for an agent.
    #[must_use]
    pub fn is_busy(&self, agent: &str) -> bool {
        self.entries
            .values()
            .any(|entry| entry.job.standing == Standing::Running && entry.agents.contains(agent))
    }

    /// Cancels everything but recoveries. How many of what it cancels are still running.
    pub fn cancel(&self) -> usize {
        let others = self.entries.values().filter(|entry| entry.job.work != Work::Recover);
        let running = others.filter(|entry| entry.job.standing == Standing::Running);
        running.inspect(|entry| entry.cancel.cancel()).count()
    }

    fn forget(&mut self) {
        let finished: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.job.standing != Standing::Running)
            .map(|(number, _)| *number)
            .collect();
        for number in finished.iter().take(finished.len().saturating_sub(FINISHED)) {
            self.entries.remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(agents: &[&str]) -> BTreeSet<String> {
        agents.iter().map(|agent| (*agent).to_owned()).collect()
    }

    #[test]
    fn an_agent_has_one_job_at_a_time_and_a_recovery_comes_first() {
        let mut jobs = Jobs::default();
        let (create, cancelled) = jobs.begin("a", Work::Create, of(&["a", "db"])).unwrap();
        assert_eq!(jobs.begin("db", Work::Verify, of(&["db"])).unwrap_err().kind, Kind::Locked);
        jobs.begin("b", Work::Create, of(&["b"])).unwrap();
        let (recover, _) = jobs.begin("db", Work::Recover, of(&["db"])).unwrap();
        assert!(cancelled.is_cancelled() && jobs.must_wait(recover));
        assert!(jobs.begin("db", Work::Recover, of(&["db"])).is_err(), "one recovery is enough");
        jobs.update(create, |job| job.standing = Standing::Failed);
        assert!(!jobs.must_wait(recover) && !jobs.is_busy("a") && jobs.is_busy("db"));
        assert_eq!(jobs.cancel(), 1, "a recovery is not cancelled: the next daemon takes it up");
    }

    #[test]
    fn jobs_are_bounded() {
        let mut jobs = Jobs::default();
        for number in 0..RUNNING {
            jobs.begin("x", Work::Create, of(&[&number.to_string()])).unwrap();
        }
        assert!(jobs.begin("y", Work::Create, of(&["y"])).is_err());
        jobs.begin("y", Work::Recover, of(&["y"])).unwrap();
        for number in 1..=200 {
            jobs.update(number, |job| job.standing = Standing::Done);
            let (number, _) = jobs.begin("z", Work::Verify, of(&["z"])).unwrap();
            jobs.update(number, |job| job.standing = Standing::Done);
        }
        assert!(jobs.entries.len() <= FINISHED + RUNNING + 2, "{}", jobs.entries.len());
    }
}
