//! Keeps an index up with its log, in a thread of its own: nothing waits for it.

use super::{Files, IndexError, catch_up, rebuild};
use crate::record::entries::EventSource;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks at the log.
const INTERVAL: Duration = Duration::from_secs(2);
/// The same while it fails.
const LONGEST: Duration = Duration::from_secs(600);
/// Entries added at once; readers wait for no longer than that takes.
const AT_ONCE: usize = 10_000;

/// The thread. Dropping this ends it after what it is about.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When the system refuses another thread.
    pub fn start(files: Files, source: Box<dyn EventSource>) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let work = move || {
            let mut wait = INTERVAL;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                // What fails, on a full disk for instance, is tried again ever more rarely; meanwhile questions are
                // answered by the log itself.
                wait = match keep(&files, &*source) {
                    Ok(()) | Err(IndexError::Busy) => INTERVAL,
                    Err(_) => (wait * 2).min(LONGEST),
                };
            }
        };
        let thread = std::thread::Builder::new().name("index".into()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
        // A build of a long log is not waited for: it is thrown away when it is found unfinished.
        if let Some(thread) = self.thread.take().filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

/// Brings the index up with the log, building it anew if there is none that can be believed.
pub(super) fn keep(files: &Files, source: &dyn EventSource) -> Result<(), IndexError> {
    loop {
        match catch_up(files, source, AT_ONCE) {
            Ok(added) if added < AT_ONCE => return Ok(()),
            Ok(_) => {}
            Err(error) if error.wants_rebuild() => return rebuild(files, source).map(drop),
            Err(error) => return Err(error),
        }
    }
}
