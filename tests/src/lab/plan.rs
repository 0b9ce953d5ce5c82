//! What a lab shall be like, and making it so.

use anyhow::{Result, ensure};

use super::{Lab, Node, address, wire};
use crate::link::{self, Noise};
use crate::netns::Namespace;

/// How the host connects its agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// A subnet for each agent, and the host forwards.
    Routed,
    /// One subnet, one bridge.
    Bridged,
    /// Routed, and all agents' ends are in one namespace.
    Many,
}

/// A lab before it is built. Quiet and without super-packets unless told otherwise, so that counts are exact.
#[derive(Clone, Debug)]
pub struct Plan {
    agents: usize,
    topology: Topology,
    noise: Noise,
    offloads: bool,
    named: bool,
}

impl Plan {
    /// A routed lab with `agents` agents.
    #[must_use]
    pub fn new(agents: usize) -> Self {
        Self { agents, topology: Topology::Routed, noise: Noise::Quiet, offloads: false, named: false }
    }

    /// Connects the agents in this way.
    #[must_use]
    pub fn topology(self, topology: Topology) -> Self {
        Self { topology, ..self }
    }

    /// Lets the kernel say this much on its own. [`Noise::Usual`] also means real ARP and neighbour discovery;
    /// a quiet lab knows all neighbours from the start.
    #[must_use]
    pub fn noise(self, noise: Noise) -> Self {
        Self { noise, ..self }
    }

    /// Keeps TSO, GSO and GRO as they are on any machine: for throughput, and for tests of super-packets.
    #[must_use]
    pub fn offloads(self, on: bool) -> Self {
        Self { offloads: on, ..self }
    }

    /// Gives the namespaces names for `ip netns exec`.
    #[must_use]
    pub fn named(self, named: bool) -> Self {
        Self { named, ..self }
    }

    /// Builds it.
    pub fn build(self) -> Result<Lab> {
        let most = if self.topology == Topology::Many { 16_000 } else { 250 };
        ensure!(self.agents <= most, "a {:?} lab has at most {most} agents", self.topology);
        let lab = self.place()?;
        wire::connect(&lab, self.topology)?;
        let nodes = || lab.agents.iter().chain([&lab.world]);
        if !self.offloads && self.topology != Topology::Many {
            for node in nodes() {
                link::set_offloads(&lab.host, &node.host_interface, false)?;
                link::set_offloads(&node.namespace, &node.interface, false)?;
            }
        }
        match self.topology {
            Topology::Bridged => wire::bridge(&lab)?,
            Topology::Routed | Topology::Many => wire::route(&lab, self.topology)?,
        }
        if self.noise == Noise::Quiet {
            wire::introduce(&lab, self.topology)?;
        }
        Ok(lab)
    }

    fn namespace(&self, role: &str) -> Result<Namespace> {
        let namespace = if self.named { Namespace::named(role) } else { Namespace::new(role) }?;
        link::prepare(&namespace, self.noise)?;
        Ok(namespace)
    }

    /// Makes the namespaces and says who is where.
    fn place(&self) -> Result<Lab> {
        let many = self.topology == Topology::Many;
        let shared = if many { Some(self.namespace("peers")?) } else { None };
        let mut agents = Vec::with_capacity(self.agents);
        for index in 0..self.agents {
            let namespace = match &shared {
                Some(namespace) => namespace.clone(),
                None => self.namespace(&format!("agent-{index}"))?,
            };
            let interface = if many { format!("peer-{index}") } else { "eth0".to_owned() };
            let number = u16::try_from(index)?;
            let addresses = address::agent(self.topology, number);
            agents.push(node(namespace, interface, format!("agent-{index}"), number, &addresses, self.noise));
        }
        let world = self.namespace("world")?;
        let addresses = address::world(self.topology);
        let world =
            node(world, "eth0".to_owned(), "world0".to_owned(), address::WORLD, &addresses, self.noise);
        Ok(Lab { host: self.namespace("host")?, agents, world })
    }
}

fn node(
    namespace: Namespace,
    interface: String,
    host_interface: String,
    link: u16,
    addresses: &address::Addresses,
    noise: Noise,
) -> Node {
    Node {
        namespace,
        interface,
        host_interface,
        mac: address::mac(link, 2),
        host_mac: address::mac(link, 1),
        v4: addresses.v4,
        v6: addresses.v6,
        host_v4: addresses.host_v4,
        host_v6: addresses.host_v6,
        prefixes: (addresses.v4_prefix, addresses.v6_prefix),
        noise,
    }
}
