//! Waiting for something to become true, always for a bounded time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `probe` every few milliseconds until it answers, and fails with `what` after `timeout`.
///
/// Tests wait for a fact instead of sleeping for a while, so a slow machine makes them slower, not wrong.
pub fn until<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(found) = probe() {
            return Ok(found);
        }
        if start.elapsed() >= timeout {
            bail!("waited {timeout:?} in vain for: {what}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
