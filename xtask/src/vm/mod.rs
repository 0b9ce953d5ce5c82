//! `cargo xtask vm`: the tests of the host, run by Debian's own kernels in guests.
//!
//! ```text
//! selection ─▶ guest (init script) ─▶ image (cpio) ─▶ machine (qemu) ─▶ report
//!                            kernel (apt) ───┘
//! ```
//!
//! The guests are emulated and have no network: everything happens in namespaces of their own.

mod cpio;
mod guest;
mod image;
mod kernel;
mod machine;
mod report;
mod selection;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

pub use kernel::{ALL, Kernel};

use crate::compile::{self, Binaries};
use crate::need::Scope;
use crate::setup;
use crate::step::{Progress, paint};
use guest::Call;
use machine::{Machine, State};
use report::Report;

/// What is run on one kernel.
struct Guest {
    kernel: Kernel,
    unpacked: kernel::Unpacked,
    image: PathBuf,
    calls: Vec<Call>,
    left_out: Vec<(String, &'static str)>,
}

/// What came of it.
struct Finished {
    guest: Guest,
    report: Report,
    seconds: u64,
    faults: Vec<String>,
}

/// Sets up, builds, and runs the guests; the exit code says whether all went well.
pub fn command(
    progress: &Progress,
    kernels: &[Kernel],
    filter: Option<&str>,
    as_json: bool,
) -> Result<ExitCode> {
    let tools = setup::ensure(progress, Scope::Vm)?;
    let object = compile::kernel_object(progress, &tools)?;
    let binaries = compile::tests(progress, &object)?;
    let (well, answer) = run(progress, kernels, filter, &binaries)?;
    if as_json {
        println!("{answer}");
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests that the table selects on these kernels, as many at a time as there are CPUs. Whether all of them ran
/// and passed, and everything that came of it, for programs.
///
/// # Errors
///
/// When a guest cannot be made. What goes wrong inside is not an error but an answer.
pub fn run(
    progress: &Progress,
    kernels: &[Kernel],
    filter: Option<&str>,
    binaries: &Binaries,
) -> Result<(bool, Value)> {
    ensure!(cfg!(target_arch = "x86_64"), "vm: the guests run the host's programs, which need to be x86-64");
    let mut guests = Vec::new();
    for &kernel in kernels {
        guests.push(prepare(progress, kernel, filter, binaries)?);
    }
    let finished = boot_all(progress, guests)?;
    for one in &finished {
        tell(progress, one);
    }
    let well = !finished.is_empty() && finished.iter().all(|one| one.faults.is_empty());
    let answer = finished.iter().map(|one| one.report.to_json(&one.guest.left_out, &one.faults));
    Ok((well, json!({ "passed": well, "kernels": answer.collect::<Vec<_>>() })))
}

fn prepare(progress: &Progress, kernel: Kernel, filter: Option<&str>, binaries: &Binaries) -> Result<Guest> {
    let unpacked = kernel::fetch(progress, kernel)?;
    let names: Vec<&str> = binaries.tests.iter().map(|(name, _)| name.as_str()).collect();
    let (calls, left_out) = guest::plan(kernel, &names, filter);
    let is_called = |name: &str| calls.iter().any(|call| call.program == name);
    let tests: Vec<_> = binaries.tests.iter().filter(|(name, _)| is_called(name)).cloned().collect();
    let agentsec = binaries.agentsec.clone().context("package agentsec has no program agentsec")?;
    let lab = binaries.lab.clone().context("package agentsec-tests has no program agentsec-lab")?;
    let programs = [("agentsec".to_owned(), agentsec), ("agentsec-lab".to_owned(), lab)];
    let files = image::programs(&programs, &tests)?;
    let image = kernel::directory(kernel).join("initramfs.cpio");
    image::write(&image, &files, &unpacked, &guest::init(&calls))?;
    Ok(Guest { kernel, unpacked, image, calls, left_out })
}

/// Boots guests, as many at a time as there are CPUs, and waits for all.
fn boot_all(progress: &Progress, guests: Vec<Guest>) -> Result<Vec<Finished>> {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut waiting = guests.into_iter();
    let mut running: Vec<(Guest, Machine)> = Vec::new();
    let mut finished = Vec::new();
    progress.poll("vm: run the guests", || {
        while running.len() < at_once
            && let Some(guest) = waiting.next()
        {
            let machine = Machine::boot(guest.kernel, &guest.unpacked, &guest.image)?;
            running.push((guest, machine));
        }
        let mut still = Vec::new();
        for (guest, mut machine) in running.drain(..) {
            match machine.state()? {
                State::Running => still.push((guest, machine)),
                ended => finished.push(finish(guest, &machine, &ended)),
            }
        }
        running = still;
        if running.is_empty() && waiting.len() == 0 {
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(running.iter().map(doing).collect::<Vec<_>>().join("; ")))
    })?;
    finished.sort_by_key(|one| one.guest.kernel);
    Ok(finished)
}

/// What a guest is at, in a few words.
fn doing((guest, machine): &(Guest, Machine)) -> String {
    let report = Report::parse(&machine.results());
    let at = report.programs.last().map_or("booting", |run| run.program.as_str());
    let (passed, failed, _) = report.counts();
    let failed = if failed == 0 { String::new() } else { format!(", {failed} failed") };
    format!("{}: {at}, {passed} passed{failed}", guest.kernel.name())
}

fn finish(guest: Guest, machine: &Machine, state: &State) -> Finished {
    let report = Report::parse(&machine.results());
    let why = match state {
        State::Killed(why) => Some(*why),
        State::Running | State::Ended => None,
    };
    let expected: Vec<&str> = guest.calls.iter().map(|call| call.program.as_str()).collect();
    let faults = report.faults(&expected, why, &machine.console());
    Finished { guest, report, seconds: machine.elapsed().as_secs(), faults }
}

/// Tells what passed, what was skipped and why, and what failed.
fn tell(progress: &Progress, Finished { guest, report, seconds, faults }: &Finished) {
    let (passed, failed, skipped) = report.counts();
    let release = if report.release.is_empty() { guest.kernel.name() } else { &report.release };
    progress.done(&format!(
        "vm: Linux {release}: {passed} passed, {failed} failed, {} skipped; {seconds} s",
        skipped + guest.left_out.len()
    ));
    for run in &report.programs {
        let took = run.seconds.1 - run.seconds.0;
        let passed = run.tests.iter().filter(|(_, outcome)| *outcome == report::Outcome::Passed).count();
        progress.done(&format!("  passed   {passed} of {} in {took:.0} s", run.program));
    }
    let ignored = report.ignored();
    let left_out = guest.left_out.iter().map(|(what, why)| (what.as_str(), *why));
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (what, why) in ignored.iter().map(|(what, why)| (what.as_str(), *why)).chain(left_out) {
        by_reason.entry(why).or_default().push(what);
    }
    for (why, what) in by_reason {
        progress.done(&format!("  skipped  {}\n           {why}", what.join("\n           ")));
    }
    for fault in faults {
        progress.done(&format!("  {} {}", paint("31;1", "failed  "), fault.trim_end()));
    }
}
