//! A demo that stays, and its end.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::plan::PARTS;
use super::terminal::{Screen, Tone};
use crate::daemon::Daemon;
use crate::lab::Lab;
use crate::wait;

const RECORD: &str = "lab.json";

/// Leaves lab and daemon in place, and prints what to try.
pub(super) fn leave(lab: Lab, daemon: Daemon, screen: &mut Screen) -> Result<()> {
    let run = daemon.paths().run();
    let base = run.parent().context("the run directory has a parent")?.to_owned();
    let program = daemon.command(&["--version"]).get_program().to_owned();
    let nodes = || lab.agents().iter().chain([lab.world()]);
    let names: Vec<_> = nodes().map(|node| node.namespace.name()).chain([lab.host().name()]).collect();
    let record = json!({
        "pid": daemon.pid(),
        "binary": program.to_string_lossy(),
        "host": lab.host().name(),
        "pins": daemon.paths().pins(),
        "namespaces": names,
    });
    fs::write(base.join(RECORD), record.to_string()).context("writing down what is kept")?;
    let name = base.file_name().context("the directory has a name")?.to_string_lossy().into_owned();
    let agentsec = format!(
        "nsenter --net=/run/netns/{} {} --run-dir {} --state-dir {} --pin-path {}",
        lab.host().name(),
        program.to_string_lossy(),
        run.display(),
        daemon.paths().state().display(),
        daemon.paths().pins().display(),
    );
    screen.insist("");
    screen.insist(&screen.paint(Tone::Strong, "  The lab stays. What to try:"));
    screen.insist(&format!("\n  agentsec() {{ {agentsec} \"$@\"; }}\n"));
    for words in ["status", "events", "quarantine assistant --reason trying", "release assistant"] {
        screen.insist(&format!("  agentsec {words}"));
    }
    screen.insist("\n  As one of the agents, a few doors too many, and what AgentSec says of that:\n");
    let (part, node) = (PARTS[0], lab.agent(0));
    screen.insist(&format!(
        "  nsenter --net=/run/netns/{} bash -c 'for port in {{1..60}}; do echo > /dev/udp/{}/$port; done'",
        node.namespace.name(),
        lab.world().v4,
    ));
    screen.insist(&format!("  agentsec explain {}", part.id));
    let lab_program = std::env::current_exe().context("finding this program")?;
    screen.insist(&format!("\n  To take it down:\n\n  {} down {name}", lab_program.display()));
    daemon.keep();
    lab.keep();
    Ok(())
}

/// Takes a kept lab down: the daemon, its enforcement, the namespaces, the files.
///
/// # Errors
///
/// When no lab of that name was kept, and when something of it cannot be removed.
pub fn down(name: &str) -> Result<()> {
    ensure!(name.starts_with("as-test-") && !name.contains('/'), "{name:?} is no name of a kept lab");
    let base = std::env::temp_dir().join(name);
    let text = fs::read_to_string(base.join(RECORD)).with_context(|| format!("no lab {name} is kept"))?;
    let record: Value = serde_json::from_str(&text).context("the lab's record is not JSON")?;
    if let Some(pid) = record["pid"].as_i64() {
        end_daemon(i32::try_from(pid)?, &base)?;
    }
    let pins = Path::new(record["pins"].as_str().context("the record names no pins")?);
    if pins.exists() {
        let binary = record["binary"].as_str().context("the record names no binary")?;
        let mut unload = Command::new(binary);
        unload.arg("--run-dir").arg(base.join("run")).arg("--pin-path").arg(pins).arg("unload");
        // Removing the pins ends enforcement as well, so a binary that is gone is not in the way.
        let _ = unload.output();
        let _ = fs::remove_dir_all(pins);
    }
    for name in record["namespaces"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let output = Command::new("ip").args(["netns", "delete", name]).output()?;
        let gone = !Path::new("/run/netns").join(name).exists();
        ensure!(gone, "ip netns delete {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::remove_dir_all(&base).with_context(|| format!("removing {}", base.display()))
}

/// Ends the process, if it still is the daemon that works in `base`.
fn end_daemon(pid: i32, base: &Path) -> Result<()> {
    let is_ours = || {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&*base.to_string_lossy())
    };
    if !is_ours() {
        return Ok(());
    }
    kill(Pid::from_raw(pid), Signal::SIGTERM).context("ending the daemon")?;
    wait::until("the daemon's end", Duration::from_secs(10), || (!is_ours()).then_some(()))
}
