//! Names that no other test process on this machine uses, now or after a process id has been reused.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// `<prefix>-<pid>-<start>-<n>`; the start time keeps a recycled process id away from a killed test's leftovers.
pub(crate) fn name(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static START: OnceLock<u64> = OnceLock::new();
    let start = START.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (since.as_micros() as u64) & 0xfff_ffff
    });
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{start:x}-{n}", std::process::id())
}
