//! Snapshots side by side with restic on the same data, their memory, and what one in progress costs a trip.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agentsec::clock;
use agentsec::config::recovery::RecoveryConfig;
use agentsec::recovery::staging::{self, Target};
use agentsec::recovery::store::Wish;
use agentsec::recovery::{Cancel, Moment, Store};
use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

use super::Options;
use super::row::Row;
use super::statistics::{Random, median};
use crate::scene::{LONG, NAMES, Scene, config};

const BENCH: &str = "snapshot";
/// How often each side does each thing.
const ROUNDS: usize = 2;
/// How much longer than restic alone anything may take.
const RATIO: f64 = 1.25;
/// Trips with and without a snapshot in progress.
const TRIPS: usize = 25;
const MANY: usize = 1_000_000;

pub(super) fn run(_: &Options) -> Result<Vec<Row>> {
    let home = tempfile::tempdir()?;
    let state = home.path().join("state");
    mixed(&state)?;
    let mut rows = beside_restic(home.path(), &state)?;
    rows.extend(trips(&state)?);
    Ok(rows)
}

/// Memory with a million files: apart, since making them takes longer than all else.
pub(super) fn run_many(_: &Options) -> Result<Vec<Row>> {
    let home = tempfile::tempdir()?;
    memory(home.path(), &home.path().join("state"))
}

/// 1 GiB of files of three sizes, a part of which cannot be compressed.
fn mixed(state: &Path) -> Result<()> {
    let mut random = Random::new(42);
    for (name, files, bytes, is_text) in
        [("noise", 200, 2 << 20, false), ("text", 300, 1 << 20, true), ("small", 10_400, 32 << 10, true)]
    {
        for number in 0..files {
            let directory = state.join(name).join((number / 100).to_string());
            fs::create_dir_all(&directory)?;
            fs::write(directory.join(number.to_string()), content(&mut random, bytes, is_text))?;
        }
    }
    Ok(())
}

fn content(random: &mut Random, bytes: usize, is_text: bool) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes + 32);
    while content.len() < bytes {
        let number = random.next();
        if is_text {
            content.extend_from_slice(
                format!("{{\"seq\":{},\"state\":\"closed\"}}\n", number % 100_000).as_bytes(),
            );
        } else {
            content.extend_from_slice(&number.to_le_bytes());
        }
    }
    content.truncate(bytes);
    content
}

fn store(home: &Path, state: &Path, name: &str) -> Result<Store> {
    let text = format!(
        "[agents.a]\ninterface = \"v\"\nrecovery = {{ directory = {:?} }}",
        state.display().to_string()
    );
    let config = agentsec::config::parse(&[agentsec::config::Source { name: BENCH.into(), text }])?;
    let spec = config.agents["a"].recovery.as_ref().context("a section")?;
    Ok(Store::new("a", spec, &RecoveryConfig::default(), &home.join(name))?)
}

fn now() -> Moment {
    Moment::new(clock::now(), "bench")
}

fn create(store: &Store) -> Result<String> {
    Ok(store.create(&Wish::default(), &now, &Cancel::default(), &mut |_, _| {})?.id)
}

fn restic(store: &Store, directory: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("restic");
    command.args(["--no-cache", "--quiet", "--repo", &store.restic.repository, "--password-file"]);
    command.arg(&store.restic.key_file).args(arguments).current_dir(directory);
    let output = command.output().context("restic")?;
    ensure!(output.status.success(), "restic {arguments:?}: {output:?}");
    Ok(())
}

fn timed<T>(seconds: &mut Vec<f64>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let done = work()?;
    seconds.push(started.elapsed().as_secs_f64());
    Ok(done)
}

/// Both sides end when what they wrote is on the disk.
fn settle(path: &Path) -> Result<()> {
    Ok(nix::unistd::syncfs(File::open(path)?)?)
}

fn beside_restic(home: &Path, state: &Path) -> Result<Vec<Row>> {
    const STEPS: [&str; 4] = ["create", "unchanged repeat", "verify", "restore"];
    let (mut ours, mut theirs): ([Vec<f64>; 4], [Vec<f64>; 4]) = Default::default();
    for round in 0..ROUNDS {
        let own = store(home, state, &format!("own-{round}"))?;
        let other = store(home, state, &format!("other-{round}"))?;
        own.prepare(&Cancel::default())?;
        other.prepare(&Cancel::default())?;
        let out = |name: &str| -> PathBuf { home.join(format!("{name}-{round}")) };
        settle(home)?;
        timed(&mut ours[0], || create(&own))?;
        timed(&mut theirs[0], || restic(&other, home, &["backup", "./state"]))?;
        let id = timed(&mut ours[1], || create(&own))?;
        timed(&mut theirs[1], || restic(&other, home, &["backup", "./state"]))?;
        timed(&mut ours[2], || Ok(own.verify(&id, &now, &Cancel::default(), &mut |_, _| {})?))?;
        timed(&mut theirs[2], || restic(&other, home, &["check", "--read-data"]))?;
        settle(home)?;
        timed(&mut ours[3], || {
            let target = Target::of(&out("ours"))?;
            let laid_out = own.lay_out(&id, &target, "bench", &Cancel::default())?;
            staging::exchange(&laid_out.directory, &target)?;
            Ok(staging::clear(&laid_out.place)?)
        })?;
        timed(&mut theirs[3], || {
            restic(&other, home, &["restore", "latest", "--target", &out("theirs").display().to_string()])?;
            settle(home)
        })?;
        for name in ["ours", "theirs", "own", "other"] {
            fs::remove_dir_all(out(name))?;
        }
    }
    let row = |(step, (ours, theirs)): (&str, (Vec<f64>, Vec<f64>))| {
        let (ours, theirs) = (median(ours), median(theirs));
        let measured = format!("{ours:.2} s, restic alone {theirs:.2} s: {:.2} ×", ours / theirs);
        Row::at_most(BENCH, format!("{step} of 1 GiB in 10,900 files"), measured, ours / theirs, RATIO, " ×")
    };
    Ok(STEPS.into_iter().zip(ours.into_iter().zip(theirs)).map(row).collect())
}

/// How long after the kernel's trip the daemon has handled it, milliseconds.
pub(super) fn handled(scene: &Scene, port: u16) -> Result<f64> {
    let count = |scene: &Scene| -> Result<Vec<Value>> {
        let is_trip = |event: &Value| event["event_data"]["action_type"] == "QUARANTINE";
        Ok(scene.daemon.events()?.into_iter().filter(is_trip).collect())
    };
    let before = count(scene)?.len();
    scene.shoot(0, port, 100)?;
    let trip = crate::wait::until("a trip", LONG, || count(scene).ok()?.get(before).cloned())?;
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    let at = |value: &Value| -> Result<f64> {
        let text = value.as_str().context("a time")?;
        let seconds = text.rsplit(':').next().and_then(|rest| rest.trim_end_matches('Z').parse::<f64>().ok());
        seconds.map(|seconds| seconds * 1000.0).context("a time of day")
    };
    let late = at(&trip["timestamp"])? - at(&trip["event_data"]["tripped"]["at"])?;
    Ok(if late < 0.0 { late + 60_000.0 } else { late })
}

fn trips(state: &Path) -> Result<Vec<Row>> {
    let config = config(1)
        .set("profiles.default.limits.max_volume", "5kB")
        .of_agent("recovery.directory", state.display().to_string())
        .of_agent("recovery.interval", "off");
    let scene = Scene::routed(1, &config)?;
    let idle = (0..TRIPS).map(|_| handled(&scene, 4242)).collect::<Result<Vec<_>>>()?;
    let mut busy = Vec::new();
    while busy.len() < TRIPS {
        let mut snapshot = scene.daemon.command(&["snapshot", "create", NAMES[0]]);
        let mut snapshot = snapshot.stdout(std::process::Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(1500));
        while busy.len() < TRIPS && snapshot.try_wait()?.is_none() {
            busy.push(handled(&scene, 4242)?);
        }
        snapshot.wait()?;
    }
    let (idle, busy) = (median(idle), median(busy));
    let measured = format!("{busy:.3} ms while one is being taken, {idle:.3} ms when idle");
    Ok(vec![Row::at_most(BENCH, "a trip's handling", measured, busy - idle, 1.0, " ms more")])
}

/// The most memory of any child so far, MiB.
fn peak() -> Result<f64> {
    Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss() as f64 / 1024.0)
}

fn memory(home: &Path, state: &Path) -> Result<Vec<Row>> {
    let before = peak()?;
    for number in 0..MANY {
        let directory = state.join((number / 1000).to_string());
        if number % 1000 == 0 {
            fs::create_dir_all(&directory)?;
        }
        fs::write(directory.join(number.to_string()), format!("file {number}"))?;
    }
    let own = store(home, state, "many")?;
    let (mut seconds, mut again) = (Vec::new(), Vec::new());
    timed(&mut seconds, || create(&own))?;
    let first = peak()?;
    timed(&mut again, || create(&own))?;
    let measured = format!(
        "{:.0} MiB, then {:.0} MiB unchanged ({:.0} s, {:.0} s; {before:.0} MiB before)",
        first,
        peak()?,
        median(seconds),
        median(again)
    );
    Ok(vec![Row::at_most(
        "files",
        "memory of a snapshot at 1,000,000 files",
        measured,
        peak()?,
        300.0,
        " MiB",
    )])
}
