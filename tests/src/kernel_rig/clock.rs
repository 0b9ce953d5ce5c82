//! The clock that the kernel programs read.

use nix::time::{ClockId, clock_gettime};

/// Coarse monotonic nanoseconds: the very number that `bpf_ktime_get_coarse_ns` returns.
///
/// # Panics
/// When the kernel has no such clock.
#[must_use]
pub fn coarse_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("every Linux has this clock");
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}

/// The "second" (2^30 ns) by which notices are rationed.
#[must_use]
pub fn second() -> u64 {
    coarse_ns() >> 30
}
