//! What this machine offers, what stands in the way, and what will be used: the knowledge of `doctor`.
//!
//! Probing changes nothing: programs and maps that are loaded to see whether they load are gone when their
//! descriptors close, and nothing is attached.

mod features;
mod hooks;
mod machine;
mod privileges;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use hooks::{HookedProgram, InterfaceHooks};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// It works, with a restriction.
    Warn,
    /// AgentSec does not work without it.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it came out.
    pub status: CheckStatus,
    /// What was found.
    pub found: String,
    /// What AgentSec needs it for.
    pub why: &'static str,
    /// What to do, if there is something to do.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, why: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Ok, found: found.into(), why, remedy: None }
    }

    fn bad(
        status: CheckStatus,
        (name, why): (&'static str, &'static str),
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, status, found: found.into(), why, remedy: Some(remedy.into()) }
    }
}

/// How programs meet interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachBy {
    /// Links on TCX, Linux 6.6 and later.
    Tcx,
    /// Filters on clsact qdiscs, before that.
    Clsact,
    /// Not at all: see the failed checks.
    Nothing,
}

/// What will be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// How programs meet interfaces.
    pub attach_by: AttachBy,
    /// In words.
    pub summary: String,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The checks, in the order in which they matter.
    pub checks: Vec<Check>,
    /// The interfaces of this network namespace with programs on their hooks.
    pub interfaces: Vec<InterfaceHooks>,
    /// What will be used.
    pub plan: Plan,
    /// What cannot be seen.
    pub blind_spots: Vec<&'static str>,
}

impl Report {
    /// The worst of all checks.
    #[must_use]
    pub fn worst(&self) -> CheckStatus {
        self.checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Ok)
    }
}

/// What no probe of a host can see.
const BLIND_SPOTS: [&str; 3] = [
    "programs in other network namespaces: run doctor there as well (nsenter --net=...)",
    "bpf_redirect_peer: a program elsewhere that uses it delivers into an agent's namespace past the host side of \
     its veth, where inbound is judged",
    "netkit: its own programs run before ours, and its devices can pass packets on without them",
];

/// Looks at everything. `pin_path` is where programs and maps would be pinned.
pub async fn run(pin_path: &Path) -> Report {
    let release = machine::release();
    let mut checks = vec![privileges::check(), machine::kernel(&release)];
    checks.extend(machine::checks(pin_path, &release));
    let features = features::probe();
    let attach_by = features.attach_by();
    checks.extend(features.checks());
    let (interfaces, hooks) = hooks::probe(attach_by == AttachBy::Tcx).await;
    checks.push(hooks);
    Report { checks, interfaces, plan: plan(attach_by), blind_spots: BLIND_SPOTS.into() }
}

/// What stands in the way of the daemon here, in doctor's words: privileges first, and kernel features only when
/// those suffice. Empty when nothing does.
#[must_use]
pub fn obstacles() -> String {
    let privileges = privileges::check();
    let checks =
        if privileges.status == CheckStatus::Fail { vec![privileges] } else { features::probe().checks() };
    let failed = checks.iter().filter(|check| check.status == CheckStatus::Fail);
    let lines: Vec<String> = failed
        .map(|Check { name, found, why, remedy, .. }| {
            let remedy = remedy.as_deref().unwrap_or("none");
            format!("{name}: {found}; matters for: {why}; remedy: {remedy}")
        })
        .collect();
    lines.join("\n")
}

fn plan(attach_by: AttachBy) -> Plan {
    let summary = match attach_by {
        AttachBy::Tcx => "TCX links on the agents' interfaces, first in their chains",
        AttachBy::Clsact => {
            "clsact filters on the agents' interfaces, first in their chains, put back when taken off"
        }
        AttachBy::Nothing => {
            "nothing: programs cannot be loaded, or attached neither by TCX links nor by clsact filters"
        }
    };
    Plan { attach_by, summary: summary.into() }
}

/// `path` or its nearest ancestor that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_is_the_reports() {
        let check = |status| Check { status, ..Check::ok("a", "b", "c") };
        let report = |checks| Report {
            checks,
            interfaces: Vec::new(),
            plan: plan(AttachBy::Nothing),
            blind_spots: Vec::new(),
        };
        assert_eq!(report(vec![]).worst(), CheckStatus::Ok);
        let mixed = vec![check(CheckStatus::Fail), check(CheckStatus::Ok), check(CheckStatus::Warn)];
        assert_eq!(report(mixed).worst(), CheckStatus::Fail);
    }

    #[tokio::test]
    async fn probing_ends_on_any_machine() {
        let report = run(Path::new("/sys/fs/bpf/agentsec")).await;
        assert!(report.checks.iter().all(|check| !check.found.is_empty()));
        assert!(report.checks.iter().all(|check| check.status == CheckStatus::Ok || check.remedy.is_some()));
    }
}
