//! The frames of the verdict table: one of every kind that a wire carries, good, odd and broken, each way.

use std::net::{Ipv4Addr, Ipv6Addr};

use agentsec::config::TypicalRule;
use agentsec_common::agent::Direction::{self, Inbound, Outbound};
use agentsec_common::packet::Class::{self, Arp, Fragment, Ipv4, Ipv6, Malformed, Other};
use agentsec_common::packet::protocol;
use agentsec_common::policy::State;
use agentsec_common::typical::{ACCEPTED, OPENED, PortRule};

use super::frames::{AGENT4, Flow, flags, packet, path, with};
use super::profiles::rule;
use crate::traffic::frames::{IPV4, IPV6, QINQ, VLAN, ipv4, tagged};

/// What becomes of a frame while its agent is on probation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It passes.
    Pass,
    /// It is dropped.
    Drop,
    /// It is dropped, and held against the agent.
    Violation,
}
use Probe::{Drop, Pass, Violation};

/// One frame and what is expected of it.
pub struct Row {
    /// What it is.
    pub what: &'static str,
    /// Which way it goes.
    pub direction: Direction,
    /// Its bytes.
    pub frame: Vec<u8>,
    /// What it counts as.
    pub class: Class,
    /// What becomes of it on probation.
    pub probe: Probe,
}

impl Row {
    /// What enforcement does with the frame, or would do.
    #[must_use]
    pub fn is_dropped(&self, state: State) -> bool {
        match state {
            State::Closed => false,
            State::HalfOpen => self.probe != Pass,
            State::Open => true,
        }
    }
}

const SERVER4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 10);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x10);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 53);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const STRANGER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

/// Where a frame's IP header begins.
const IP: usize = 14;

/// What is typical for the agents of the table.
#[must_use]
pub fn typical() -> Vec<TypicalRule> {
    let port = |protocol, kinds, port| PortRule { protocol, kinds, first: port, last: port };
    vec![
        rule(SERVER4, 32, port(protocol::TCP, OPENED, 443)),
        rule(SERVER6, 128, port(protocol::TCP, OPENED, 443)),
        rule(RESOLVER, 32, port(protocol::UDP, OPENED, 53)),
        rule(GATEWAY, 32, port(protocol::ICMP, OPENED, 0)),
        rule(Ipv4Addr::new(10, 9, 0, 0), 24, port(protocol::TCP, ACCEPTED, 8080)),
    ]
}

/// Every row.
#[must_use]
pub fn rows() -> Vec<Row> {
    [conversations(), control(), tags(), fragments(), chains(), broken(), lies()]
        .into_iter()
        .flatten()
        .collect()
}

/// A row of a frame that is expected to go the same way on probation whoever sends it, but is held only against the
/// agent that sends it.
fn both(what: &'static str, make: impl Fn(Direction) -> Vec<u8>, class: Class, probe: Probe) -> [Row; 2] {
    let inbound = if probe == Violation { Drop } else { probe };
    [
        Row { what, direction: Outbound, frame: make(Outbound), class, probe },
        Row { what, direction: Inbound, frame: make(Inbound), class, probe: inbound },
    ]
}

fn out(what: &'static str, frame: Vec<u8>, class: Class, probe: Probe) -> Row {
    Row { what, direction: Outbound, frame, class, probe }
}

fn inward(what: &'static str, frame: Vec<u8>, class: Class, probe: Probe) -> Row {
    Row { what, direction: Inbound, frame, class, probe }
}

/// TCP and UDP with somebody typical and with somebody else.
fn conversations() -> Vec<Row> {
    let (server, server6) = (Flow::to(SERVER4, 443), Flow::to(SERVER6, 443));
    let client = Flow::from(Ipv4Addr::new(10, 9, 0, 77), 50_000, 8080);
    let (stranger, stranger6) = (Flow::to(STRANGER4, 443), Flow::to(STRANGER6, 443));
    let resolver = Flow::to(RESOLVER, 53);
    let mut rows = vec![
        out("a SYN to a typical server", server.tcp(Outbound, flags::SYN, b""), Ipv4, Pass),
        out("an ACK to it", server.tcp(Outbound, flags::ACK, b""), Ipv4, Pass),
        out("data to it", server.tcp(Outbound, flags::ACK, b"GET /"), Ipv4, Pass),
        inward("its SYN-ACK", server.tcp(Inbound, flags::SYN_ACK, b""), Ipv4, Pass),
        out("a SYN to a typical IPv6 server", server6.tcp(Outbound, flags::SYN, b""), Ipv6, Pass),
        inward("its SYN-ACK by IPv6", server6.tcp(Inbound, flags::SYN_ACK, b""), Ipv6, Pass),
        inward("a SYN from a typical client", client.tcp(Inbound, flags::SYN, b""), Ipv4, Pass),
        out("the SYN-ACK to it", client.tcp(Outbound, flags::SYN_ACK, b""), Ipv4, Pass),
        out("a question to the resolver", resolver.udp(Outbound, b"?"), Ipv4, Pass),
        out("TCP to the resolver", Flow::to(RESOLVER, 53).tcp(Outbound, flags::SYN, b""), Ipv4, Violation),
        out(
            "another port of the server",
            Flow::to(SERVER4, 444).tcp(Outbound, flags::SYN, b""),
            Ipv4,
            Violation,
        ),
        out(
            "the served port, the other way round",
            Flow::to(SERVER4, 8080).tcp(Outbound, flags::SYN, b""),
            Ipv4,
            Violation,
        ),
    ];
    for (what, flags) in
        [("a SYN, stranger", flags::SYN), ("an ACK, stranger", flags::ACK), ("a RST, stranger", flags::RST)]
    {
        rows.extend(both(what, |way| stranger.tcp(way, flags, b""), Ipv4, Violation));
        rows.extend(both(what, |way| stranger6.tcp(way, flags, b""), Ipv6, Violation));
    }
    rows.extend(both("data, stranger", |way| stranger.tcp(way, flags::ACK, b"data"), Ipv4, Violation));
    rows.extend(both("UDP, stranger", |way| stranger.udp(way, b"data"), Ipv4, Violation));
    rows.extend(both("UDP by IPv6, stranger", |way| stranger6.udp(way, b"data"), Ipv6, Violation));
    let sctp = |way| packet(way, STRANGER4, protocol::SCTP, &[&stranger.ports(way)[..], &[0; 8]].concat());
    rows.extend(both("SCTP, stranger", sctp, Ipv4, Violation));
    rows.extend(both("GRE, stranger", |way| packet(way, STRANGER4, 47, &[0; 8]), Ipv4, Violation));
    rows
}

/// ARP, ICMP and what else a link needs.
fn control() -> Vec<Row> {
    let icmp =
        |way, remote: Ipv4Addr, kind| packet(way, remote, protocol::ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]);
    let icmp6 = |way, kind| packet(way, STRANGER6, protocol::ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
    let mld = |way| packet(way, STRANGER6, 0, &[58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 1]);
    let mut rows = vec![
        out("an echo request to the gateway", icmp(Outbound, GATEWAY, 8), Ipv4, Pass),
        out("an echo reply from the agent", icmp(Outbound, STRANGER4, 0), Ipv4, Drop),
        inward("an echo reply to the agent", icmp(Inbound, STRANGER4, 0), Ipv4, Pass),
        out("an ICMP error from the agent", icmp(Outbound, STRANGER4, 3), Ipv4, Drop),
        inward("an ICMP error to the agent", icmp(Inbound, STRANGER4, 3), Ipv4, Pass),
        out("an ICMPv6 error from the agent", icmp6(Outbound, 2), Ipv6, Drop),
        inward("an ICMPv6 error to the agent", icmp6(Inbound, 2), Ipv6, Pass),
        out("an ICMPv6 echo reply from the agent", icmp6(Outbound, 129), Ipv6, Drop),
        inward("an ICMPv6 echo reply to the agent", icmp6(Inbound, 129), Ipv6, Pass),
        inward("a router advertisement", icmp6(Inbound, 134), Ipv6, Pass),
    ];
    rows.extend(both("ARP", |way| path(way).arp_request(AGENT4, GATEWAY), Arp, Pass));
    rows.extend(both("half an ARP packet", |way| path(way).frame(0x0806, &[0, 1, 8]), Arp, Pass));
    rows.extend(both("an echo request, stranger", |way| icmp(way, STRANGER4, 8), Ipv4, Violation));
    rows.extend(both("an ICMPv6 echo request, stranger", |way| icmp6(way, 128), Ipv6, Violation));
    rows.extend(both("a neighbour solicitation", |way| icmp6(way, 135), Ipv6, Pass));
    rows.extend(both("a neighbour advertisement", |way| icmp6(way, 136), Ipv6, Pass));
    rows.extend(both("a multicast listener report", mld, Ipv6, Pass));
    rows.extend(both("an IGMP report", |way| packet(way, STRANGER4, protocol::IGMP, &[0x16; 8]), Ipv4, Pass));
    rows
}

/// VLAN tags, and ethertypes that nobody knows.
fn tags() -> Vec<Row> {
    let good = Flow::to(SERVER4, 443).tcp(Outbound, flags::SYN, b"");
    let one = tagged(&good, VLAN, 7);
    let two = tagged(&one, QINQ, 8);
    let three = tagged(&two, VLAN, 9);
    let bad = |way| tagged(&Flow::to(STRANGER4, 443).tcp(way, flags::SYN, b""), VLAN, 7);
    let mut rows = vec![
        out("one tag before a typical SYN", one, Ipv4, Pass),
        out("two tags before it", two, Ipv4, Pass),
        out("three tags before it", three, Other, Violation),
        out("a tag and nothing after it", path(Outbound).frame(VLAN, &[]), Malformed, Violation),
        out("half a tag", path(Outbound).frame(VLAN, &[0, 7, 8]), Malformed, Violation),
    ];
    rows.extend(both("a tag before a stranger's SYN", bad, Ipv4, Violation));
    rows.extend(both("an unknown ethertype", |way| path(way).frame(0x88b5, b"hello"), Other, Violation));
    rows.extend(both("an 802.3 length", |way| path(way).frame(5, b"hello"), Other, Violation));
    rows.extend(both("nothing but addresses", |way| path(way).frame(0x9000, &[]), Other, Violation));
    rows
}

/// Pieces of packets.
fn fragments() -> Vec<Row> {
    let typical = Flow::to(SERVER4, 443).tcp(Outbound, flags::SYN, b"data");
    let later = |way| with(&Flow::to(SERVER4, 443).tcp(way, flags::ACK, b"data"), IP + 6, &[0x20, 0x10]);
    let last = |way| with(&Flow::to(SERVER4, 443).tcp(way, flags::ACK, b"data"), IP + 6, &[0, 0x10]);
    let six = |way, offset: [u8; 2]| {
        let segment = &Flow::to(SERVER6, 443).tcp(way, flags::SYN_ACK, b"")[IP + 40..];
        let header = [protocol::TCP, 0, offset[0], offset[1], 0, 0, 0, 1];
        packet(way, SERVER6, protocol::FRAGMENT, &[&header[..], segment].concat())
    };
    let mut rows = vec![
        out("the first fragment of a typical SYN", with(&typical, IP + 6, &[0x20, 0]), Ipv4, Pass),
        inward("a first IPv6 fragment of a typical SYN-ACK", six(Inbound, [0, 1]), Ipv6, Pass),
    ];
    rows.extend(both("a later fragment", later, Fragment, Violation));
    rows.extend(both("the last fragment", last, Fragment, Violation));
    rows.extend(both("a later IPv6 fragment", |way| six(way, [0, 9]), Fragment, Violation));
    rows
}

/// IPv6 extension headers.
fn chains() -> Vec<Row> {
    let segment = Flow::to(SERVER6, 443).tcp(Outbound, flags::SYN, b"")[IP + 40..].to_vec();
    let chain = |first: u8, headers: &[[u8; 8]]| {
        packet(Outbound, SERVER6, first, &[headers.as_flattened(), &segment].concat())
    };
    let to = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let six = [to(60), to(60), to(60), to(60), to(60), to(6)];
    let seven = [to(60), to(60), to(60), to(60), to(60), to(60), to(6)];
    let endless = |way| packet(way, SERVER6, 0, &[6, 255, 1, 4, 0, 0, 0, 0]);
    let mut rows = vec![
        out("hop-by-hop options before a typical SYN", chain(0, &[to(6)]), Ipv6, Pass),
        out("options, routing and options before it", chain(0, &[to(43), to(60), to(6)]), Ipv6, Pass),
        // An authentication header counts its length in words of four bytes, less two.
        out(
            "an authentication header before it",
            chain(51, &[[60, 2, 0, 0, 0, 0, 0, 0], [0; 8], to(6)]),
            Ipv6,
            Pass,
        ),
        out("six extension headers before it", chain(60, &six), Ipv6, Pass),
        out("seven extension headers before it", chain(60, &seven), Ipv6, Violation),
        out("no next header", packet(Outbound, SERVER6, 59, b""), Ipv6, Violation),
    ];
    rows.extend(both("an extension header beyond the end", endless, Malformed, Violation));
    rows.extend(both(
        "half an extension header",
        |way| packet(way, SERVER6, 60, &[6, 0, 1]),
        Malformed,
        Violation,
    ));
    rows
}

/// Headers that cannot be read. Those that end before their IP header does come behind a tag: the kernel runs
/// no program on them otherwise, though wires carry them.
fn broken() -> Vec<Row> {
    let good = |way| Flow::to(SERVER4, 443).tcp(way, flags::SYN_ACK, b"");
    let good6 = |way| Flow::to(SERVER6, 443).tcp(way, flags::SYN_ACK, b"");
    let tag = |frame: &[u8]| tagged(frame, VLAN, 5);
    type Make<'a> = &'a dyn Fn(Direction) -> Vec<u8>;
    let rows: [(&'static str, Make<'_>); 12] = [
        ("IPv4 and nothing more", &|way| tag(&path(way).frame(IPV4, &[]))),
        ("half an IPv4 header", &|way| tag(&good(way)[..IP + 10])),
        ("IPv4 of version 5", &|way| with(&good(way), IP, &[0x55])),
        ("an IPv4 header of four words", &|way| with(&good(way), IP, &[0x44])),
        ("an IPv4 header longer than its packet", &|way| with(&good(way), IP, &[0x4f])),
        ("an IPv4 packet shorter than its header", &|way| with(&good(way), IP + 2, &[0, 19])),
        ("a TCP header that is not there", &|way| good(way)[..IP + 20].to_vec()),
        ("half a TCP header", &|way| good(way)[..IP + 30].to_vec()),
        ("IPv6 and nothing more", &|way| tag(&path(way).frame(IPV6, &[]))),
        ("half an IPv6 header", &|way| tag(&good6(way)[..IP + 20])),
        ("IPv6 of version 4", &|way| with(&good6(way), IP, &[0x40])),
        ("IPv6 that says it is IPv4", &|way| path(way).frame(IPV4, &good6(way)[IP..])),
    ];
    rows.into_iter().flat_map(|(what, make)| both(what, make, Malformed, Violation)).collect()
}

/// Frames that can be read and lie.
fn lies() -> Vec<Row> {
    let good = Flow::to(SERVER4, 443).tcp(Outbound, flags::SYN, b"payload");
    let good6 = Flow::to(SERVER6, 443).tcp(Outbound, flags::SYN, b"payload");
    let spoofed = |to: Ipv4Addr| {
        let segment = &Flow::to(to, 443).tcp(Outbound, flags::SYN, b"")[IP + 20..];
        path(Outbound).frame(IPV4, &ipv4(STRANGER4, to, protocol::TCP, segment))
    };
    vec![
        out("an IPv4 length beyond the end", with(&good, IP + 2, &[0xff, 0xff]), Ipv4, Pass),
        out("an IPv4 length before the end", with(&good, IP + 2, &[0, 40]), Ipv4, Pass),
        out("an IPv4 length of nothing, as BIG TCP says it", with(&good, IP + 2, &[0, 0]), Ipv4, Pass),
        out("a bad IPv4 checksum", with(&good, IP + 10, &[0xde, 0xad]), Ipv4, Pass),
        out("an IPv6 length beyond the end", with(&good6, IP + 4, &[0xff, 0xff]), Ipv6, Pass),
        out("an IPv6 length of nothing", with(&good6, IP + 4, &[0, 0]), Ipv6, Pass),
        out("a spoofed source to a typical server", spoofed(SERVER4), Ipv4, Pass),
        out("a spoofed source to a stranger", spoofed(Ipv4Addr::new(203, 0, 113, 10)), Ipv4, Violation),
        out("a spoofed Ethernet source", with(&good, 6, &[0xee; 6]), Ipv4, Pass),
    ]
}
