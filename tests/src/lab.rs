//! A small network with a host, its agents and a world, complete in one call.
//!
//! ```text
//!   agent 0 [eth0]──[agent-0] ┐
//!   agent 1 [eth0]──[agent-1] ├ host (the daemon runs here) [world0]──[eth0] world
//!   …                         ┘
//! ```
//!
//! The host routes between its agents and the world, or has them all in one bridge. The world also owns
//! [`Lab::crowd_v4`]: thousands of addresses behind one interface that all answer, for sweeps.

mod address;
mod plan;
pub mod shared;
mod wire;

pub use plan::{Plan, Topology};

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;

use crate::link::{self, Counters, Mac, Noise};
use crate::netns::Namespace;

/// One place on the lab's network and the host's side of its link.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its interface in its own namespace.
    pub interface: String,
    /// The other end, in the host's namespace: where an agent is attached.
    pub host_interface: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The Ethernet address of `host_interface`.
    pub host_mac: Mac,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// The host's IPv4 address as this node sees it.
    pub host_v4: Ipv4Addr,
    /// The host's IPv6 address as this node sees it.
    pub host_v6: Ipv6Addr,
    prefixes: (u8, u8),
    noise: Noise,
}

impl Node {
    /// The counters of its own interface: what crossed the link, told by the side where AgentSec is not.
    pub fn counters(&self) -> Result<Counters> {
        link::counters(&self.namespace, &self.interface)
    }
}

/// The network; everything in it dies when it is dropped.
#[derive(Debug)]
pub struct Lab {
    host: Namespace,
    agents: Vec<Node>,
    world: Node,
}

impl Lab {
    /// A routed lab with `agents` agents: [`Plan::new`] with nothing changed.
    pub fn routed(agents: usize) -> Result<Self> {
        Plan::new(agents).build()
    }

    /// A lab whose agents and world share one bridge (`br0` in the host), so that neighbours talk directly.
    pub fn bridged(agents: usize) -> Result<Self> {
        Plan::new(agents).topology(Topology::Bridged).build()
    }

    /// `agents` agent links (`agent-<i>` in the host) that all end in one namespace, as `peer-<i>`: for scale.
    ///
    /// Send from one of them with a packet socket: by routing, the namespace has a thousand equal ways out.
    pub fn many(agents: usize) -> Result<Self> {
        Plan::new(agents).topology(Topology::Many).build()
    }

    /// Where the daemon runs. It has the near ends of all links and nothing of the machine's network.
    #[must_use]
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// The agents, in the order of their numbers.
    #[must_use]
    pub fn agents(&self) -> &[Node] {
        &self.agents
    }

    /// One agent.
    ///
    /// # Panics
    /// When the lab has not that many.
    #[must_use]
    pub fn agent(&self, index: usize) -> &Node {
        &self.agents[index]
    }

    /// Whom the agents talk to.
    #[must_use]
    pub fn world(&self) -> &Node {
        &self.world
    }

    /// The `index`-th of 65,536 IPv4 addresses that all are the world's. Not in a bridged lab.
    #[must_use]
    pub fn crowd_v4(&self, index: u16) -> Ipv4Addr {
        address::crowd_v4(index)
    }

    /// The `index`-th of many IPv6 addresses that all are the world's. Not in a bridged lab.
    #[must_use]
    pub fn crowd_v6(&self, index: u16) -> Ipv6Addr {
        address::crowd_v6(index)
    }

    /// Waits until the links are idle. A quiet lab (the default) is idle from the start.
    pub fn settle(&self) -> Result<()> {
        link::settle(&[&self.host, &self.world.namespace], Duration::from_millis(40))
    }

    /// Leaves the names of the namespaces in place after this process ends (for a lab made with
    /// [`Plan::named`]); remove them with `ip netns delete`.
    pub fn keep(self) {
        self.host.keep();
        self.world.namespace.keep();
        self.agents.into_iter().for_each(|agent| agent.namespace.keep());
    }
}
