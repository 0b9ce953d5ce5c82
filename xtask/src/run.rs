//! Hands over to the lab: the demo and the bench.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};

use crate::compile::Profile;
use crate::need::Scope;
use crate::step::{Progress, line};
use crate::{compile, setup, workspace};

/// Becomes `agentsec-lab <verb> <args>`, so that signals, terminal and exit code are the lab's own.
pub fn lab(progress: &Progress, verb: &str, args: &[OsString]) -> Result<()> {
    require_root(verb, "")?;
    let tools = setup::ensure(progress, Scope::Test)?;
    let object = compile::kernel_object(progress, &tools)?;
    let binaries = compile::daemon_and_lab(progress, Profile::Release, &object)?;
    let agentsec = binaries.agentsec.context("package agentsec has no program agentsec")?;
    let lab = binaries.lab.context("package agentsec-tests has no program agentsec-lab")?;

    let mut command = std::process::Command::new(lab);
    workspace::clean(&mut command);
    command.arg(verb).args(args).env("AGENTSEC_BIN", agentsec);
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", line(&command)))
}

/// Refuses at once what only root can do.
pub fn require_root(verb: &str, otherwise: &str) -> Result<()> {
    if !workspace::is_root() {
        bail!(
            "{verb} loads programs into the kernel and makes network namespaces, which needs root:\n\
             \n    sudo --preserve-env=HOME env \"PATH=$PATH\" cargo xtask {verb}\n\n{otherwise}"
        );
    }
    Ok(())
}
