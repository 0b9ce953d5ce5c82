//! Who has which address.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Topology;
use crate::link::Mac;

/// The number of the world's link, and of the bridge: after all agents'.
pub(super) const WORLD: u16 = u16::MAX;
pub(super) const BRIDGE: u16 = u16::MAX - 1;

/// Both sides of one link.
pub(super) struct Addresses {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
    pub(super) host_v4: Ipv4Addr,
    pub(super) host_v6: Ipv6Addr,
    pub(super) v4_prefix: u8,
    pub(super) v6_prefix: u8,
}

/// The addresses of agent `index`: routed 10.77.i.2 (host .1), bridged 10.79.1.0 + i, many a /30 each.
pub(super) fn agent(topology: Topology, index: u16) -> Addresses {
    let [high, low] = index.to_be_bytes();
    match topology {
        Topology::Routed => Addresses {
            v4: Ipv4Addr::new(10, 77, low, 2),
            v6: Ipv6Addr::new(0xfd77, index, 0, 0, 0, 0, 0, 2),
            host_v4: Ipv4Addr::new(10, 77, low, 1),
            host_v6: Ipv6Addr::new(0xfd77, index, 0, 0, 0, 0, 0, 1),
            v4_prefix: 24,
            v6_prefix: 64,
        },
        Topology::Bridged => bridged(Ipv4Addr::new(10, 79, 1 + high, low), 0x100 + index),
        Topology::Many => {
            let first = u32::from(Ipv4Addr::new(10, 64, 0, 0)) + 4 * u32::from(index);
            Addresses {
                v4: Ipv4Addr::from(first + 2),
                v6: Ipv6Addr::new(0xfd64, index, 0, 0, 0, 0, 0, 2),
                host_v4: Ipv4Addr::from(first + 1),
                host_v6: Ipv6Addr::new(0xfd64, index, 0, 0, 0, 0, 0, 1),
                v4_prefix: 30,
                v6_prefix: 64,
            }
        }
    }
}

/// The addresses of the world.
pub(super) fn world(topology: Topology) -> Addresses {
    match topology {
        Topology::Bridged => bridged(Ipv4Addr::new(10, 79, 0, 2), 2),
        Topology::Routed | Topology::Many => Addresses {
            v4: Ipv4Addr::new(10, 78, 0, 2),
            v6: Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2),
            host_v4: Ipv4Addr::new(10, 78, 0, 1),
            host_v6: Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1),
            v4_prefix: 24,
            v6_prefix: 64,
        },
    }
}

fn bridged(v4: Ipv4Addr, v6_last: u16) -> Addresses {
    Addresses {
        v4,
        v6: Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, v6_last),
        host_v4: Ipv4Addr::new(10, 79, 0, 1),
        host_v6: Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 1),
        v4_prefix: 16,
        v6_prefix: 64,
    }
}

pub(super) fn crowd_v4(index: u16) -> Ipv4Addr {
    let [high, low] = index.to_be_bytes();
    Ipv4Addr::new(10, 80, high, low)
}

pub(super) fn crowd_v6(index: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd80, 0, 0, 0, 0, 0, 0, index)
}

/// A locally administered address for link `index`; `side` 1 is the host's, 2 the other's.
pub(super) fn mac(index: u16, side: u8) -> Mac {
    let [high, low] = index.to_be_bytes();
    [0x02, 0xa5, 0x00, high, low, side]
}
