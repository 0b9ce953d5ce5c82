//! Pairs of virtual Ethernet interfaces, one or a thousand at a time.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;

use super::ip_batch;
use crate::netns::Namespace;

/// An Ethernet address.
pub type Mac = [u8; 6];

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
            "link add name {} address {} type veth peer name {} address {} netns {}",
            near.name,
            mac_text(near.mac),
            far.name,
            mac_text(far.mac),
            far.namespace.path()
        );
        births.add(near.namespace, &born);
        for end in [near, far] {
            settings.add(end.namespace, &format!("link set dev {} up", end.name));
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
    settings.run()
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
