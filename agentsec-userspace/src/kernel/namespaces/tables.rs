//! Routes and neighbours of the calling thread's network namespace, as evidence: what the kernel tells, in words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use crate::kernel::netlink::{Ask, Route, attributes, number};

/// `rtmsg` and `ndmsg` are both so long.
const HEADER_BYTES: usize = 12;

/// Attributes of routes.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
/// Attributes of neighbours.
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Whom it leads to.
    pub destination: IpAddr,
    /// Bits of that which count.
    pub length: u8,
    /// Next hop, if there is one.
    pub gateway: Option<IpAddr>,
    /// Number of the interface.
    pub interface: Option<u32>,
    /// The source address that it prefers.
    pub source: Option<IpAddr>,
    /// Its metric.
    pub priority: Option<u32>,
    /// Its table.
    pub table: u32,
    /// `unicast`, `local`, `blackhole`, …
    pub kind: &'static str,
    /// Number of who made it (`RTPROT_…`).
    pub protocol: u8,
    /// Whether it has several next hops, which are not told apart here.
    pub multipath: bool,
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address.
    pub link_address: Option<Vec<u8>>,
    /// Number of the interface.
    pub interface: u32,
    /// Its states, as `ip neigh` calls them.
    pub state: Vec<&'static str>,
}

/// Hands over every route. False if the tables changed meanwhile, so that some may be missing.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn routes(mut take: impl FnMut(RouteEntry)) -> Result<bool> {
    let mut socket = Route::open()?;
    let told = socket.ask(libc::RTM_GETROUTE, Ask::All, &[0; HEADER_BYTES], |body| {
        read_route(body).into_iter().for_each(&mut take);
    });
    told.context("listing the routes")
}

/// Hands over every neighbour, as [`routes`] does.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn neighbours(mut take: impl FnMut(Neighbour)) -> Result<bool> {
    let mut socket = Route::open()?;
    let told = socket.ask(libc::RTM_GETNEIGH, Ask::All, &[0; HEADER_BYTES], |body| {
        read_neighbour(body).into_iter().for_each(&mut take);
    });
    told.context("listing the neighbours")
}

fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(value).ok().map(|sixteen| Ipv6Addr::from(sixteen).into())
}

/// family, destination's length, source's length, tos, table, protocol, scope, type, flags.
fn read_route(body: &[u8]) -> Option<RouteEntry> {
    let (header, rest) = body.split_at_checked(HEADER_BYTES)?;
    let any: IpAddr = match i32::from(header[0]) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = RouteEntry {
        destination: any,
        length: header[1],
        gateway: None,
        interface: None,
        source: None,
        priority: None,
        table: header[4].into(),
        kind: route_kind(header[7]),
        protocol: header[5],
        multipath: false,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_DST => route.destination = address(value).unwrap_or(any),
            RTA_GATEWAY => route.gateway = address(value),
            RTA_OIF => route.interface = number(value),
            RTA_PREFSRC => route.source = address(value),
            RTA_PRIORITY => route.priority = number(value),
            RTA_TABLE => route.table = number(value).unwrap_or(route.table),
            RTA_MULTIPATH => route.multipath = true,
            _ => {}
        }
    }
    Some(route)
}

fn route_kind(number: u8) -> &'static str {
    match number {
        libc::RTN_UNICAST => "unicast",
        libc::RTN_LOCAL => "local",
        libc::RTN_BROADCAST => "broadcast",
        libc::RTN_ANYCAST => "anycast",
        libc::RTN_MULTICAST => "multicast",
        libc::RTN_BLACKHOLE => "blackhole",
        libc::RTN_UNREACHABLE => "unreachable",
        libc::RTN_PROHIBIT => "prohibit",
        libc::RTN_THROW => "throw",
        libc::RTN_NAT => "nat",
        _ => "other",
    }
}

/// family, padding, interface, state, flags, type.
fn read_neighbour(body: &[u8]) -> Option<Neighbour> {
    let (header, rest) = body.split_at_checked(HEADER_BYTES)?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let mut neighbour = Neighbour {
        address: Ipv4Addr::UNSPECIFIED.into(),
        link_address: None,
        interface: number(&header[4..])?,
        state: neighbour_states(state),
    };
    let mut has_address = false;
    for (kind, value) in attributes(rest) {
        match kind {
            NDA_DST => {
                neighbour.address = address(value)?;
                has_address = true;
            }
            NDA_LLADDR => neighbour.link_address = Some(value.to_vec()),
            _ => {}
        }
    }
    has_address.then_some(neighbour)
}

fn neighbour_states(bits: u16) -> Vec<&'static str> {
    let names = [
        (libc::NUD_INCOMPLETE, "incomplete"),
        (libc::NUD_REACHABLE, "reachable"),
        (libc::NUD_STALE, "stale"),
        (libc::NUD_DELAY, "delay"),
        (libc::NUD_PROBE, "probe"),
        (libc::NUD_FAILED, "failed"),
        (libc::NUD_NOARP, "noarp"),
        (libc::NUD_PERMANENT, "permanent"),
    ];
    names.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopbacks_own_route_is_there() {
        let mut local = Vec::new();
        assert!(routes(|route| local.push(route)).is_ok());
        let own = local.iter().find(|route| route.destination == IpAddr::from([127, 0, 0, 1]));
        assert!(
            own.is_some_and(|route| route.kind == "local"
                && route.length == 32
                && route.interface == Some(1))
        );
        neighbours(drop).unwrap();
    }

    #[test]
    fn what_is_cut_off_or_of_another_family_is_nothing() {
        assert_eq!(read_route(&[2; 11]), None);
        assert_eq!(read_route(&[77; 12]), None);
        assert_eq!(read_neighbour(&[2; 12]), None, "without an address");
        let mut body = vec![0; 12];
        (body[0], body[1], body[7]) = (2, 24, 6);
        body.extend([8, 0, 1, 0, 10, 1, 2, 0, 200, 0, 5]);
        let route = read_route(&body).unwrap();
        assert_eq!((route.destination, route.length, route.kind), ([10, 1, 2, 0].into(), 24, "blackhole"));
    }
}
