//! Writes recordings to files beside the loop, which waits for no disk.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};

use super::{About, Kept, Recording, pcapng_of};

/// Recordings that wait for the disk: as many circuits may open while it is stuck.
const WAITING: usize = 1024;

struct Job {
    recording: Recording,
    name: String,
    most: usize,
}

/// What became of a recording.
#[derive(Debug)]
pub struct Outcome {
    /// Whose it is.
    pub agent: String,
    /// Where it is kept, or why it is not.
    pub kept: Result<PathBuf>,
}

/// The thread that writes, as the loop sees it.
#[derive(Debug)]
pub struct Keeper {
    kept: Kept,
    jobs: Option<SyncSender<Job>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.name)
    }
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When there is none to be had.
    pub fn start(kept: Kept, about: About) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(WAITING);
        let (told, outcomes) = channel();
        let writer = kept.clone();
        let thread = std::thread::Builder::new().name("recordings".into()).spawn(move || {
            for job in waiting {
                let kept = write(&writer, &job, &about);
                // Nobody listens any more only when the daemon has gone.
                let _ = told.send(Outcome { agent: job.recording.agent, kept });
            }
        })?;
        Ok(Self { kept, jobs: Some(jobs), outcomes, thread: Some(thread) })
    }

    /// Keeps a recording under its name, at most `most` of all agents; one that is kept already is not written again.
    ///
    /// # Errors
    ///
    /// When too many wait for the disk.
    pub fn keep(&self, recording: Recording, name: String, most: usize) -> Result<()> {
        if self.kept.find(&name).is_some() {
            return Ok(());
        }
        let Some(jobs) = &self.jobs else { bail!("nothing is kept any more") };
        match jobs.try_send(Job { recording, name, most }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(job)) => {
                bail!("{} finds {WAITING} recordings waiting for the disk", job.name)
            }
            Err(TrySendError::Disconnected(job)) => bail!("{}: the thread that writes has ended", job.name),
        }
    }

    /// Where a recording of this name is kept.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.kept.find(name)
    }

    /// Removes a recording that has found a better place, such as an evidence bundle; true when it was here.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        self.kept.remove(name)
    }

    /// What has become of recordings since the last call.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.outcomes.try_iter().collect()
    }
}

impl Drop for Keeper {
    /// Waits for what is being written: it is the last chance.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is told by the runtime.
            let _ = thread.join();
        }
    }
}

fn write(kept: &Kept, job: &Job, about: &About) -> Result<PathBuf> {
    let bytes = pcapng_of(&job.recording, about)?;
    kept.keep(&job.name, &bytes, job.most).with_context(|| format!("keeping {}", job.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_handed_over_is_on_the_disk_when_the_keeper_has_gone() {
        let state = tempfile::tempdir().unwrap();
        let kept = Kept::open(state.path()).unwrap();
        let keeper = Keeper::start(kept.clone(), About::default()).unwrap();
        let recording = Recording { agent: "a".into(), ..Recording::default() };
        keeper.keep(recording.clone(), "a.0.1.pcapng".into(), 10).unwrap();
        drop(keeper);
        let path = kept.find("a.0.1.pcapng").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let keeper = Keeper::start(kept, About::default()).unwrap();
        keeper.keep(recording, "a.0.1.pcapng".into(), 10).unwrap();
        drop(keeper);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written, "it is kept once");
    }

    #[test]
    fn what_cannot_be_kept_is_told() {
        let state = tempfile::tempdir().unwrap();
        let kept = Kept::open(state.path()).unwrap();
        fs::remove_dir(state.path().join("recordings")).unwrap();
        let keeper = Keeper::start(kept, About::default()).unwrap();
        let recording = Recording { agent: "a".into(), ..Recording::default() };
        keeper.keep(recording, "a.0.1.pcapng".into(), 10).unwrap();
        let outcome = keeper.outcomes.recv().unwrap();
        assert_eq!(outcome.agent, "a");
        assert!(format!("{:#}", outcome.kept.unwrap_err()).contains("keeping a.0.1.pcapng"));
    }
}
