//! Cgroups come and go, processes move, daemons die, others have programs there too: agents stay who they are.

use agentsec_tests::cgroup::scene::{self, CgroupScene, DATAGRAM, Shot};
use agentsec_tests::cgroup::{Cgroup, Member};
use agentsec_tests::foreign::{Counter, Verdict, Way, programs_on};
use agentsec_tests::scene::{LONG, NAMES, number, passed};
use agentsec_tests::wait;
use anyhow::Result;
use serde_json::Value;

const ALL_PASS: Shot = Shot { sent: 10, refused: 0 };
const NONE_PASS: Shot = Shot { sent: 0, refused: 10 };

/// Shoots ten datagrams from a cgroup.
fn ten(scene: &CgroupScene, cgroup: &Cgroup) -> Result<Shot> {
    scene.shoot(cgroup, 10)
}

fn sent_by(agent: &Value) -> u64 {
    number(&agent["outbound"]["packets"])
}

fn quarantine(scene: &CgroupScene, agent: &str) -> Result<()> {
    scene.daemon.cli_ok(&["quarantine", agent, "--reason", "test"]).map(drop)
}

#[test]
fn a_cgroup_that_appears_later_is_attached_by_path_unit_or_pattern() -> Result<()> {
    let root = scene::root()?;
    let config = scene::config(&root)
        .agent_by("exact", "cgroup", format!("{}/batch/exact", root.path()))
        .agent_by("fleet", "cgroup", format!("{}/batch/box-*", root.path()))
        .agent_by("mailer", "unit", "agent-mailer.service");
    let scene = CgroupScene::start(root, &config)?;
    scene.wait_attached("exact", "missing")?;
    let batch = scene.root.child("batch")?;
    let deep = scene.root.child("user.slice")?;
    let deep = (deep.child("user-1.slice")?, deep);
    for (id, cgroup) in [
        ("exact", batch.child("exact")?),
        ("box-7", batch.child("box-7")?),
        ("mailer", deep.0.child("agent-mailer.service")?),
    ] {
        let agent = scene.wait_attached(id, "attached")?;
        assert_eq!(agent["attachments"][0]["cgroup"], cgroup.path(), "{agent}");
        assert_eq!(ten(&scene, &cgroup)?, ALL_PASS);
        assert_eq!(passed(&scene.daemon.agent(id)?), [10 * DATAGRAM, 10, 0, 0], "{id}");
        quarantine(&scene, id)?;
        assert_eq!(ten(&scene, &cgroup)?, NONE_PASS, "{id}");
    }
    assert_eq!(ten(&scene, &batch)?, ALL_PASS, "what is around agents is nobody's");
    Ok(())
}

#[test]
fn nobody_becomes_another_agent_by_making_a_cgroup() -> Result<()> {
    let root = scene::root()?;
    let config = scene::config(&root).agent_by("fleet", "unit", "box-*");
    let scene = CgroupScene::start(root, &config)?;
    let outer = scene.root.child("box-1")?;
    scene.wait_attached("box-1", "attached")?;
    let inner = outer.child("box-2")?;
    let deeper = inner.child("payload")?;
    // What has appeared before this one has been looked at when this one is known.
    let _other = scene.root.child("box-3")?;
    scene.wait_attached("box-3", "attached")?;
    for cgroup in [&outer, &inner, &deeper] {
        assert_eq!(ten(&scene, cgroup)?, ALL_PASS);
    }
    let status = scene.daemon.status()?;
    let agents: Vec<_> = status["agents"].as_array().into_iter().flatten().collect();
    let known: Vec<_> = agents.iter().map(|agent| (&agent["id"], sent_by(agent))).collect();
    assert_eq!(known, [(&"box-1".into(), 30), (&"box-3".into(), 0)]);
    quarantine(&scene, "box-1")?;
    for cgroup in [&outer, &inner, &deeper] {
        assert_eq!(ten(&scene, cgroup)?, NONE_PASS, "{}", cgroup.path());
    }
    Ok(())
}

#[test]
fn a_cgroup_that_is_made_anew_is_the_same_agent_and_as_contained() -> Result<()> {
    let mut scene = CgroupScene::with_agents(1, |config| config)?;
    quarantine(&scene, NAMES[0])?;
    for daemon_runs in [true, false] {
        let old = scene.agents.remove(0);
        let id = old.id();
        if !daemon_runs {
            scene.daemon.kill9()?;
        }
        old.remove()?;
        if daemon_runs {
            scene.wait_attached(NAMES[0], "missing")?;
        }
        let new = scene.root.child(NAMES[0])?;
        assert_ne!(new.id(), id, "the kernel knows it by another id");
        if !daemon_runs {
            scene.daemon.restart()?;
        }
        let alice = scene.wait_attached(NAMES[0], "attached")?;
        assert_eq!(alice["state"], "OPEN");
        assert_eq!(ten(&scene, &new)?, NONE_PASS, "daemon running: {daemon_runs}");
        scene.agents.push(new);
    }
    scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    assert_eq!(ten(&scene, &scene.agents[0])?, ALL_PASS);
    assert_eq!(scene.arrived(10)?, 10);
    Ok(())
}

/// As a systemd slice does: it goes with its last unit, and comes with the next.
#[test]
fn the_cgroup_that_agents_are_looked_for_in_may_come_late_and_again() -> Result<()> {
    let outer = scene::root()?;
    let (slice, unit) = (format!("{}/agents.slice", outer.path()), "agent.service");
    let config =
        scene::config(&outer).set("daemon.cgroup_root", slice.as_str()).agent_by(NAMES[0], "unit", unit);
    let mut scene = CgroupScene::start(outer, &config)?;
    scene.wait_attached(NAMES[0], "missing")?;
    for round in 0..3 {
        let slice = scene.root.child("agents.slice")?;
        let agent = slice.child(unit)?;
        scene.wait_attached(NAMES[0], "attached")?;
        assert_eq!(ten(&scene, &agent)?, if round == 0 { ALL_PASS } else { NONE_PASS }, "round {round}");
        assert_eq!(programs_on(&slice, Way::Out)?, 1);
        quarantine(&scene, NAMES[0])?;
        assert_eq!(ten(&scene, &agent)?, NONE_PASS, "round {round}");
        if round == 1 {
            scene.daemon.kill9()?;
        }
        slice.remove()?;
        if round == 1 {
            scene.daemon.restart()?;
        }
        assert_eq!(scene.wait_attached(NAMES[0], "missing")?["state"], "OPEN");
    }
    assert_eq!(sent_by(&scene.agent(0)?), 10);
    Ok(())
}

/// A process that shoots ten datagrams once it is told to, and makes its socket only then.
fn armed(scene: &CgroupScene, cgroup: &Cgroup) -> Result<Member> {
    let to = scene.sink().address().to_string();
    cgroup.traffic_when_told(Some(scene.lab.host()), &["udp-client", "--to", &to, "--datagrams", "10"])
}

fn fire(mut process: Member) -> Result<Shot> {
    process.say("now")?;
    Shot::of(&process.report()?)
}

#[test]
fn a_socket_made_after_a_move_is_its_new_cgroups() -> Result<()> {
    let scene = CgroupScene::with_agents(1, |config| config)?;
    let (inside, outside) = (&scene.agents[0], scene.root.child("outside")?);
    let (mover, leaver) = (armed(&scene, &outside)?, armed(&scene, inside)?);
    inside.adopt(mover.id())?;
    outside.adopt(leaver.id())?;
    assert_eq!(fire(mover)?, ALL_PASS);
    assert_eq!(sent_by(&scene.agent(0)?), 10);
    assert_eq!(fire(leaver)?, ALL_PASS);
    assert_eq!(sent_by(&scene.agent(0)?), 10);
    quarantine(&scene, NAMES[0])?;
    let (mover, leaver) = (armed(&scene, &outside)?, armed(&scene, inside)?);
    inside.adopt(mover.id())?;
    outside.adopt(leaver.id())?;
    assert_eq!((fire(mover)?, fire(leaver)?), (NONE_PASS, ALL_PASS));
    Ok(())
}

/// A socket stays in the cgroup in which it was made, whoever uses it, as long as it lives. So a process that is put into
/// an agent's cgroup after it has made sockets is not held on those, and one that leaves stays held on its own. Start
/// agents in their cgroups, and give them no right to write to `cgroup.procs` elsewhere.
#[test]
fn a_socket_older_than_the_move_is_not_covered() -> Result<()> {
    let scene = CgroupScene::with_agents(1, |config| config)?;
    let (inside, outside) = (&scene.agents[0], scene.root.child("outside")?);
    let to = scene.sink().address().to_string();
    let hold = |cgroup: &Cgroup| scene.traffic(cgroup, &["hold", "udp", "--to", &to]);
    let (mut entered, mut left) = (hold(&outside)?, hold(inside)?);
    for process in [&entered, &left] {
        process.ready()?;
    }
    inside.adopt(entered.id())?;
    outside.adopt(left.id())?;
    assert_eq!(entered.ask("now")?["sent_bytes"], 100);
    assert_eq!(sent_by(&scene.agent(0)?), 0, "moved in, and its older socket is still nobody's");
    assert_eq!(left.ask("now")?["sent_bytes"], 100);
    assert_eq!(sent_by(&scene.agent(0)?), 1, "moved out, and its older socket is still the agent's");
    quarantine(&scene, NAMES[0])?;
    assert_eq!(entered.ask("now")?["sent_bytes"], 100);
    assert_eq!(left.ask("now")?["sent_bytes"], 0);
    assert_eq!(number(&scene.agent(0)?["outbound"]["dropped_packets"]), 1);
    Ok(())
}

#[test]
fn the_next_daemon_takes_cgroups_over_without_a_gap() -> Result<()> {
    let mut scene = CgroupScene::with_agents(2, |config| config)?;
    quarantine(&scene, NAMES[0])?;
    let to = scene.sink().address().to_string();
    let stream = ["udp-client", "--to", &to, "--datagrams", "1000000000", "--longest", "120"];
    let stream = scene.traffic(&scene.agents[0], &stream)?;
    let on_root = |scene: &CgroupScene| -> Result<[u32; 2]> {
        Ok([programs_on(&scene.root, Way::In)?, programs_on(&scene.root, Way::Out)?])
    };
    let mut dropped = 0;
    for kill in [true, false, true] {
        if kill {
            scene.daemon.kill9()?;
        } else {
            scene.daemon.terminate()?;
        }
        assert_eq!(on_root(&scene)?, [1, 1]);
        assert_eq!(ten(&scene, &scene.agents[1])?, ALL_PASS, "bob is hurt");
        scene.daemon.restart()?;
        let alice = scene.wait_attached(NAMES[0], "attached")?;
        assert_eq!(
            (&alice["state"], &alice["attachments"][0]["hook"]),
            (&"OPEN".into(), &"cgroup_skb".into())
        );
        let now = number(&alice["outbound"]["dropped_packets"]);
        assert!(now > dropped, "dropped and counted all along");
        dropped = now;
        assert_eq!(on_root(&scene)?, [1, 1], "replaced, not added");
    }
    let report = stream.end()?;
    assert_eq!((&report["sent"], scene.arrived(30)?), (&0.into(), 30), "{report}");
    assert_eq!(sent_by(&scene.agent(1)?), 30, "counted with and without a daemon");

    scene.daemon.kill9()?;
    scene.daemon.cli_ok(&["unload"])?;
    // The kernel frees a link a moment after its last pin has gone.
    let is_bare = || (on_root(&scene).ok()? == [0, 0]).then_some(());
    wait::until("no program of ours on the cgroup", LONG, is_bare)?;
    assert_eq!(ten(&scene, &scene.agents[0])?, ALL_PASS);
    Ok(())
}

#[test]
fn programs_of_others_on_the_cgroup_run_beside_ours_and_either_drops() -> Result<()> {
    for ahead in [true, false] {
        let root = scene::root()?;
        let alice = root.child(NAMES[0])?;
        let config = scene::config(&root).agent_by(NAMES[0], "cgroup", alice.path());
        let filter = |cgroup: &Cgroup| Counter::attach_cgroup(cgroup, Way::Out, Verdict::Drop);
        let early = if ahead { Some(filter(&root)?) } else { None };
        let scene = CgroupScene::start(root, &config)?;
        scene.wait_attached(NAMES[0], "attached")?;
        let theirs = match early {
            Some(early) => early,
            None => filter(&scene.root)?,
        };
        assert_eq!(programs_on(&scene.root, Way::Out)?, 2);
        assert_eq!(ten(&scene, &alice)?, NONE_PASS, "theirs drops; ahead of ours: {ahead}");
        assert_eq!(theirs.packets()?, 10);
        assert_eq!(sent_by(&scene.agent(0)?), 10, "ours was asked, and would have let it pass");
        drop(theirs);
        assert_eq!(ten(&scene, &alice)?, ALL_PASS);
        let theirs = Counter::attach_cgroup(&scene.root, Way::Out, Verdict::Pass)?;
        quarantine(&scene, NAMES[0])?;
        assert_eq!(ten(&scene, &alice)?, NONE_PASS, "ours drops");
        assert_eq!(theirs.packets()?, 10, "theirs is asked all the same");
        assert_eq!(scene.arrived(10)?, 10);
    }
    Ok(())
}
