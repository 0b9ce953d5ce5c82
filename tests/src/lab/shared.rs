//! Agents behind one interface of the host.
//!
//! ```text
//!   agent 0 [eth0]──[port-0] ┐
//!   agent 1 [eth0]──[port-1] ├ switch (one bridge) [uplink]──[shared0] host
//!   …                        ┘
//! ```

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{Lab, Node, address};
use crate::link::{self, End, Mac, Noise, bridge_batch, ip, ip_batch, mac_text, set_offloads, veth_pairs};
use crate::netns::Namespace;

/// The host's interface that the agents share.
pub const LINK: &str = "shared0";
/// The host's addresses on it.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 1);
/// The host's addresses on it.
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd90, 0, 0, 0, 0, 0, 0, 1);

/// Numbers of links, after those of any lab's agents.
const NUMBERS: u16 = 0x9000;

/// Agents that share an interface of a lab's host. Everybody is quiet and knows everybody's Ethernet address.
#[derive(Debug)]
pub struct Shared {
    host: Namespace,
    switch: Namespace,
    agents: Vec<Node>,
    mtu: u32,
}

impl Shared {
    /// Puts agents behind one interface of the host, up to 15 with addresses from 10.90.0.16 and fd90::10 on.
    pub fn behind(lab: &Lab, agents: usize) -> Result<Self> {
        Self::unplugged(lab, agents, 1500)?.plugged()
    }

    /// The same with packets of 9,000 bytes, as far as the world.
    pub fn jumbo(lab: &Lab, agents: usize) -> Result<Self> {
        let world = lab.world();
        ip(&lab.host, &format!("link set dev {} mtu 9000", world.host_interface))?;
        ip(&world.namespace, &format!("link set dev {} mtu 9000", world.interface))?;
        Self::unplugged(lab, agents, 9000)?.plugged()
    }

    /// The same without the host's interface, until it is [plugged in](Self::plug).
    pub fn unplugged(lab: &Lab, agents: usize, mtu: u32) -> Result<Self> {
        let switch = Namespace::new("switch")?;
        link::prepare(&switch, Noise::Quiet)?;
        for new in ["all", "default"] {
            // A bridge has nothing to say on its own behalf.
            link::set_sysctl(&switch, &format!("net/ipv6/conf/{new}/disable_ipv6"), "1")?;
        }
        let quiet = "arp off multicast off";
        ip_batch(
            &switch,
            &format!(
                "link add name br0 mtu {mtu} type bridge stp_state 0 mcast_snooping 0\nlink set dev br0 {quiet} up\n"
            ),
        )?;
        let nodes = (0..agents).map(|index| node(u16::try_from(index)?)).collect::<Result<Vec<_>>>()?;
        let shared = Self { host: lab.host.clone(), switch, agents: nodes, mtu };
        shared.connect_agents()?;
        Ok(shared)
    }

    fn plugged(self) -> Result<Self> {
        self.plug()?;
        Ok(self)
    }

    /// The agents, in the order of their numbers.
    #[must_use]
    pub fn agents(&self) -> &[Node] {
        &self.agents
    }

    /// Makes the host's interface, with addresses and neighbours.
    pub fn plug(&self) -> Result<()> {
        // A new interface of a router joins the routers' group, and reports that. Forwarding itself is everybody's.
        link::set_sysctl(&self.host, "net/ipv6/conf/default/forwarding", "0")?;
        let host = End {
            namespace: &self.host,
            name: LINK.to_owned(),
            mac: host_mac(),
            addresses: vec![format!("{HOST_V4}/24"), format!("{HOST_V6}/64")],
            noise: Noise::Quiet,
        };
        veth_pairs(&[(host, self.port("uplink".to_owned(), address::mac(NUMBERS, 3)))])?;
        self.join("uplink", host_mac())?;
        self.set_up(&self.host, LINK)?;
        let mut script = String::new();
        for agent in &self.agents {
            for address in [agent.v4.to_string(), agent.v6.to_string()] {
                let mac = mac_text(agent.mac);
                let _ = writeln!(script, "neighbour add {address} lladdr {mac} dev {LINK} nud permanent");
            }
        }
        ip_batch(&self.host, &script)
    }

    /// Deletes the host's interface.
    pub fn unplug(&self) -> Result<()> {
        ip(&self.host, &format!("link delete {LINK}")).map(drop)
    }

    fn connect_agents(&self) -> Result<()> {
        for (index, agent) in self.agents.iter().enumerate() {
            let end = End {
                namespace: &agent.namespace,
                name: agent.interface.clone(),
                mac: agent.mac,
                addresses: vec![format!("{}/24", agent.v4), format!("{}/64", agent.v6)],
                noise: Noise::Quiet,
            };
            let port = format!("port-{index}");
            let mac = address::mac(NUMBERS + 1 + u16::try_from(index)?, 3);
            veth_pairs(&[(end, self.port(port.clone(), mac))])?;
            self.join(&port, agent.mac)?;
            self.set_up(&agent.namespace, &agent.interface)?;
            let mac = mac_text(agent.host_mac);
            ip_batch(
                &agent.namespace,
                &format!(
                    "neighbour add {HOST_V4} lladdr {mac} dev eth0 nud permanent\n\
                     neighbour add {HOST_V6} lladdr {mac} dev eth0 nud permanent\n\
                     route add default via {HOST_V4}\nroute add default via {HOST_V6}\n"
                ),
            )?;
        }
        Ok(())
    }

    fn port(&self, name: String, mac: Mac) -> End<'_> {
        End { namespace: &self.switch, name, mac, addresses: Vec::new(), noise: Noise::Quiet }
    }

    /// Makes an interface a port of the bridge, behind which that Ethernet address is: what it does not know, a bridge
    /// sends to everybody.
    fn join(&self, port: &str, mac: Mac) -> Result<()> {
        self.set_up(&self.switch, port)?;
        ip(&self.switch, &format!("link set dev {port} master br0"))?;
        bridge_batch(&self.switch, &format!("fdb replace {} dev {port} master static\n", mac_text(mac)))
    }

    fn set_up(&self, namespace: &Namespace, interface: &str) -> Result<()> {
        set_offloads(namespace, interface, false)?;
        ip(namespace, &format!("link set dev {interface} mtu {}", self.mtu)).map(drop)
    }
}

fn host_mac() -> Mac {
    address::mac(NUMBERS, 1)
}

fn node(index: u16) -> Result<Node> {
    let namespace = Namespace::new(&format!("shared-{index}"))?;
    link::prepare(&namespace, Noise::Quiet)?;
    let number = 16 + index;
    Ok(Node {
        namespace,
        interface: "eth0".to_owned(),
        host_interface: LINK.to_owned(),
        mac: address::mac(NUMBERS + 1 + index, 2),
        host_mac: host_mac(),
        v4: Ipv4Addr::new(10, 90, 0, u8::try_from(number)?),
        v6: Ipv6Addr::new(0xfd90, 0, 0, 0, 0, 0, 0, number),
        host_v4: HOST_V4,
        host_v6: HOST_V6,
        prefixes: (24, 64),
        noise: Noise::Quiet,
    })
}
