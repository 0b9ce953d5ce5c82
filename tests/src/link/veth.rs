//! Pairs of virtual Ethernet interfaces, one or a thousand at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::{Noise, ip, ip_batch};
use crate::netns::Namespace;
use crate::wait;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Index numbers of far ends. Where both ends happen to have the same number, each in its namespace, the kernel
/// takes the pair for one interface whose carrier can wait, up to a second.
static FAR_INDEX: AtomicU32 = AtomicU32::new(1_000_000);

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub struct End<'a> {
    /// Where it lives.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses with prefix lengths, IPv4 and IPv6.
    pub addresses: Vec<String>,
    /// What the kernel may say through it.
    pub noise: Noise,
}

/// `02:00:…`, as `ip` wants it.
#[must_use]
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Makes the pairs with their addresses and brings both ends up.
///
/// Both ends are born where they belong: moving an interface afterwards would cost an RCU grace period each.
/// It takes one `ip` process for each namespace that owns a first end, and one for each namespace involved.
pub fn veth_pairs(pairs: &[(End<'_>, End<'_>)]) -> Result<()> {
    let mut births = Scripts::default();
    let mut settings = Scripts::default();
    for (near, far) in pairs {
        let born = format!(
            "link add name {} address {} type veth peer name {} index {} address {} netns {}",
            near.name,
            mac_text(near.mac),
            far.name,
            FAR_INDEX.fetch_add(1, Ordering::Relaxed),
            mac_text(far.mac),
            far.namespace.path()
        );
        births.add(near.namespace, &born);
        for end in [near, far] {
            // Without these flags the kernel joins no multicast groups, which it would report, and never asks.
            let flags = if end.noise == Noise::Quiet { " arp off multicast off" } else { "" };
            settings.add(end.namespace, &format!("link set dev {}{flags} up", end.name));
        }
    }
    for end in pairs.iter().flat_map(|(near, far)| [near, far]) {
        for address in &end.addresses {
            // Only IPv6 knows duplicate address detection, and an address is tentative without this.
            let nodad = if address.contains(':') { " nodad" } else { "" };
            settings.add(end.namespace, &format!("address add {address} dev {}{nodad}", end.name));
        }
    }
    births.run()?;
    settings.run()?;
    let mut made = BTreeMap::<_, (_, BTreeSet<&str>)>::new();
    for end in pairs.iter().flat_map(|(near, far)| [near, far]) {
        let entry = made.entry(end.namespace.name()).or_insert_with(|| (end.namespace, BTreeSet::new()));
        entry.1.insert(&end.name);
    }
    made.values().try_for_each(|(namespace, interfaces)| wait_active(namespace, interfaces))
}

/// Waits until these interfaces really send.
///
/// The first end that comes up has no carrier yet, and the kernel throws away what it is given until it has noticed, in
/// the background, that the other end is up too.
pub fn wait_active(namespace: &Namespace, interfaces: &BTreeSet<&str>) -> Result<()> {
    wait::until("interfaces to become active", Duration::from_secs(30), || {
        let links = ip(namespace, "-oneline link show up").ok()?;
        let active = links.lines().filter(|line| line.contains(" state UP ")).filter_map(name_of_link);
        (active.filter(|name| interfaces.contains(name)).count() == interfaces.len()).then_some(())
    })
}

/// `eth0` from `2: eth0@if7: <…`.
fn name_of_link(line: &str) -> Option<&str> {
    line.split_whitespace().nth(1)?.split(['@', ':']).next()
}

/// `ip -batch` scripts, one for each namespace.
#[derive(Default)]
struct Scripts<'a>(BTreeMap<String, (Option<&'a Namespace>, String)>);

impl<'a> Scripts<'a> {
    fn add(&mut self, namespace: &'a Namespace, line: &str) {
        let (owner, script) = self.0.entry(namespace.name().to_owned()).or_default();
        *owner = Some(namespace);
        // Writing to a string cannot fail.
        let _ = writeln!(script, "{line}");
    }

    fn run(&self) -> Result<()> {
        for (namespace, script) in self.0.values() {
            if let Some(namespace) = namespace {
                ip_batch(namespace, script)?;
            }
        }
        Ok(())
    }
}
