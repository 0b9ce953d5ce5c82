//! Whether this process may do what the daemon does.

use std::fs;

use super::{Check, CheckStatus};

/// Numbers from `linux/capability.h`, and what needs each.
const NEEDED: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];

const ABOUT: (&str, &str) = ("privileges", "loading and attaching programs");

pub(super) fn check() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(effective) = effective_capabilities(&status) else {
        let remedy = "mount /proc";
        return Check::bad(CheckStatus::Fail, ABOUT, "the process's capabilities cannot be read", remedy);
    };
    let missing = missing(effective);
    if missing.is_empty() {
        return Check::ok(ABOUT.0, ABOUT.1, "every capability that is needed");
    }
    let found = format!("without {}", missing.join(", "));
    Check::bad(CheckStatus::Fail, ABOUT, found, "run as root, or with these capabilities")
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    NEEDED.iter().filter(|(number, _)| effective >> number & 1 == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_their_line() {
        let root = effective_capabilities("CapPrm:\t0\nCapEff:\t000001ffffffffff\n").unwrap();
        assert!(missing(root).is_empty());
        assert_eq!(missing(1 << 12 | 1 << 39), ["CAP_SYS_ADMIN", "CAP_PERFMON"]);
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }
}
