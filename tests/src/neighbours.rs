//! A daemon whose agents share a link, and what most tests ask of them.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::daemon::{Config, Daemon};
use crate::lab::shared::{LINK, Shared};
use crate::lab::{Lab, Node};
use crate::scene::{self, LONG, NAMES, Scene, number, shoot};
use crate::traffic::udp::UdpReceiver;
use crate::wait;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Bytes of the frames that [`shoot`] sends over IPv4.
pub const FRAME: u64 = 14 + 20 + 8 + 100;

/// [`NAMES`] with the addresses of the first nodes behind the shared link.
///
/// # Panics
/// When there are not that many names.
#[must_use]
pub fn config(shared: &Shared, agents: usize) -> Config {
    let known = |config: Config, (name, node): (&&str, &Node)| {
        let addresses = vec![node.v4.to_string(), node.v6.to_string()];
        config.agent_by(name, "address", addresses).of_agent("link", LINK)
    };
    NAMES[..agents].iter().zip(shared.agents()).fold(scene::config(0), known)
}

/// `config` with `datapath` for each of the first agents.
///
/// # Panics
/// When there are not that many names.
#[must_use]
pub fn by(mut config: Config, agents: usize, datapath: &str) -> Config {
    for name in &NAMES[..agents] {
        config = config.set(&format!("agents.{name}.datapath"), datapath);
    }
    config
}

/// A daemon, and the nodes behind its link; the first of them are agents.
pub fn scene_with(
    agents: usize,
    nodes: usize,
    change: impl FnOnce(Config) -> Config,
) -> Result<(Scene, Shared)> {
    let lab = Lab::routed(0)?;
    let shared = Shared::behind(&lab, nodes)?;
    let config = change(config(&shared, agents));
    Ok((Scene::around(lab, &config)?, shared))
}

/// Opens an agent's circuit.
pub fn quarantine(scene: &Scene, agent: &str) -> Result<()> {
    scene.daemon.cli_ok(&["quarantine", agent, "--reason", "test"]).map(drop)
}

/// Waits until all attachments of an agent have this status.
pub fn wait_attached(daemon: &Daemon, id: &str, status: &str) -> Result<Value> {
    let attachments = |all: &Value| -> Option<Value> {
        let agent = all["agents"].as_array()?.iter().find(|agent| agent["id"] == id)?;
        let attachments = agent["attachments"].as_array()?;
        attachments.iter().all(|one| one["status"] == status).then(|| agent["attachments"].clone())
    };
    let all = daemon.wait_until(&format!("{id} is {status}"), LONG, |all| attachments(all).is_some())?;
    attachments(&all).context("it was there")
}

/// How many of so many datagrams from a node arrive at a fresh receiver in the world.
pub fn arriving(scene: &Scene, from: &Node, datagrams: u64, least: u64) -> Result<u64> {
    let receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    shoot(from, scene.world(receiver.address().port()), datagrams)?;
    wait::until("what shall arrive", LONG, || (receiver.datagrams() >= least).then_some(()))?;
    if least < datagrams {
        // Whatever else were to arrive has arrived then.
        scene.lab.settle()?;
    }
    Ok(receiver.stop().datagrams)
}

/// Packets of an agent that were dropped, `outbound` or `inbound`.
///
/// # Panics
/// When it is no agent's status.
#[must_use]
pub fn dropped(agent: &Value, way: &str) -> u64 {
    number(&agent[way]["dropped_packets"])
}
