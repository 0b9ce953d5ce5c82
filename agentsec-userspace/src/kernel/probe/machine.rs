//! The kernel and how it is set up.

use std::fs;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{Check, CheckStatus, existing};
use crate::kernel::cgroups::Tree;

/// The release of the running kernel.
pub(super) fn release() -> String {
    read("/proc/sys/kernel/osrelease").unwrap_or_default()
}

pub(super) fn kernel(release: &str) -> Check {
    const ABOUT: (&str, &str) =
        ("kernel", "the programs need atomics that return values (5.12); TCX came with 6.6");
    match version(release) {
        None => Check::bad(CheckStatus::Warn, ABOUT, format!("release `{release}`"), "see the checks below"),
        Some(version) if version < (5, 12) => {
            Check::bad(CheckStatus::Fail, ABOUT, release, "boot Linux 6.6 or later")
        }
        Some(version) if version < (6, 6) => {
            let found = format!("{release}: works through clsact, tested on 6.1");
            Check::bad(CheckStatus::Warn, ABOUT, found, "boot Linux 6.6 or later: see TCX below")
        }
        Some(_) => Check::ok(ABOUT.0, ABOUT.1, release),
    }
}

/// Everything else that can be read from files.
pub(super) fn checks(pin_path: &Path, release: &str) -> Vec<Check> {
    vec![
        btf(),
        bpffs(pin_path),
        jit(),
        lockdown(),
        unprivileged(),
        cgroup(),
        lsm(read("/sys/kernel/security/lsm").as_deref()),
        memlock(release),
        rcu(),
    ]
}

fn btf() -> Check {
    const ABOUT: (&str, &str) =
        ("BTF", "types of the kernel, for tools that show our maps and for later programs");
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(_) => Check::ok(ABOUT.0, ABOUT.1, "/sys/kernel/btf/vmlinux"),
        Err(_) => {
            let remedy = "use a kernel with CONFIG_DEBUG_INFO_BTF";
            Check::bad(CheckStatus::Warn, ABOUT, "no /sys/kernel/btf/vmlinux", remedy)
        }
    }
}

fn bpffs(pin_path: &Path) -> Check {
    const ABOUT: (&str, &str) =
        ("BPF file system", "programs are pinned there, so that they outlive the daemon");
    let directory = existing(pin_path);
    let shown = directory.display();
    match statfs(&directory) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => {
            Check::ok(ABOUT.0, ABOUT.1, format!("at {shown}"))
        }
        Ok(_) => {
            let found = format!("{} would not be in one: {shown} is another file system", pin_path.display());
            let remedy = "mount -t bpf bpf /sys/fs/bpf, or name a directory in one with --pin-path";
            Check::bad(CheckStatus::Fail, ABOUT, found, remedy)
        }
        Err(error) => Check::bad(CheckStatus::Fail, ABOUT, format!("{shown}: {error}"), "make it accessible"),
    }
}

fn jit() -> Check {
    const ABOUT: (&str, &str) =
        ("JIT", "without it every packet is judged by an interpreter, many times slower");
    match read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => Check::bad(
            CheckStatus::Warn,
            ABOUT,
            "off",
            "sysctl net.core.bpf_jit_enable=1, and in /etc/sysctl.d",
        ),
        Some("1") => Check::ok(ABOUT.0, ABOUT.1, "on"),
        Some("2") => Check::bad(
            CheckStatus::Warn,
            ABOUT,
            "on, and writing every program to the kernel's log",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        // The file exists in the initial network namespace only, and not where the JIT cannot be turned off.
        _ => Check::ok(ABOUT.0, ABOUT.1, "not told here"),
    }
}

fn lockdown() -> Check {
    const ABOUT: (&str, &str) = ("lockdown", "confidentiality keeps BPF programs from reading kernel memory");
    let Some(text) = read("/sys/kernel/security/lockdown") else {
        return Check::ok(ABOUT.0, ABOUT.1, "not told here");
    };
    let chosen =
        text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("?", |(level, _)| level);
    if chosen == "confidentiality" {
        let remedy = "boot with lockdown=integrity";
        return Check::bad(CheckStatus::Warn, ABOUT, chosen, remedy);
    }
    Check::ok(ABOUT.0, ABOUT.1, chosen)
}

fn unprivileged() -> Check {
    const ABOUT: (&str, &str) =
        ("unprivileged BPF", "an agent that may load programs has more ways to attack the kernel");
    match read("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref() {
        Some("0") => Check::bad(
            CheckStatus::Warn,
            ABOUT,
            "allowed to everybody",
            "sysctl kernel.unprivileged_bpf_disabled=1, and in /etc/sysctl.d",
        ),
        Some(_) => Check::ok(ABOUT.0, ABOUT.1, "disabled"),
        None => Check::ok(ABOUT.0, ABOUT.1, "not told here"),
    }
}

fn cgroup() -> Check {
    const ABOUT: (&str, &str) = ("cgroup v2", "agents in the host's network are known by their cgroup");
    match Tree::find() {
        Ok(tree) if tree.is_whole() => Check::ok(ABOUT.0, ABOUT.1, format!("at {}", tree.mount().display())),
        Ok(tree) => {
            let found =
                format!("{} shows a part of it: agents outside cannot be known", tree.mount().display());
            Check::bad(CheckStatus::Warn, ABOUT, found, "run in the host's cgroup namespace")
        }
        Err(_) => {
            let found = "not mounted: `cgroup` attachments do not work";
            Check::bad(CheckStatus::Warn, ABOUT, found, "mount -t cgroup2 none /sys/fs/cgroup/unified")
        }
    }
}

/// `names` are the security modules in force, as the kernel lists them.
fn lsm(names: Option<&str>) -> Check {
    const ABOUT: (&str, &str) =
        ("BPF LSM", "denying packet sockets, which pass by all programs, to agents known by their cgroup");
    const ELSE: &str = "until then take CAP_NET_RAW from agents known by their cgroup";
    match names {
        Some(names) if names.split(',').any(|name| name == "bpf") => Check::ok(ABOUT.0, ABOUT.1, "on"),
        Some(names) => {
            let longer = if names.is_empty() { "bpf".to_owned() } else { format!("{names},bpf") };
            let remedy = format!("boot with lsm={longer} (CONFIG_BPF_LSM); {ELSE}");
            Check::bad(CheckStatus::Warn, ABOUT, format!("off: the modules are {names:?}"), remedy)
        }
        None => {
            let remedy =
                format!("mount -t securityfs securityfs /sys/kernel/security, and look again; {ELSE}");
            Check::bad(CheckStatus::Warn, ABOUT, "not told here: no /sys/kernel/security/lsm", remedy)
        }
    }
}

fn memlock(release: &str) -> Check {
    const ABOUT: (&str, &str) = ("locked memory", "kernels before 5.11 charge maps to RLIMIT_MEMLOCK");
    if version(release).is_some_and(|version| version >= (5, 11)) {
        return Check::ok(ABOUT.0, ABOUT.1, "not limited by RLIMIT_MEMLOCK on this kernel");
    }
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((RLIM_INFINITY, _)) => Check::ok(ABOUT.0, ABOUT.1, "unlimited"),
        Ok((bytes, _)) => Check::bad(
            CheckStatus::Warn,
            ABOUT,
            format!("{bytes} bytes"),
            "ulimit -l unlimited; LimitMEMLOCK=infinity",
        ),
        Err(error) => Check::bad(CheckStatus::Warn, ABOUT, error.to_string(), "ulimit -l unlimited"),
    }
}

fn rcu() -> Check {
    const ABOUT: (&str, &str) =
        ("expedited RCU", "attaching waits for RCU: about 12 ms a link, or 0.1 ms expedited");
    let found = match read("/sys/kernel/rcu_expedited").as_deref() {
        Some("0") => "off: a thousand agents take half a minute to attach",
        Some(_) => "on",
        None => "not told here",
    };
    Check::ok(ABOUT.0, ABOUT.1, found)
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let minor = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases() {
        for (release, expected) in [
            ("6.18.0-rc1+", Some((6, 18))),
            ("5.10.0-28-cloud-amd64", Some((5, 10))),
            ("6.6", Some((6, 6))),
            ("6.6-custom", Some((6, 6))),
            ("x", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn old_kernels_fail_and_untested_ones_warn() {
        for (release, status) in [
            ("5.4.0", CheckStatus::Fail),
            ("5.15.0", CheckStatus::Warn),
            ("6.6.0", CheckStatus::Ok),
            ("", CheckStatus::Warn),
        ] {
            assert_eq!(kernel(release).status, status, "{release}");
        }
    }

    #[test]
    fn the_bpf_module_is_found_among_others_and_the_remedy_keeps_those() {
        assert_eq!(lsm(Some("lockdown,capability,bpf")).status, CheckStatus::Ok);
        for (names, expected) in [
            (Some("capability,bpfilter"), "lsm=capability,bpfilter,bpf "),
            (Some(""), "lsm=bpf "),
            (None, "securityfs"),
        ] {
            let check = lsm(names);
            let remedy = check.remedy.unwrap_or_default();
            assert_eq!(check.status, CheckStatus::Warn, "{names:?}");
            assert!(remedy.contains(expected) && remedy.contains("CAP_NET_RAW"), "{names:?}: {remedy}");
        }
    }

    #[test]
    fn a_directory_outside_a_bpf_file_system_fails_with_a_remedy() {
        let check = bpffs(Path::new("/proc/agentsec"));
        assert_eq!(check.status, CheckStatus::Fail);
        assert!(check.remedy.unwrap().contains("mount -t bpf"));
    }
}
