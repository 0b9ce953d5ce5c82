//! The clocks, read in one place and passed on as values.

use nix::time::{ClockId, clock_gettime};

use crate::core::Time;

/// Now, on the monotonic clock (which is the kernel programs') and on the wall clock.
#[must_use]
pub fn now() -> Time {
    Time { mono_ns: nanoseconds(ClockId::CLOCK_MONOTONIC), wall_ns: nanoseconds(ClockId::CLOCK_REALTIME) }
}

/// Nanoseconds of a clock; zero before its epoch or when the kernel does not have it.
fn nanoseconds(clock: ClockId) -> u64 {
    let Ok(time) = clock_gettime(clock) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

/// Names this boot: monotonic times of another mean nothing.
#[must_use]
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
