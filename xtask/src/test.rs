//! All tests, with everything they rest on.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::compile::OBJECT_VARIABLE;
use crate::need::Scope;
use crate::run::require_root;
use crate::step::Progress;
use crate::{check, compile, setup, workspace};

/// Sets up, checks, builds and tests; the exit code is the tests'.
pub fn run(progress: &Progress, filter: Option<&str>, args: &[OsString]) -> Result<ExitCode> {
    require_root(
        "test",
        "Without root, `cargo test -p agentsec-common` runs the tests that touch no kernel.",
    )?;
    let tools = setup::ensure(progress, Scope::Test)?;
    let object = compile::kernel_object(progress, &tools)?;
    check::all(progress, &tools, &object)?;
    let binaries = compile::tests(progress, &object)?;

    let mut command = workspace::cargo();
    // All that fails is told at once: who waits half an hour for the next failure has learnt little.
    command.args(["test", "--no-fail-fast"]).args(filter).arg("--").args(args);
    command.env(OBJECT_VARIABLE, &object);
    if let Some(agentsec) = binaries.agentsec {
        command.env("AGENTSEC_BIN", agentsec);
    }
    if let Some(lab) = binaries.lab {
        command.env("AGENTSEC_LAB", lab);
    }
    let status = command.status().context("cannot start cargo test")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
