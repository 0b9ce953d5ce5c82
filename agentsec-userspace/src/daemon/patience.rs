//! Writing files from the loop, which waits for a disk, but not for one that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

/// So long the loop waits for a disk. Packets do not wait for the loop.
const PATIENCE: Duration = Duration::from_secs(1);

/// One file that is written again and again.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// An earlier write has not come back.
    busy: Arc<AtomicBool>,
}

impl Patience {
    /// Does `write`, one at a time.
    ///
    /// # Errors
    ///
    /// Those of `write`; or that it has not come back in time. It goes on by itself then, and until it has come back no other
    /// is begun, so that what is older never comes last.
    pub(super) fn write(&self, write: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        self.write_within(PATIENCE, write)
    }

    fn write_within(
        &self,
        patience: Duration,
        write: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        if self.busy.swap(true, Ordering::AcqRel) {
            bail!("the disk does not answer");
        }
        let (tell, told) = channel();
        let busy = Arc::clone(&self.busy);
        let work = move || {
            let written = write();
            busy.store(false, Ordering::Release);
            // Who waited may have gone on.
            let _ = tell.send(written);
        };
        if let Err(error) = thread::Builder::new().name("state".into()).spawn(work) {
            self.busy.store(false, Ordering::Release);
            return Err(error.into());
        }
        told.recv_timeout(patience).unwrap_or_else(|_| bail!("the disk does not answer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_write_that_hangs_is_not_waited_for_and_no_other_overtakes_it() {
        let patience = Patience::default();
        patience.write(|| Ok(())).unwrap();
        let said = patience.write(|| bail!("full")).unwrap_err().to_string();
        assert_eq!(said, "full");
        let written = Arc::new(Mutex::new(Vec::new()));
        let (end, hangs) = channel::<()>();
        let first = Arc::clone(&written);
        let hung = patience.write_within(Duration::from_millis(1), move || {
            let _ = hangs.recv();
            first.lock().unwrap().push(1);
            Ok(())
        });
        assert_eq!(hung.unwrap_err().to_string(), "the disk does not answer");
        let refused = patience.write(|| panic!("beside another"));
        assert_eq!(refused.unwrap_err().to_string(), "the disk does not answer");
        drop(end);
        let second = Arc::clone(&written);
        while patience.busy.load(Ordering::Acquire) {
            thread::yield_now();
        }
        patience
            .write(move || {
                second.lock().unwrap().push(2);
                Ok(())
            })
            .unwrap();
        assert_eq!(*written.lock().unwrap(), [1, 2]);
    }
}
