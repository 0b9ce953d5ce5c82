//! Snapshots and recovery of a daemon whose wall clock steps: what is from before an incident is told by the boot's clock.

use std::fs;

use agentsec_tests::daemon::Launch;
use agentsec_tests::lab::Lab;
use agentsec_tests::quiet::{json, words};
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use agentsec_tests::wall_clock::WallClock;
use anyhow::{Context, Result};
use serde_json::Value;

fn id(created: &Value) -> Result<String> {
    Ok(created["id"].as_str().with_context(|| created.to_string())?.to_owned())
}

#[test]
fn a_wall_clock_that_steps_makes_no_poisoned_state_a_clean_one() -> Result<()> {
    let home = tempfile::tempdir()?;
    let state = home.path().join("state");
    fs::create_dir(&state)?;
    let config = config(1)
        .set("breaker.probe", "1s")
        .of_agent("recovery.directory", state.display().to_string())
        .of_agent("recovery.interval", "off")
        .of_agent("recovery.stop", words(&["/bin/true"]))
        .of_agent("recovery.start", words(&["/bin/true"]));
    let lab = Lab::routed(1)?;
    let clock = WallClock::new()?;
    let daemon = clock.of(Launch::new(lab.host(), &config))?.start()?;
    let scene = Scene { daemon, lab };
    let create = |content: &str| -> Result<String> {
        fs::write(state.join("f"), content)?;
        id(&json(&scene.daemon, &["snapshot", "create", NAMES[0]])?)
    };
    // By the wall clock the clean one is from after everything else, and the poisoned one from long before it.
    clock.step("+2h")?;
    let clean = create("clean")?;
    clock.step("-3h")?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    clock.step("-9d")?;
    let poisoned = create("poisoned")?;
    let list = json(&scene.daemon, &["snapshot", "list", NAMES[0]])?;
    let before = |wanted: &str| {
        let snapshots = list["snapshots"].as_array().into_iter().flatten();
        snapshots.filter(|one| one["snapshot_id"] == wanted).find_map(|one| one["before_incident"].as_bool())
    };
    assert_eq!((before(&clean), before(&poisoned)), (Some(true), Some(false)), "{list}");
    clock.step("+400d")?;
    let recovered = json(&scene.daemon, &["recover", NAMES[0]])?;
    assert_eq!(recovered["probe_ended"], "CLOSED", "{recovered}");
    assert_eq!(fs::read_to_string(state.join("f"))?, "clean");
    scene.daemon.wait_for_state(NAMES[0], "CLOSED", LONG)?;
    Ok(())
}
