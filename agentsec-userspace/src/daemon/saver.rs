//! Replaces a file beside the loop, which waits for no disk: a thread writes the newest content that it was handed, and what fails it
//! tries again. What a disk does not take within a while is trouble that the loop can tell of.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::whole_file;

/// After what could not be written.
const RETRY: Duration = Duration::from_secs(1);
/// How long a disk may take before that is trouble.
const SLOW: Duration = Duration::from_secs(5);

/// A file that is replaced whole: a crash of the daemon leaves the old one or the new one.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The file.
    pub(super) path: PathBuf,
    /// Whether it outlasts a crash of the machine as well.
    pub(super) is_synced: bool,
}

/// The thread that writes one file, as the loop sees it.
#[derive(Debug)]
pub(super) struct Saver(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    sheet: Mutex<Sheet>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Sheet {
    next: Option<Vec<u8>>,
    /// Since when something is on its way to the disk.
    since: Option<Instant>,
    /// Why the latest attempt failed, if it did.
    failed: Option<String>,
    has_ended: bool,
}

impl Shared {
    fn sheet(&self) -> MutexGuard<'_, Sheet> {
        self.sheet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Saver {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When there is none to be had.
    pub(super) fn start(name: &str, target: Target) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        std::thread::Builder::new().name(name.into()).spawn(move || work(&worker, &target))?;
        Ok(Self(shared))
    }

    /// Hands over what the file shall say; what was handed over before and not written yet is no longer wanted.
    pub(super) fn save(&self, bytes: Vec<u8>) {
        let mut sheet = self.0.sheet();
        sheet.next = Some(bytes);
        sheet.since.get_or_insert_with(Instant::now);
        self.0.changed.notify_all();
    }

    /// Waits until all that was handed over is written, for at most `limit`; not at all while the disk has failed or been
    /// silent for longer than that.
    pub(super) fn wait(&self, limit: Duration) {
        let sheet = self.0.sheet();
        let Some(since) = sheet.since else { return };
        let left = limit.saturating_sub(since.elapsed());
        let is_under_way = |sheet: &mut Sheet| sheet.since.is_some() && sheet.failed.is_none();
        drop(self.0.changed.wait_timeout_while(sheet, left, is_under_way));
    }

    /// Why what was handed over is not written, if it should be by now.
    pub(super) fn trouble(&self) -> Option<String> {
        let sheet = self.0.sheet();
        let is_slow = sheet.since.is_some_and(|since| since.elapsed() >= SLOW);
        let silent = || is_slow.then(|| "the disk does not answer".to_owned());
        sheet.failed.clone().or_else(silent)
    }
}

impl Drop for Saver {
    /// The thread writes what it has and ends. Nobody waits for it: whoever has to calls [`Saver::wait`] before.
    fn drop(&mut self) {
        self.0.sheet().has_ended = true;
        self.0.changed.notify_all();
    }
}

fn work(shared: &Shared, target: &Target) {
    let mut sheet = shared.sheet();
    loop {
        let Some(bytes) = sheet.next.take() else {
            if sheet.has_ended {
                return;
            }
            sheet = shared.changed.wait(sheet).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(sheet);
        let outcome = replace(target, &bytes);
        sheet = shared.sheet();
        match outcome {
            Ok(()) => {
                sheet.failed = None;
                sheet.since = sheet.next.is_some().then(Instant::now);
            }
            Err(error) => {
                sheet.failed = Some(format!("cannot save {}: {error}", target.path.display()));
                sheet.next.get_or_insert(bytes);
            }
        }
        shared.changed.notify_all();
        if sheet.failed.is_some() {
            let is_waiting = |sheet: &mut Sheet| !sheet.has_ended;
            let waited = shared.changed.wait_timeout_while(sheet, RETRY, is_waiting);
            sheet = waited.unwrap_or_else(PoisonError::into_inner).0;
            if sheet.has_ended {
                return;
            }
        }
    }
}

fn replace(target: &Target, bytes: &[u8]) -> io::Result<()> {
    let Target { path, is_synced } = target;
    if *is_synced { whole_file::replace(path, bytes) } else { whole_file::replace_unsynced(path, bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const LONG: Duration = Duration::from_secs(60);

    fn saver(path: &Path, is_synced: bool) -> Saver {
        Saver::start("test", Target { path: path.to_owned(), is_synced }).unwrap()
    }

    #[test]
    fn the_newest_content_is_written_whole() {
        let directory = tempfile::tempdir().unwrap();
        for is_synced in [false, true] {
            let path = directory.path().join(format!("{is_synced}.json"));
            let saver = saver(&path, is_synced);
            for number in 0..100 {
                saver.save(format!("{number}").into_bytes());
            }
            saver.wait(LONG);
            assert_eq!((fs::read_to_string(&path).unwrap(), saver.trouble()), ("99".into(), None));
        }
    }

    #[test]
    fn what_fails_is_told_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("later/a.json");
        let saver = saver(&path, true);
        saver.save(b"1".to_vec());
        saver.wait(LONG);
        assert!(saver.trouble().unwrap().contains("a.json"));
        fs::create_dir(path.parent().unwrap()).unwrap();
        let begun = Instant::now();
        while saver.trouble().is_some() && begun.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "1");
    }

    #[test]
    fn a_disk_that_hangs_costs_its_limit_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        // Opening it waits until somebody reads.
        let beside = path.with_extension("json.new");
        nix::unistd::mkfifo(&beside, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let saver = saver(&path, false);
        let limit = Duration::from_millis(50);
        let begun = Instant::now();
        for _ in 0..10_000 {
            saver.save(b"1".to_vec());
            saver.wait(limit);
        }
        assert!(begun.elapsed() < limit * 1000, "{:?}", begun.elapsed());
        assert!(!path.exists());
        fs::read(&beside).unwrap();
    }
}
