//! Format, lints, and the dependencies' licences and sources.

use std::path::Path;

use anyhow::Result;

use crate::compile::OBJECT_VARIABLE;
use crate::step::{self, Progress};
use crate::toolchain::BpfTools;
use crate::workspace;

/// Everything that is the same today and tomorrow; the daemon's build script wants the kernel programs built.
pub fn all(progress: &Progress, tools: &BpfTools, object: &Path) -> Result<()> {
    // Left to itself, rustfmt colours what no terminal will show.
    let colour = if step::colours() { "always" } else { "never" };
    progress.run(
        "check: format",
        workspace::cargo().args(["fmt", "--all", "--check", "--", "--color", colour]),
    )?;
    lint_userspace(progress, object)?;
    lint_kernel(progress, tools)?;
    if !cargo_deny_is_here(progress) {
        return Ok(());
    }
    let mut deny = workspace::cargo();
    deny.args(["deny", "check", "bans", "licenses", "sources"]);
    progress.run("check: licences and sources of dependencies", &mut deny)
}

/// Known vulnerabilities of dependencies. Not part of `all`: the answer changes without a change of ours.
pub fn advisories(progress: &Progress) -> Result<()> {
    if !cargo_deny_is_here(progress) {
        return Ok(());
    }
    if let Err(error) =
        progress.run("check: fetch advisories", workspace::cargo().args(["deny", "fetch", "db"]))
    {
        progress.note(&format!("check: advisories skipped, the database cannot be fetched ({error:#})"));
        return Ok(());
    }
    progress.run("check: advisories", workspace::cargo().args(["deny", "check", "advisories"]))
}

fn lint_userspace(progress: &Progress, object: &Path) -> Result<()> {
    let mut clippy = workspace::cargo();
    clippy.args(["clippy", "--all-targets", "--", "-D", "warnings"]).env(OBJECT_VARIABLE, object);
    progress.run("check: lint userspace", &mut clippy)
}

fn lint_kernel(progress: &Progress, tools: &BpfTools) -> Result<()> {
    progress.run("check: lint kernel programs", tools.cargo("clippy").args(["--", "-D", "warnings"]))
}

fn cargo_deny_is_here(progress: &Progress) -> bool {
    let here = workspace::find_program("cargo-deny").is_some();
    if !here {
        progress.note("check: dependencies skipped, cargo-deny is not installed (cargo install cargo-deny)");
    }
    here
}
