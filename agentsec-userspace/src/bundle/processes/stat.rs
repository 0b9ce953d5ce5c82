//! `/proc/PID/stat` and `status`, whose texts hold names that a process has chosen.

use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::core::Time;

/// What matters of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) name: Vec<u8>,
    pub(super) state: char,
    pub(super) parent: u32,
    /// Since the boot.
    pub(super) start_ticks: u64,
}

impl Stat {
    /// `pid (name) state parent … start …`: a name may hold anything but ends with the *last* parenthesis.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let begin = bytes.iter().position(|byte| *byte == b'(')? + 1;
        let end = bytes.iter().rposition(|byte| *byte == b')')?;
        let name = bytes.get(begin..end)?.to_vec();
        let rest = std::str::from_utf8(bytes.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            name,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

/// Turns ticks since the boot into the time of day.
pub(super) struct Clock {
    boot_wall_ns: u64,
    tick_ns: u64,
}

impl Clock {
    /// As of `now`.
    pub(super) fn of(now: Time) -> Self {
        // This clock goes on while the machine sleeps, and so do ticks.
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
            u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
                + u64::try_from(time.tv_nsec()).unwrap_or(0)
        });
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        let tick_ns = 1_000_000_000 / u64::try_from(ticks).unwrap_or(100).max(1);
        Self { boot_wall_ns: now.wall_ns.saturating_sub(since_boot), tick_ns }
    }

    pub(super) fn wall_ns(&self, ticks: u64) -> u64 {
        self.boot_wall_ns.saturating_add(ticks.saturating_mul(self.tick_ns))
    }
}

/// The numbers of a line of `/proc/PID/status`: one number, or a list. The kernel escapes the line feeds of names.
pub(super) fn status_field(status: &[u8], key: &str) -> Option<Value> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b":")))?;
    let numbers: Option<Vec<u64>> =
        std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(|number| number.parse().ok()).collect();
    match numbers?.as_slice() {
        [] => None,
        [one] if key != "NSpid" => Some((*one).into()),
        several => Some(several.to_vec().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const REST: &str = "S 17 42 42 0 -1 4194560 100 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";

    #[test]
    fn a_name_that_looks_like_the_fields_after_it_fools_nobody() {
        for name in ["sleep", ") R 1 (", "a) S 1 1 1 1", "", "\n", "\u{fffd}"] {
            let stat = Stat::parse(format!("5 ({name}) {REST}\n").as_bytes()).unwrap();
            let expected = Stat { name: name.into(), state: 'S', parent: 17, start_ticks: 98765 };
            assert_eq!(stat, expected, "{name:?}");
        }
        assert_eq!(Stat::parse(b"5 (x"), None);
        assert_eq!(Stat::parse(b")("), None);
    }

    #[test]
    fn numbers_of_a_status_are_read_by_line() {
        let status = b"Name:\tUid:\\n\nUid:\t0\t1\t2\t3\nThreads:\t7\nNSpid:\t55\nGid:\tx\n";
        assert_eq!(status_field(status, "Uid"), Some(json!([0, 1, 2, 3])));
        assert_eq!(status_field(status, "Threads"), Some(json!(7)));
        assert_eq!(status_field(status, "NSpid"), Some(json!([55])));
        assert_eq!((status_field(status, "Gid"), status_field(status, "Seccomp")), (None, None));
    }

    proptest! {
        #[test]
        fn anything_is_read_without_harm(bytes: Vec<u8>, name: Vec<u8>) {
            Stat::parse(&bytes);
            status_field(&bytes, "Uid");
            let line = [b"5 (", name.as_slice(), b") ", REST.as_bytes()].concat();
            prop_assert_eq!(Stat::parse(&line).map(|stat| stat.name), Some(name));
        }
    }
}
