//! Moments that can be compared although the wall clock steps.

use serde::{Deserialize, Serialize};

use crate::core::Time;
use crate::core::time::rfc3339;

/// One moment on both clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Unix nanoseconds.
    pub wall_ns: u64,
    /// Monotonic nanoseconds of the boot.
    pub mono_ns: u64,
    /// The boot; empty when the monotonic time is not known.
    pub boot_id: String,
}

impl Moment {
    /// A moment of this boot.
    #[must_use]
    pub fn new(now: Time, boot_id: &str) -> Self {
        Self { wall_ns: now.wall_ns, mono_ns: now.mono_ns, boot_id: boot_id.to_owned() }
    }

    /// A moment of which only the wall clock is known.
    #[must_use]
    pub fn wall(wall_ns: u64) -> Self {
        Self { wall_ns, ..Self::default() }
    }

    /// Whether it was before `other`: by the clock that does not step where both were in one boot.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        if !self.boot_id.is_empty() && self.boot_id == other.boot_id {
            self.mono_ns < other.mono_ns
        } else {
            self.wall_ns < other.wall_ns
        }
    }

    /// The earlier one of the two.
    #[must_use]
    pub fn or_earlier(self, other: Self) -> Self {
        if other.is_before(&self) { other } else { self }
    }

    /// The moment `ns` earlier.
    #[must_use]
    pub fn earlier(&self, ns: u64) -> Self {
        Self {
            wall_ns: self.wall_ns.saturating_sub(ns),
            mono_ns: self.mono_ns.saturating_sub(ns),
            boot_id: self.boot_id.clone(),
        }
    }

    /// RFC 3339.
    #[must_use]
    pub fn shown(&self) -> String {
        rfc3339(self.wall_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stepped_wall_clock_does_not_change_the_order_within_a_boot() {
        let at = |wall_ns, mono_ns, boot: &str| Moment { wall_ns, mono_ns, boot_id: boot.into() };
        assert!(at(900, 10, "a").is_before(&at(100, 20, "a")), "the clock was set back");
        assert!(at(100, 90, "a").is_before(&at(200, 5, "b")), "another boot: only the wall clock tells");
        assert!(!at(5, 5, "").is_before(&at(5, 9, "")), "no boot is known");
        assert!(!at(5, 5, "a").is_before(&at(5, 5, "a")));
    }
}
