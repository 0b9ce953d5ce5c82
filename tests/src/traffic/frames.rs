//! Ethernet frames byte by byte: good, odd and broken ones.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::link::Mac;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad (outer) tag.
pub const QINQ: u16 = 0x88a8;
/// The Ethernet address of everybody.
pub const BROADCAST: Mac = [0xff; 6];

/// Who sends a frame to whom on one link.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The sender.
    pub from: Mac,
    /// The receiver.
    pub to: Mac,
}

impl Path {
    /// A frame with this EtherType.
    #[must_use]
    pub fn frame(self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&self.to[..], &self.from, &ethertype.to_be_bytes(), payload].concat()
    }

    /// An ARP request for `wanted`, to everybody.
    #[must_use]
    pub fn arp_request(self, sender: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
        let fixed = [0, 1, 0x08, 0, 6, 4, 0, 1];
        let payload = [&fixed[..], &self.from, &sender.octets(), &[0; 6], &wanted.octets()].concat();
        Self { to: BROADCAST, ..self }.frame(ARP, &payload)
    }
}

/// Inserts an 802.1Q tag (`tpid` [`VLAN`] or [`QINQ`]) before whatever `frame` carries. Applied twice, the second
/// is the outer tag.
#[must_use]
pub fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(frame.len().min(12));
    [addresses, &tpid.to_be_bytes(), &tci.to_be_bytes(), rest].concat()
}

/// An IPv4 packet with a good header.
#[must_use]
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&[&packet]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An IPv6 packet.
#[must_use]
pub fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// A UDP datagram over IPv4, with good checksums.
#[must_use]
pub fn udp4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let datagram = udp(from.1, to.1, payload, &[&from.0.octets(), &to.0.octets()]);
    ipv4(from.0, to.0, 17, &datagram)
}

/// A UDP datagram over IPv6, with a good checksum.
#[must_use]
pub fn udp6(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let datagram = udp(from.1, to.1, payload, &[&from.0.octets(), &to.0.octets()]);
    ipv6(from.0, to.0, 17, &datagram)
}

/// A TCP segment over IPv4 with these flags (`0x02` is SYN), no options and good checksums.
#[must_use]
pub fn tcp4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + payload.len());
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    let length = (segment.len() as u16).to_be_bytes();
    let sum = checksum(&[&from.0.octets(), &to.0.octets(), &[0, 6], &length, &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(from.0, to.0, 6, &segment)
}

fn udp(from: u16, to: u16, payload: &[u8], addresses: &[&[u8]]) -> Vec<u8> {
    let length = ((8 + payload.len()) as u16).to_be_bytes();
    let mut datagram = [&from.to_be_bytes()[..], &to.to_be_bytes(), &length, &[0, 0], payload].concat();
    let sum = checksum(&[addresses, &[&[0, 17], &length, &datagram]].concat());
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// The Internet checksum of `parts` one after the other; all but the last have an even length.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Frames that a parser must survive, each with what is wrong with it. All can be sent by a packet socket, and all
/// arrive at the hooks of the other side; see [`torn_tags`] for some that do not.
#[must_use]
pub fn broken(
    path: Path,
    from: (Ipv4Addr, Ipv6Addr),
    to: (Ipv4Addr, Ipv6Addr),
) -> Vec<(&'static str, Vec<u8>)> {
    let good4 = udp4((from.0, 1000), (to.0, 2000), b"payload");
    let good6 = udp6((from.1, 1000), (to.1, 2000), b"payload");
    let with = |packet: &[u8], at: usize, value: &[u8]| {
        let mut packet = packet.to_vec();
        packet[at..at + value.len()].copy_from_slice(value);
        packet
    };
    let hop_by_hop_beyond_the_end = ipv6(from.1, to.1, 0, &[17, 255, 1, 4, 0, 0, 0, 0]);
    let endless_options: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(40);
    vec![
        ("an IPv4 frame without a payload", path.frame(IPV4, &[])),
        ("half an IPv4 header", path.frame(IPV4, &good4[..10])),
        ("an IPv4 header without what follows", path.frame(IPV4, &good4[..20])),
        ("half a UDP header", path.frame(IPV4, &good4[..24])),
        ("IPv4 with version 5", path.frame(IPV4, &with(&good4, 0, &[0x55]))),
        ("an IPv4 header length of 4 words", path.frame(IPV4, &with(&good4, 0, &[0x44]))),
        ("an IPv4 header longer than the packet", path.frame(IPV4, &with(&good4, 0, &[0x4f]))),
        ("an IPv4 total length beyond the end", path.frame(IPV4, &with(&good4, 2, &[0xff, 0xff]))),
        ("an IPv4 total length of nothing", path.frame(IPV4, &with(&good4, 2, &[0, 0]))),
        ("a bad IPv4 checksum", path.frame(IPV4, &with(&good4, 10, &[0xde, 0xad]))),
        ("an IPv4 fragment without a beginning", path.frame(IPV4, &with(&good4, 6, &[0x20, 0x10]))),
        ("an IPv6 frame without a payload", path.frame(IPV6, &[])),
        ("half an IPv6 header", path.frame(IPV6, &good6[..20])),
        ("IPv6 with version 4", path.frame(IPV6, &with(&good6, 0, &[0x40]))),
        ("an IPv6 payload beyond the end", path.frame(IPV6, &with(&good6, 4, &[0xff, 0xff]))),
        ("an IPv6 extension beyond the end", path.frame(IPV6, &hop_by_hop_beyond_the_end)),
        ("forty IPv6 extensions", path.frame(IPV6, &ipv6(from.1, to.1, 60, &endless_options))),
        ("IPv6 under the EtherType of IPv4", path.frame(IPV4, &good6)),
        ("half an ARP packet", path.frame(ARP, &[0, 1, 8, 0, 6])),
        ("an EtherType that nobody knows", path.frame(0x88b5, b"hello")),
        ("an 802.3 length instead of an EtherType", path.frame(5, b"hello")),
        ("five tags", (0..5).fold(path.frame(IPV4, &good4), |frame, tci| tagged(&frame, VLAN, tci))),
    ]
}

/// Frames that end too early after a tag. The receiving kernel counts them on the interface and throws them away when
/// it takes the tag off, which is before any packet socket or TCX program: there nobody ever sees them.
#[must_use]
pub fn torn_tags(path: Path) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a tag and nothing after it", tagged(&path.frame(IPV4, &[]), VLAN, 5)),
        ("half a tag", path.frame(VLAN, &[0])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 1071 §3.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        let packet = ipv4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), 17, &[]);
        assert_eq!(checksum(&[&packet]), 0, "the sum over a good header is nothing");
    }

    #[test]
    fn the_second_tag_is_the_outer_one() {
        let path = Path { from: [1; 6], to: [2; 6] };
        let frame = tagged(&tagged(&path.frame(IPV4, b"x"), VLAN, 7), QINQ, 9);
        assert_eq!(frame[12..], [0x88, 0xa8, 0, 9, 0x81, 0, 0, 7, 8, 0, b'x']);
    }
}
