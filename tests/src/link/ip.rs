//! The `ip` and `bridge` commands inside a namespace.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::netns::Namespace;

/// Runs `ip ARGUMENTS` (separated by blanks) inside `namespace` and returns what it printed.
pub fn ip(namespace: &Namespace, arguments: &str) -> Result<String> {
    let mut command = namespace.command("ip");
    command.args(arguments.split_whitespace());
    run(command, "").with_context(|| format!("ip {arguments}"))
}

/// Runs the lines of `script` as one `ip -batch` inside `namespace`: one process for any number of changes.
pub fn ip_batch(namespace: &Namespace, script: &str) -> Result<()> {
    batch(namespace, "ip", script)
}

/// The same for `bridge -batch`.
pub fn bridge_batch(namespace: &Namespace, script: &str) -> Result<()> {
    batch(namespace, "bridge", script)
}

fn batch(namespace: &Namespace, program: &str, script: &str) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    let mut command = namespace.command(program);
    command.args(["-batch", "-"]);
    let what = || format!("{program} -batch, beginning with {:?}", script.lines().next());
    run(command, script).with_context(what)?;
    Ok(())
}

fn run(mut command: Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting it (is iproute2 installed?)")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that fails early closes its end; what it said then is worth more than "broken pipe".
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
