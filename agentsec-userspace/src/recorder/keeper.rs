//! Writes recordings to files beside the loop, which waits for no disk.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::{About, Kept, Recording, pcapng_of};

/// Recordings that wait for the disk: as many circuits may open while it is stuck.
const WAITING: usize = 1024;

enum Job {
    Keep { recording: Box<Recording>, name: String, most: usize },
    Expire(SystemTime),
}

/// What became of a recording, or of those that expire.
#[derive(Debug)]
pub enum Outcome {
    /// Of this agent's: where it is kept, or why it is not.
    Kept(String, Result<PathBuf>),
    /// Those that had expired stay.
    Stay(io::Error),
}

/// The thread that writes, as the loop sees it.
#[derive(Debug)]
pub struct Keeper {
    kept: Kept,
    jobs: Option<SyncSender<Job>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
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
                let outcome = match job {
                    Job::Keep { recording, name, most } => {
                        let kept = write(&writer, &recording, &name, most, &about);
                        Some(Outcome::Kept(recording.agent, kept))
                    }
                    Job::Expire(then) => writer.expire(then).err().map(Outcome::Stay),
                };
                // Nobody listens any more only when the daemon has gone.
                let _ = outcome.map(|outcome| told.send(outcome));
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
        match jobs.try_send(Job::Keep { recording: Box::new(recording), name: name.clone(), most }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => bail!("{name} finds {WAITING} recordings waiting for the disk"),
            Err(TrySendError::Disconnected(_)) => bail!("{name}: the thread that writes has ended"),
        }
    }

    /// Removes recordings that are older than this, soon. While the disk is stuck the next call is soon enough.
    pub fn expire(&self, age: Duration) {
        if let (Some(jobs), Some(then)) = (&self.jobs, SystemTime::now().checked_sub(age)) {
            let _ = jobs.try_send(Job::Expire(then));
        }
    }

    /// Where a recording of this name is kept.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.kept.find(name)
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

fn write(kept: &Kept, recording: &Recording, name: &str, most: usize, about: &About) -> Result<PathBuf> {
    let bytes = pcapng_of(recording, about)?;
    kept.keep(name, &bytes, most).with_context(|| format!("keeping {name}"))
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
        let Outcome::Kept(agent, kept) = keeper.outcomes.recv().unwrap() else { panic!("not that") };
        assert_eq!(agent, "a");
        assert!(format!("{:#}", kept.unwrap_err()).contains("keeping a.0.1.pcapng"));
        keeper.expire(Duration::ZERO);
        assert!(matches!(keeper.outcomes.recv(), Ok(Outcome::Stay(_))));
    }
}
