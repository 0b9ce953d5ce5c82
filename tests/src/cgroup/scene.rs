//! A daemon whose agents are processes, and what most tests ask of the two.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Cgroup, Member};
use crate::daemon::{Config, Daemon};
use crate::lab::Lab;
use crate::scene::{self, LONG, NAMES};
use crate::traffic::udp::UdpReceiver;
use crate::wait;

/// What a datagram of [`CgroupScene::shoot`] counts: IPv4 and UDP headers, and 100 bytes. A cgroup's programs see no
/// link layer.
pub const DATAGRAM: u64 = 20 + 8 + 100;

/// A daemon that looks for agents inside one cgroup only, in the host's namespace of a lab without other agents. What
/// lies there goes in this order: the daemon first.
#[derive(Debug)]
pub struct CgroupScene {
    /// The daemon.
    pub daemon: Daemon,
    /// The lab that it runs in.
    pub lab: Lab,
    /// The cgroups of agents that were there from the start.
    pub agents: Vec<Cgroup>,
    /// `daemon.cgroup_root`.
    pub root: Cgroup,
    sink: UdpReceiver,
}

/// [`scene::config`] without agents, for a daemon that looks inside `root`.
#[must_use]
pub fn config(root: &Cgroup) -> Config {
    scene::config(0).set("daemon.cgroup_root", root.path())
}

/// A cgroup for a daemon to look into.
pub fn root() -> Result<Cgroup> {
    Cgroup::new("agents")
}

impl CgroupScene {
    /// A daemon with this configuration, for which nothing has been made inside `root`.
    pub fn start(root: Cgroup, config: &Config) -> Result<Self> {
        let lab = Lab::routed(0)?;
        let sink = UdpReceiver::start(lab.host(), (Ipv4Addr::LOCALHOST, 0), 3 * LONG)?;
        let daemon = Daemon::start(lab.host(), config)?;
        Ok(Self { daemon, lab, agents: Vec::new(), root, sink })
    }

    /// A daemon with [`NAMES`] in a cgroup each, which has the agent's name, and what `change` makes of its
    /// configuration.
    pub fn with_agents(agents: usize, change: impl FnOnce(Config) -> Config) -> Result<Self> {
        let root = root()?;
        let cgroups: Vec<_> = NAMES[..agents].iter().map(|name| root.child(name)).collect::<Result<_>>()?;
        let known =
            |config: Config, (name, cgroup): (&&str, &Cgroup)| config.agent_by(name, "cgroup", cgroup.path());
        let config = change(NAMES.iter().zip(&cgroups).fold(config(&root), known));
        Ok(Self { agents: cgroups, ..Self::start(root, &config)? })
    }

    /// The status of the agent in `agents[index]`.
    pub fn agent(&self, index: usize) -> Result<Value> {
        self.daemon.agent(NAMES[index])
    }

    /// Starts `agentsec-lab traffic ARGUMENTS` in a cgroup, in the host's namespace.
    pub fn traffic(&self, cgroup: &Cgroup, arguments: &[&str]) -> Result<Member> {
        cgroup.traffic(Some(self.lab.host()), arguments)
    }

    /// The host's own receiver, which is in no agent's cgroup: it takes whatever comes.
    #[must_use]
    pub fn sink(&self) -> &UdpReceiver {
        &self.sink
    }

    /// Waits until so many datagrams have arrived at the sink, and returns how many have: what is counted more should
    /// not have passed.
    pub fn arrived(&self, datagrams: u64) -> Result<u64> {
        wait::until("what was sent", LONG, || {
            Some(self.sink.datagrams()).filter(|arrived| *arrived >= datagrams)
        })
    }

    /// Sends datagrams of [`DATAGRAM`] bytes from a cgroup to the [sink](Self::sink): what was sent and what was refused.
    pub fn shoot(&self, cgroup: &Cgroup, datagrams: u64) -> Result<Shot> {
        let (to, datagrams) = (self.sink.address().to_string(), datagrams.to_string());
        let report =
            self.traffic(cgroup, &["udp-client", "--to", &to, "--datagrams", &datagrams])?.report()?;
        Shot::of(&report)
    }

    /// Waits until an agent's only attachment has this status, and returns the agent.
    pub fn wait_attached(&self, id: &str, status: &str) -> Result<Value> {
        let agent_of = |all: &Value| -> Option<Value> {
            let found = all["agents"].as_array()?.iter().find(|agent| agent["id"] == id)?;
            (found["attachments"][0]["status"] == status).then(|| found.clone())
        };
        let what = format!("{id} is {status}");
        let all = self.daemon.wait_until(&what, LONG, |all| agent_of(all).is_some())?;
        agent_of(&all).context("it was there")
    }
}

/// What came of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shot {
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Datagrams that the sender was told it may not send.
    pub refused: u64,
}

impl Shot {
    /// From what a sender of its own process reports.
    ///
    /// # Errors
    /// When sending has failed for another reason.
    pub fn of(report: &Value) -> Result<Self> {
        let error = report["error"].as_str().unwrap_or_default();
        anyhow::ensure!(error.is_empty() || error.contains("not permitted"), "{report}");
        let count = |key: &str| report[key].as_u64().with_context(|| format!("no {key} in {report}"));
        Ok(Self { sent: count("sent")?, refused: count("errors")? })
    }
}
