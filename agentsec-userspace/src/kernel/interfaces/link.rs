//! What the kernel tells of an interface.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::kernel::netlink::{Ask, Route, attribute, attributes, number};

/// A dump that was interrupted is repeated so often.
const MOST_DUMPS: u32 = 4;

/// `ifinfomsg`.
const HEADER_BYTES: usize = 16;

/// A network interface as one namespace knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What drives it, in the kernel's word: `veth`, `bridge`, `macvlan`, `ipvlan`, `vlan`, `tun`; empty for
    /// physical ones and the loopback.
    pub kind: String,
    /// The interface that it sits on or is paired with, by its number in the namespace `peer_netns`.
    pub lower: Option<u32>,
    /// The namespace of `lower` or, for a tunnel, of its outer packets, by this namespace's number for it; none
    /// if it is this one. Negative if the kernel has no number for it.
    pub peer_netns: Option<i32>,
    /// The bridge, bond or VRF that it is a port of.
    pub master: Option<u32>,
    /// The longest layer-3 packet in bytes.
    pub mtu: u32,
    /// Whether it has been set up (whether its other side has is another question).
    pub up: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
}

impl Link {
    /// From an `RTM_NEWLINK` body; none if that is cut off.
    fn read(body: &[u8]) -> Option<Self> {
        let (header, rest) = body.split_at_checked(HEADER_BYTES)?;
        let flags = number(&header[8..])?.cast_signed();
        let mut link = Self {
            ifindex: number(&header[4..])?,
            up: flags & libc::IFF_UP != 0,
            loopback: flags & libc::IFF_LOOPBACK != 0,
            ..Self::default()
        };
        for (kind, value) in attributes(rest) {
            match kind {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_MTU => link.mtu = number(value).unwrap_or_default(),
                // Tunnels that are bound to no interface say 0.
                libc::IFLA_LINK => link.lower = number(value).filter(|lower| *lower != 0),
                libc::IFLA_LINK_NETNSID => link.peer_netns = number(value).map(u32::cast_signed),
                libc::IFLA_MASTER => link.master = number(value).filter(|master| *master != 0),
                libc::IFLA_LINKINFO => link.kind = driver(value),
                _ => {}
            }
        }
        Some(link)
    }
}

/// The interfaces of the calling thread's network namespace, by number. Those that come or go meanwhile may be
/// listed or missing; all others are there, whatever comes and goes.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn links() -> Result<Vec<Link>> {
    links_of(&mut Route::open()?)
}

/// The interfaces of the namespace in which the socket was opened.
pub(in crate::kernel) fn links_of(route: &mut Route) -> Result<Vec<Link>> {
    let mut body = vec![0; HEADER_BYTES];
    // Counters are most of what there is to tell, and nobody here reads them.
    body.extend(attribute(libc::IFLA_EXT_MASK, libc::RTEXT_FILTER_SKIP_STATS.cast_unsigned()));
    repeated(|take| {
        let told = route.ask(libc::RTM_GETLINK, Ask::All, &body, |body| {
            if let Some(link) = Link::read(body) {
                take(link);
            }
        });
        told.context("listing the network interfaces")
    })
}

/// Dumps until a dump was not interrupted. If none is, everything that any of them has told: each may miss
/// something, and what has gone meanwhile is found out by whoever uses it.
fn repeated(mut dump: impl FnMut(&mut dyn FnMut(Link)) -> Result<bool>) -> Result<Vec<Link>> {
    let mut found = BTreeMap::new();
    for _ in 0..MOST_DUMPS {
        let mut now = BTreeMap::new();
        let whole = dump(&mut |link| drop(now.insert(link.ifindex, link)))?;
        if whole {
            return Ok(now.into_values().collect());
        }
        found.append(&mut now);
    }
    Ok(found.into_values().collect())
}

fn driver(info: &[u8]) -> String {
    let kind = attributes(info).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
    kind.map(|(_, value)| text(value)).unwrap_or_default()
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ifindex: u32, name: &str) -> Link {
        Link { ifindex, name: name.to_owned(), ..Link::default() }
    }

    /// Dumps one after the other: what each tells, and whether it was whole.
    fn dumps(script: &[(&[Link], bool)]) -> Vec<Link> {
        let mut script = script.iter();
        repeated(|take| {
            let (links, whole) = script.next().expect("no more dumps than there are");
            links.iter().cloned().for_each(take);
            Ok(*whole)
        })
        .unwrap()
    }

    #[test]
    fn an_interrupted_dump_is_repeated_until_one_is_whole() {
        let (a, b, gone) = (link(1, "a"), link(2, "b"), link(3, "gone"));
        let all = [a.clone(), b.clone()];
        assert_eq!(dumps(&[(&all, true)]), all);
        assert_eq!(dumps(&[(&[a, gone], false), (&all, true)]), all, "only the whole one counts");
    }

    #[test]
    fn nothing_is_lost_when_every_dump_is_interrupted() {
        let (a, b, c) = (link(1, "a"), link(2, "b"), link(3, "c"));
        let renamed = link(1, "renamed");
        let found = dumps(&[
            (&[a, b.clone()], false),
            (std::slice::from_ref(&c), false),
            (&[], false),
            (std::slice::from_ref(&renamed), false),
        ]);
        assert_eq!(found, [renamed, b, c]);
    }

    #[test]
    fn what_is_cut_off_is_no_link_and_what_is_unknown_is_skipped() {
        assert_eq!(Link::read(&[0; HEADER_BYTES - 1]), None);
        let mut body = vec![0; HEADER_BYTES];
        body[4] = 7;
        body.extend(attribute(60_000, 1));
        body.extend(attribute(libc::IFLA_MTU, 1400));
        body.extend(attribute(libc::IFLA_LINK, 0));
        body.extend([200, 0, 3]);
        assert_eq!(Link::read(&body), Some(Link { mtu: 1400, ..link(7, "") }));
    }

    #[test]
    fn the_loopback_is_there() {
        let links = links().unwrap();
        let loopback = links.iter().find(|link| link.loopback).expect("every namespace has one");
        assert_eq!((loopback.ifindex, loopback.name.as_str(), loopback.kind.as_str()), (1, "lo", ""));
        let names: BTreeMap<_, _> = links.into_iter().map(|link| (link.ifindex, link.name)).collect();
        let expected = nix::net::if_::if_nameindex().unwrap();
        for interface in &expected {
            assert_eq!(names[&interface.index()], interface.name().to_string_lossy());
        }
    }
}
