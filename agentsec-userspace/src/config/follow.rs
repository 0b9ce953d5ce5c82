//! What is followed of an agent's connections, and what a failed authentication counts.

use super::section::{Section, text};
use super::typical;
use agentsec_common::auth::{ALL_AUTH_KINDS, AUTH_ROOM, default_weights_centi};
use agentsec_common::profile::{PortRange, READ_PORTS};

/// Connections as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Whether connections are followed at all.
    pub flows: bool,
    /// Remote ports whose connections' payload is looked at.
    pub read_ports: [PortRange; READ_PORTS],
    /// Most connections that are followed per agent.
    pub max_flows: u32,
    /// Hundredths of a failed authentication that one is, by kind.
    pub auth_weights_centi: [u16; AUTH_ROOM],
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            flows: true,
            read_ports: only(PortRange::ANY),
            max_flows: 4096,
            auth_weights_centi: default_weights_centi(),
        }
    }
}

const fn only(range: PortRange) -> [PortRange; READ_PORTS] {
    let mut ranges = [PortRange::NONE; READ_PORTS];
    ranges[0] = range;
    ranges
}

/// Reads the keys of a profile that are about connections.
pub(super) fn read(section: &Section<'_>) -> Follow {
    let default = Follow::default();
    Follow {
        flows: section.boolean("follow_flows").unwrap_or(default.flows),
        read_ports: read_ports(section).unwrap_or(default.read_ports),
        max_flows: section.integer("max_flows", 1..=1 << 24).unwrap_or(default.max_flows),
        auth_weights_centi: read_auth_weights(section.section("auth_weights")),
    }
}

fn read_ports(section: &Section<'_>) -> Option<[PortRange; READ_PORTS]> {
    let allowed = format!(
        "\"any\", \"none\", or up to {READ_PORTS} ports and ranges from 0 to 65535 such as \"80,443,8000-8100\""
    );
    section.parsed("read_ports", &allowed, |value| match text(value)? {
        "any" => Ok(only(PortRange::ANY)),
        "none" => Ok(only(PortRange::NONE)),
        listed => ranges(listed),
    })
}

fn ranges(listed: &str) -> Result<[PortRange; READ_PORTS], String> {
    let mut ranges = [PortRange::NONE; READ_PORTS];
    let found: Vec<&str> = listed.split(',').collect();
    if found.len() > READ_PORTS {
        return Err(format!("has {} ranges", found.len()));
    }
    for (range, item) in ranges.iter_mut().zip(found) {
        let parsed = typical::range(item.trim());
        let (from, to) = parsed.ok_or_else(|| format!("{item:?} is no range of ports"))?;
        *range = PortRange { from, to };
    }
    Ok(ranges)
}

fn read_auth_weights(section: Section<'_>) -> [u16; AUTH_ROOM] {
    let mut weights = default_weights_centi();
    for kind in ALL_AUTH_KINDS {
        if let Some(centi) = section.centi(kind.name(), 0..=10_000) {
            weights[kind as usize] = centi;
        }
    }
    section.finish();
    weights
}
