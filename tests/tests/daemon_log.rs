//! The forensic log as an operator and an outsider find it: checked, proved, tampered with, and on disks that fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use agentsec::record::evidence::EvidenceLog;
use agentsec_tests::daemon::{Daemon, Launch};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use agentsec_tests::small_disk::SmallDisk;
use agentsec_tests::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A daemon that has something to tell.
fn with_events() -> Result<(Lab, Daemon)> {
    let Scene { daemon, lab } = Scene::routed(1, &config(1))?;
    daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "a drill"])?;
    daemon.cli_ok(&["release", NAMES[0]])?;
    Ok((lab, daemon))
}

fn log_of(daemon: &Daemon) -> PathBuf {
    daemon.paths().state().join("log")
}

fn verify(daemon: &Daemon, flags: &[&str]) -> Result<(i32, Value)> {
    let output = daemon.cli(&[&["log", "verify", "--json"], flags].concat())?;
    let code = output.status.code().context("it ended by itself")?;
    let said = serde_json::from_slice(&output.stdout);
    Ok((code, said.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?))
}

/// The program in `tests/tlog`, built once.
fn outside() -> Result<&'static Path> {
    static BUILT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let directory = tempfile::tempdir().ok()?;
        let program = directory.path().join("tlog");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tlog/main.go");
        let status = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(source)
            .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "-buildvcs=false")])
            .env("GOCACHE", directory.path().join("cache"))
            .status()
            .ok()?;
        status.success().then_some((directory, program))
    });
    built.as_ref().map(|(_, program)| program.as_path()).context("building tests/tlog with Debian's go")
}

#[test]
fn an_outsider_checks_the_log_and_a_proof_with_the_reference_implementation() -> Result<()> {
    let (_lab, mut daemon) = with_events()?;
    let key = daemon.cli_ok(&["log", "key"])?;
    let id = daemon.events()?[0]["event_id"].as_str().context("an id")?.to_owned();
    daemon.terminate()?;
    let log = log_of(&daemon);
    let run =
        |first: &str, rest: &[&str]| Command::new(outside()?).arg(first).args(rest).output().context("tlog");
    let checked = run(log.to_str().context("a path")?, &[key.trim_end()])?;
    let said = String::from_utf8_lossy(&checked.stdout);
    let entries = daemon.events()?.len();
    assert_eq!(said.trim_end(), format!("{entries} entries"), "{}", String::from_utf8_lossy(&checked.stderr));
    let proof = daemon.paths().state().join("event.tlog-proof");
    let path = proof.to_str().context("a path")?;
    daemon.cli_ok(&["log", "prove", &id, "--to", path])?;
    let proved = run("--proof", &[path, key.trim_end()])?;
    assert_eq!(String::from_utf8_lossy(&proved.stdout).trim_end(), format!("entry 0 of {entries}"));
    let shown = daemon.cli_ok(&["log", "verify-proof", path, "--key", key.trim_end()])?;
    assert!(shown.contains(&id) && shown.contains("proved: entry 0"), "{shown}");
    // Both refuse what was changed.
    let forged = fs::read_to_string(&proof)?.replace("index 0", "index 1");
    fs::write(&proof, forged)?;
    assert!(!run("--proof", &[path, key.trim_end()])?.status.success());
    assert_eq!(daemon.cli(&["log", "verify-proof", path])?.status.code(), Some(7));
    let bundle = fs::read_dir(log.join("tile/entries/000.p"))?.next().context("a bundle")??.path();
    let mut bytes = fs::read(&bundle)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes)?;
    assert!(!run(log.to_str().context("a path")?, &[key.trim_end()])?.status.success());
    let (code, report) = verify(&daemon, &[])?;
    assert_eq!((code, &report["findings"][0]["what"]), (7, &"changed".into()), "{report}");
    Ok(())
}

#[test]
fn a_running_daemons_log_verifies_and_says_what_is_anchored() -> Result<()> {
    let (_lab, mut daemon) = with_events()?;
    let (code, report) = verify(&daemon, &[])?;
    assert_eq!((code, &report["findings"]), (0, &Value::Array(Vec::new())));
    daemon.terminate()?;
    let kept = daemon.paths().state().join("kept");
    fs::copy(log_of(&daemon).join("checkpoint"), &kept)?;
    let signed = verify(&daemon, &[])?.1["signed"].clone();
    daemon.restart()?;
    daemon.terminate()?;
    let (code, report) = verify(&daemon, &["--checkpoint", kept.to_str().context("a path")?])?;
    assert_eq!((code, &report["anchored"]), (0, &signed));
    ensure!(report["signed"].as_u64() > signed.as_u64(), "{report}");
    // An old copy, and somebody else's key.
    let newest = daemon.paths().state().join("newest");
    fs::copy(log_of(&daemon).join("checkpoint"), &newest)?;
    fs::copy(&kept, log_of(&daemon).join("checkpoint"))?;
    let (code, report) = verify(&daemon, &["--checkpoint", newest.to_str().context("a path")?])?;
    assert_eq!((code, &report["findings"][0]["what"]), (7, &"rolled_back".into()), "{report}");
    let other = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let (code, report) = verify(&daemon, &["--key", other])?;
    assert_eq!((code, &report["findings"][0]["what"]), (7, &"other_key".into()), "{report}");
    Ok(())
}

#[test]
fn entries_that_are_gone_without_an_event_are_missing_whatever_the_file_says() -> Result<()> {
    let (_lab, mut daemon) = with_events()?;
    daemon.terminate()?;
    let mut log = EvidenceLog::open(&log_of(&daemon), "host")?.log;
    log.append(&vec![b"{}"; 600], true)?;
    log.close()?;
    drop(log);
    fs::remove_file(log_of(&daemon).join("tile/entries/000"))?;
    fs::write(log_of(&daemon).join("removed"), "256\n")?;
    let (code, report) = verify(&daemon, &[])?;
    let finding = &report["findings"][0];
    assert_eq!((code, &finding["what"], &finding["entry"]), (7, &"missing".into(), &0.into()), "{report}");
    Ok(())
}

#[test]
fn what_is_asked_wrongly_is_told_with_what_is_allowed() -> Result<()> {
    let (_lab, mut daemon) = with_events()?;
    daemon.terminate()?;
    for (command, code, said) in [
        (&["log", "prove", "no-such-event"][..], 4, "the log has no event no-such-event"),
        (&["log", "prove", "4000000"], 1, "is under no checkpoint yet"),
        (&["log", "verify", "--key", "nonsense"], 2, "neither a public key (NAME+HASH+BASE64) nor a file"),
        (&["log", "verify", "--checkpoint", "/proc/no-such-file"], 1, "/proc/no-such-file"),
        (&["log", "verify-proof", "/proc/version"], 7, "it is not a proof"),
    ] {
        let output = daemon.cli(command)?;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {error}");
        assert!(error.contains(said), "{command:?}: {error}");
    }
    Ok(())
}

#[test]
fn killed_again_and_again_it_loses_nothing_that_an_operator_was_told() -> Result<()> {
    let (_lab, mut daemon) = with_events()?;
    for round in 0..6 {
        let verb = if round % 2 == 0 { &["shadow", NAMES[0]][..] } else { &["shadow", NAMES[0], "--off"] };
        daemon.cli_ok(verb)?;
        daemon.kill9()?;
        daemon.restart()?;
    }
    daemon.terminate()?;
    let (code, report) = verify(&daemon, &[])?;
    assert_eq!(code, 0, "{report}");
    let count = |kind: &str| -> Result<usize> {
        Ok(daemon.events()?.iter().filter(|event| event["event_type"] == kind).count())
    };
    assert_eq!((count("DAEMON_STARTED")?, count("OPERATOR_COMMAND")?), (7, 8));
    Ok(())
}

#[test]
fn a_log_whose_disk_is_full_goes_on_on_a_second_path_and_is_whole_afterwards() -> Result<()> {
    let lab = Lab::routed(1)?;
    let second = tempfile::tempdir()?;
    let directory = second.path().to_str().context("a path")?;
    let mut daemon = Launch::new(lab.host(), &config(1).set("log.dead_letters", directory)).prepare()?;
    let disk = SmallDisk::over(&daemon.paths().state())?;
    daemon.begin()?;
    daemon.wait_ready()?;
    let (mut scene, disk) = (Scene { daemon, lab }, disk);
    let filler = disk.fill()?;
    let letters = second.path().join("agentsec-dead-letters.jsonl");
    let mut told = 0;
    wait::until("events on the second path", LONG, || {
        told += usize::from(scene.daemon.cli_ok(&["release", NAMES[0]]).is_ok());
        (fs::metadata(&letters).ok()?.len() > 0).then_some(())
    })?;
    assert!(scene.daemon.status()?["daemon"]["alerts"].to_string().contains("the log takes none"));
    // It dies meanwhile; then there is room again.
    scene.daemon.kill9()?;
    fs::remove_file(filler)?;
    scene.daemon.restart()?;
    scene.daemon.terminate()?;
    assert_eq!(fs::metadata(&letters)?.len(), 0);
    let events = scene.daemon.events()?;
    let commands = events.iter().filter(|event| event["event_type"] == "OPERATOR_COMMAND").count();
    assert_eq!(commands, told, "each that was answered is in the log, once");
    assert!(events.iter().any(|event| event["event_data"]["what"] == "log_refuses"));
    let (code, report) = verify(&scene.daemon, &[])?;
    assert_eq!(code, 0, "{report}");
    Ok(())
}
