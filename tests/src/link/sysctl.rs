//! Network sysctls of one namespace.

use std::fs;

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// How much the kernel may say on its own behalf on new interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// What any machine says, except that addresses are usable at once (no duplicate address detection).
    Usual,
    /// Nothing: no link-local address, no router solicitations, no multicast groups (and so no reports of them), no ARP
    /// and no neighbour discovery, asked or answered. Byte counts are exact, and every neighbour must be told.
    Quiet,
}

/// Writes a sysctl such as `net/ipv4/ip_forward` in `namespace`.
pub fn set_sysctl(namespace: &Namespace, name: &str, value: &str) -> Result<()> {
    // The kernel answers for the namespace of the thread that asks.
    namespace
        .run(|| fs::write(format!("/proc/sys/{name}"), value))
        .with_context(|| format!("setting {name} to {value} in {}", namespace.name()))
}

/// Readies a fresh namespace for interfaces: the defaults set here are inherited by those made later.
pub fn prepare(namespace: &Namespace, noise: Noise) -> Result<()> {
    let mut settings = vec![("accept_dad", "0"), ("dad_transmits", "0"), ("accept_ra", "0")];
    if noise == Noise::Quiet {
        settings.extend([("router_solicitations", "0"), ("addr_gen_mode", "1")]);
    }
    for (name, value) in settings {
        set_sysctl(namespace, &format!("net/ipv6/conf/default/{name}"), value)?;
    }
    // A closed connection whose peer does not answer holds its namespace until the kernel gives up on it.
    set_sysctl(namespace, "net/ipv4/tcp_orphan_retries", "1")?;
    super::ip(namespace, "link set lo up")?;
    Ok(())
}
