//! What making evidence bundles costs the handling of trips, and how long they take.

use std::process::Command;

use anyhow::{Context, Result};

use super::Options;
use super::row::Row;
use super::snapshot::handled;
use super::statistics::median;
use crate::cgroup::{Cgroup, Member};
use crate::scene::{NAMES, Scene, config};

const BENCH: &str = "bundle";
/// Trips with and without bundles.
const TRIPS: usize = 40;
/// Processes of the agent.
const PROCESSES: usize = 200;

/// Two daemons, of which one makes bundles, trip in turns: whatever the machine does happens to both.
pub(super) fn run(_: &Options) -> Result<Vec<Row>> {
    let base = config(1).set("profiles.default.limits.max_volume", "5kB");
    let with = Scene::routed(1, &base)?;
    let without = Scene::routed(1, &base.clone().set("bundles.enabled", false))?;
    let cgroup = Cgroup::new("bench")?;
    let spawn = |scene: &Scene| -> Result<Vec<Member>> {
        let sleep = |_| {
            let mut sleep = Command::new("/bin/sleep");
            sleep.arg("600");
            cgroup.spawn(Some(&scene.lab.agent(0).namespace), sleep)
        };
        (0..PROCESSES).map(sleep).collect()
    };
    let _processes = (spawn(&with)?, spawn(&without)?);
    let (mut kept, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..TRIPS {
        // The bundle of each trip is still being made when the next one happens.
        kept.push(handled(&with, 4242)?);
        bare.push(handled(&without, 4242)?);
    }
    let took = took(&with)?;
    let worst = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    let worsts = format!("worst {:.3} and {:.3} ms", worst(&kept), worst(&bare));
    let (kept, bare) = (median(kept), median(bare));
    let measured = format!("{kept:.3} ms with bundles, {bare:.3} ms without ({worsts})");
    let what = "a trip's handling while bundles are made";
    Ok(vec![
        Row::at_most(BENCH, what, measured, kept - bare, 1.0, " ms more"),
        Row::information(BENCH, format!("a bundle of {PROCESSES} processes"), format!("{took:.0} ms")),
    ])
}

/// How long collecting took, milliseconds.
fn took(scene: &Scene) -> Result<f64> {
    let is_collected = |event: &serde_json::Value| event["event_data"]["action_type"] == "EVIDENCE_COLLECTED";
    scene.wait_for_event("a bundle", is_collected)?;
    let events = scene.daemon.events()?;
    let mine = events.iter().filter(|event| is_collected(event) && event["agent_id"] == NAMES[0]);
    let times: Option<Vec<f64>> = mine.map(|event| event["event_data"]["took_ms"].as_f64()).collect();
    Ok(median(times.context("how long it took")?))
}
