//! `cargo xtask fuzz`: libFuzzer over the targets of `tests/src/fuzz`, beginning with the committed corpora.
//!
//! The instrumentation is LLVM's own pass, which stable compilers have; what is fuzzed is safe code, so a panic is what there is
//! to find, and no sanitizer is needed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::Progress;
use crate::workspace;

/// What libFuzzer wants to know about the code that it runs.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// Fuzzes one target, or each in turn, for so many seconds.
///
/// # Errors
///
/// When there is no such target, it cannot be built, or something is found: the input that does it is named.
pub fn fuzz(progress: &Progress, target: Option<&str>, seconds: u64) -> Result<()> {
    let known = targets()?;
    if let Some(unknown) = target.filter(|name| !known.iter().any(|known| known == name)) {
        bail!("there is no target {unknown:?}; there are {}", known.join(", "));
    }
    if !Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success()) {
        bail!("libFuzzer is built from its source, which takes a C++ compiler: install g++");
    }
    let program = build(progress)?;
    for name in known.iter().filter(|name| target.is_none_or(|target| target == *name)) {
        run(progress, &program, name, seconds)?;
    }
    Ok(())
}

/// Each corpus is a target's.
fn targets() -> Result<Vec<String>> {
    let directory = workspace::root().join("tests/corpora");
    let listed = std::fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    let names = listed.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn build(progress: &Progress) -> Result<PathBuf> {
    let target_dir = workspace::root().join("target/fuzz");
    let mut command = workspace::cargo();
    command
        .args(["build", "--release", "--manifest-path", "tests/fuzz/Cargo.toml", "--target-dir"])
        .arg(&target_dir);
    // With a target of its own, build scripts are not instrumented.
    let host = host()?;
    command.args(["--target", &host]).env("RUSTFLAGS", COVERAGE);
    progress.run("fuzz: build", &mut command)?;
    Ok(target_dir.join(host).join("release/agentsec-fuzz"))
}

fn host() -> Result<String> {
    let output = Command::new("rustc").args(["--version", "--verbose"]).output().context("asking rustc")?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not tell its host")?.to_owned())
}

/// What is found on the way stays below `target`, and the committed corpus as it is.
fn run(progress: &Progress, program: &PathBuf, name: &str, seconds: u64) -> Result<()> {
    let work = workspace::root().join("target/fuzz/corpora").join(name);
    let found = workspace::root().join("target/fuzz/found").join(name);
    for directory in [&work, &found] {
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let mut command = Command::new(program);
    command
        .env("AGENTSEC_FUZZ_TARGET", name)
        .arg(&work)
        .arg(workspace::root().join("tests/corpora").join(name))
        .arg(format!("-max_total_time={seconds}"))
        .args(["-max_len=4096", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", found.display()));
    progress
        .run(&format!("fuzz: {name} for {seconds} s"), &mut command)
        .with_context(|| format!("{name}: what was found is in {}", found.display()))
}
