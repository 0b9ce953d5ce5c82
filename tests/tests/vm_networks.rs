//! Interfaces that reach an agent's namespace past its own: a macvlan or ipvlan on another wire of the host, given to
//! the agent. Those that sit on the agent's own interface are in `vm_devices`. And what a security module lets us deny.
//!
//! The ignored ones are run by `cargo xtask vm`, whose guests have such interfaces.

use agentsec_tests::cgroup::Cgroup;
use agentsec_tests::cgroup::scene::CgroupScene;
use agentsec_tests::link::ip;
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use anyhow::{Context, Result};
use serde_json::Value;

fn tells(agent: &Value, words: &[&str]) -> bool {
    let ways = agent["uncovered"].as_array().into_iter().flatten().filter_map(Value::as_str);
    ways.into_iter().any(|way| words.iter().all(|word| way.contains(word)))
}

#[test]
#[ignore = "needs macvlan and ipvlan, run by cargo xtask vm"]
fn an_interface_on_another_wire_that_is_given_to_an_agent_is_told_as_uncovered() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let (host, agent) = (scene.lab.host(), scene.lab.agent(0));
    // A namespace is known by its processes.
    let cgroup = Cgroup::new("inhabitant")?;
    let to = format!("{}:9", scene.lab.world().v4);
    let inhabitant = cgroup.traffic(Some(&agent.namespace), &["hold", "udp", "--to", &to])?;
    inhabitant.ready()?;
    for (name, kind) in [("side0", "macvlan mode bridge"), ("side1", "ipvlan mode l2")] {
        let add = format!("link add link world0 name {name} netns {} type {kind}", agent.namespace.path());
        ip(host, &add).with_context(|| format!("no {kind} can be made: is it in this kernel?"))?;
        // What is born in the agent's namespace rings on nobody's bell.
        ip(host, &format!("link set world0 alias {name}"))?;
        let word = kind.split(' ').next().unwrap_or(kind);
        scene.daemon.wait_until(&format!("{name} is told"), LONG, |status| {
            tells(&status["agents"][0], &[name, word])
        })?;
        scene.wait_for_event("an alert", |event| {
            event["event_type"] == "ALERT"
                && event["agent_id"] == NAMES[0]
                && event["event_data"]["interface"].as_str().is_some_and(|way| way.contains(name))
        })?;
        ip(&agent.namespace, &format!("link del {name}"))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs macvlan and ipvlan, run by cargo xtask vm"]
fn an_interface_on_top_of_the_agents_own_is_no_way_past_us() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let agent = scene.lab.agent(0);
    let cgroup = Cgroup::new("inhabitant")?;
    let to = format!("{}:9", scene.lab.world().v4);
    let inhabitant = cgroup.traffic(Some(&agent.namespace), &["hold", "udp", "--to", &to])?;
    inhabitant.ready()?;
    ip(&agent.namespace, "link add link eth0 name child0 type macvlan mode private")?;
    let add =
        format!("link add link world0 name side0 netns {} type macvlan mode bridge", agent.namespace.path());
    ip(scene.lab.host(), &add)?;
    ip(scene.lab.host(), "link set world0 alias rung")?;
    let status = scene
        .daemon
        .wait_until("the other one is told", LONG, |status| tells(&status["agents"][0], &["side0"]))?;
    assert!(!tells(&status["agents"][0], &["child0"]), "what it carries crosses the agent's own interface");
    Ok(())
}

/// `daemon_cgroups` tests what follows from it, and does without on kernels that refuse; the guests do not.
#[test]
#[ignore = "needs BPF among the security modules, run by cargo xtask vm"]
fn this_kernel_lets_us_deny_packet_sockets() -> Result<()> {
    let scene = CgroupScene::with_agents(1, |config| config)?;
    let status = scene.daemon.status()?;
    assert_eq!(status["daemon"]["packet_sockets"], "denied to agents known by their cgroup");
    Ok(())
}
