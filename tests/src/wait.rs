//! Waiting for something to become true, always for a bounded time.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How many times longer than usual to wait in vain: an emulated machine is that much slower.
pub const PATIENCE_VARIABLE: &str = "AGENTSEC_PATIENCE";

/// A time limit, times what [`PATIENCE_VARIABLE`] asks for. For limits of what should take no time, not for pauses.
///
/// # Panics
/// When the variable is no whole number above zero.
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| {
        let Ok(text) = std::env::var(PATIENCE_VARIABLE) else { return 1 };
        let factor = text.parse().ok().filter(|factor| *factor > 0);
        factor
            .unwrap_or_else(|| panic!("{PATIENCE_VARIABLE} is {text:?}, which is no whole number above zero"))
    });
    limit * *FACTOR
}

/// Asks `probe` every few milliseconds until it answers, and fails with `what` after `timeout`, made [`patient`].
///
/// Tests wait for a fact instead of sleeping for a while, so a slow machine makes them slower, not wrong.
pub fn until<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let (start, timeout) = (Instant::now(), patient(timeout));
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
