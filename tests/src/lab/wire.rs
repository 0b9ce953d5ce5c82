//! Links, routes and neighbours of a lab.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Result;

use super::{Lab, Node, Topology, address};
use crate::link::{End, Noise, bridge_batch, ip_batch, mac_text, set_sysctl, veth_pairs, wait_active};

/// One veth for each node, with addresses on both sides (in a bridged lab the bridge has the host's).
pub(super) fn connect(lab: &Lab, topology: Topology) -> Result<()> {
    let pair = |node| (near_end(lab, node, topology), far_end(node));
    let pairs: Vec<_> = nodes(lab).map(pair).collect();
    veth_pairs(&pairs)
}

fn near_end<'a>(lab: &'a Lab, node: &'a Node, topology: Topology) -> End<'a> {
    let (v4, v6) = node.prefixes;
    let addresses = match topology {
        Topology::Bridged => Vec::new(),
        Topology::Routed | Topology::Many => {
            vec![format!("{}/{v4}", node.host_v4), format!("{}/{v6}", node.host_v6)]
        }
    };
    End {
        namespace: &lab.host,
        name: node.host_interface.clone(),
        mac: node.host_mac,
        addresses,
        noise: node.noise,
    }
}

fn far_end(node: &Node) -> End<'_> {
    let (v4, v6) = node.prefixes;
    let addresses = vec![format!("{}/{v4}", node.v4), format!("{}/{v6}", node.v6)];
    End {
        namespace: &node.namespace,
        name: node.interface.clone(),
        mac: node.mac,
        addresses,
        noise: node.noise,
    }
}

/// The host forwards, everybody's way out is the host, and the world answers for the crowd.
pub(super) fn route(lab: &Lab, topology: Topology) -> Result<()> {
    set_sysctl(&lab.host, "net/ipv4/ip_forward", "1")?;
    set_sysctl(&lab.host, "net/ipv6/conf/all/forwarding", "1")?;
    let (crowd_v4, crowd_v6) = (address::crowd_v4(0), address::crowd_v6(0));
    let to_crowd = format!(
        "route add {crowd_v4}/16 via {}\nroute add {crowd_v6}/64 via {}\n",
        lab.world.v4, lab.world.v6
    );
    ip_batch(&lab.host, &to_crowd)?;
    let crowd = format!("route add local {crowd_v4}/16 dev lo\nroute add local {crowd_v6}/64 dev lo\n");
    ip_batch(&lab.world.namespace, &crowd)?;
    // Of a thousand default routes in one namespace only the first would ever be used.
    let agents = if topology == Topology::Many { &[] } else { lab.agents.as_slice() };
    for node in agents.iter().chain([&lab.world]) {
        let out = format!("route add default via {}\nroute add default via {}\n", node.host_v4, node.host_v6);
        ip_batch(&node.namespace, &out)?;
    }
    Ok(())
}

/// Puts the near ends into one bridge that has the host's addresses.
pub(super) fn bridge(lab: &Lab) -> Result<()> {
    let (v4, v6) = lab.world.prefixes;
    let mac = mac_text(address::mac(address::BRIDGE, 1));
    let flags = if lab.world.noise == Noise::Quiet { " arp off multicast off" } else { "" };
    let mut script = format!(
        "link add name br0 address {mac} type bridge stp_state 0 mcast_snooping 0\n\
         link set dev br0{flags} up\n\
         address add {}/{v4} dev br0\naddress add {}/{v6} dev br0 nodad\n",
        lab.world.host_v4, lab.world.host_v6
    );
    for node in nodes(lab) {
        let _ = writeln!(script, "link set dev {} master br0", node.host_interface);
    }
    ip_batch(&lab.host, &script)?;
    wait_active(&lab.host, &BTreeSet::from(["br0"]))
}

/// Tells everybody everybody's Ethernet address, so that nobody has to ask on the link.
pub(super) fn introduce(lab: &Lab, topology: Topology) -> Result<()> {
    if topology == Topology::Bridged {
        return introduce_bridged(lab);
    }
    let mut host = String::new();
    for node in nodes(lab) {
        host += &acquaint(node, &node.host_interface);
    }
    ip_batch(&lab.host, &host)?;
    // One script for each namespace, which all agents of a large lab share.
    let mut script = String::new();
    for (index, node) in lab.agents.iter().enumerate() {
        script += &acquaint_with_host(node, &mac_text(node.host_mac));
        let next = lab.agents.get(index + 1);
        if next.is_none_or(|next| next.namespace.name() != node.namespace.name()) {
            ip_batch(&node.namespace, &std::mem::take(&mut script))?;
        }
    }
    ip_batch(&lab.world.namespace, &acquaint_with_host(&lab.world, &mac_text(lab.world.host_mac)))
}

fn introduce_bridged(lab: &Lab) -> Result<()> {
    let bridge = mac_text(address::mac(address::BRIDGE, 1));
    let (mut host, mut ports) = (String::new(), String::new());
    for node in nodes(lab) {
        host += &acquaint(node, "br0");
        // A bridge that does not know an address yet sends the frame to everybody.
        let _ =
            writeln!(ports, "fdb replace {} dev {} master static", mac_text(node.mac), node.host_interface);
        let mut script = acquaint_with_host(node, &bridge);
        for other in nodes(lab).filter(|other| other.mac != node.mac) {
            script += &acquaint(other, &node.interface);
        }
        ip_batch(&node.namespace, &script)?;
    }
    ip_batch(&lab.host, &host)?;
    bridge_batch(&lab.host, &ports)
}

/// Where `node` is, for somebody who reaches it through `interface`.
fn acquaint(node: &Node, interface: &str) -> String {
    let mac = mac_text(node.mac);
    neighbours(&[node.v4.to_string(), node.v6.to_string()], &mac, interface)
}

fn acquaint_with_host(node: &Node, mac: &str) -> String {
    neighbours(&[node.host_v4.to_string(), node.host_v6.to_string()], mac, &node.interface)
}

fn neighbours(addresses: &[String], mac: &str, interface: &str) -> String {
    let line = |address| format!("neighbour add {address} lladdr {mac} dev {interface} nud permanent\n");
    addresses.iter().map(line).collect()
}

fn nodes(lab: &Lab) -> impl Iterator<Item = &Node> {
    lab.agents.iter().chain([&lab.world])
}
