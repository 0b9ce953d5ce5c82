//! Work that may never end, because whoever is contained decides when a read returns: done in a thread that is left behind
//! once its time is up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// Such threads at once, those left behind included: beyond them nothing risky is begun.
pub const MOST_LEFT: usize = 256;

static LEFT: AtomicUsize = AtomicUsize::new(0);

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It did not end in time.
    Late,
    /// It ended without a result.
    Died,
    /// Too many others have not ended, or no thread could be started.
    Refused,
}

impl Lost {
    /// In words.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Late => "did not answer in time",
            Self::Died => "ended without an answer",
            Self::Refused => "was not tried: too many others do not answer",
        }
    }
}

/// Threads that are left behind now.
#[must_use]
pub fn left_behind() -> usize {
    LEFT.load(Ordering::Relaxed)
}

/// Does `work` in a thread of its own and waits for it, but not longer than `limit`.
///
/// # Errors
///
/// When there is no result. The thread may go on; what it holds is freed when it ends.
pub fn within<T: Send + 'static>(
    name: &str,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    let started = start(name, work)?;
    started.wait(limit)
}

/// Work that has begun.
pub struct Started<T> {
    result: std::sync::mpsc::Receiver<T>,
}

/// Begins `work` in a thread of its own.
///
/// # Errors
///
/// When too many others do not end, or no thread can be started.
pub fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Started<T>, Lost> {
    if left_behind() >= MOST_LEFT {
        return Err(Lost::Refused);
    }
    let (sender, result) = sync_channel(1);
    LEFT.fetch_add(1, Ordering::Relaxed);
    let counted = Counted;
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _counted = counted;
        // Nobody may wait any more.
        let _ = sender.send(work());
    });
    spawned.map(|_| Started { result }).map_err(|_| Lost::Refused)
}

impl<T> Started<T> {
    /// Waits for the result, but not longer than `limit`.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn wait(self, limit: Duration) -> Result<T, Lost> {
        self.result.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => Lost::Late,
            RecvTimeoutError::Disconnected => Lost::Died,
        })
    }
}

/// Counts a thread for as long as it runs.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        LEFT.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    #[test]
    fn what_hangs_is_left_behind_and_what_dies_is_told() {
        let (release, hold) = channel::<()>();
        let begun = Instant::now();
        let hung = within("test", Duration::from_millis(20), move || hold.recv().is_ok());
        assert_eq!(hung, Err(Lost::Late));
        assert!(begun.elapsed() < Duration::from_secs(20));
        drop(release);
        assert_eq!(within("test", Duration::from_secs(60), || 7), Ok(7));
        let died =
            within("test", Duration::from_secs(60), || -> u8 { std::panic::resume_unwind(Box::new(())) });
        assert_eq!(died, Err(Lost::Died));
    }
}
