//! Reading a frame's headers: Ethernet, VLAN and QinQ, ARP, IPv4, IPv6 with its extension chain, TCP, UDP,
//! ICMP. Bounded, total and without allocation: the kernel runs it on packets, tests and fuzzers on bytes.

use crate::agent::Direction;
use crate::endpoint::{Address, EndpointKind, MAPPED};

/// The one bounds check: everything is read through it. Words are as they lie in memory, so that addresses
/// are loaded whole and never assembled from bytes.
pub trait Frame {
    /// `N` bytes at `offset`, or `None` when the frame ends before them.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// `N` words of 32 bits at `offset`, or `None` when the frame ends before them.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
}

impl Frame for &[u8] {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (index, word) in words.iter_mut().enumerate() {
            *word = u32::from_ne_bytes(self.bytes(offset + index * 4)?);
        }
        Some(words)
    }
}

/// What a frame is, for counting. Every frame is exactly one of these.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// IPv4.
    Ipv4 = 0,
    /// IPv6.
    Ipv6 = 1,
    /// ARP.
    Arp = 2,
    /// Any other ethertype.
    Other = 3,
    /// Too short for, or at odds with, what it says it is. With a readable IP header it still belongs to an
    /// endpoint, without ports: a transport header cut into tiny fragments hides nothing.
    Malformed = 4,
    /// A fragment after the first: its ports are unknown, so it belongs to its protocol.
    Fragment = 5,
}

/// What a frame is in the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Traffic with an endpoint.
    Endpoint,
    /// Neighbour discovery and group membership (ARP, NDP, MLD, IGMP): what a link needs to work.
    LinkControl,
    /// ICMP errors and replies: answers, not conversations.
    IcmpAnswer,
    /// Nothing that has an endpoint: unknown ethertypes, and frames whose IP header cannot be read.
    Opaque,
}

/// TCP flag bits as they lie in the header.
pub mod tcp {
    /// Finish.
    pub const FIN: u8 = 1;
    /// Synchronize.
    pub const SYN: u8 = 1 << 1;
    /// Reset.
    pub const RST: u8 = 1 << 2;
    /// Push: a message ends here.
    pub const PSH: u8 = 1 << 3;
    /// Acknowledge.
    pub const ACK: u8 = 1 << 4;
}

/// IP protocol numbers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// The headers of a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// What it counts as.
    pub class: Class,
    /// What it is in the conversation.
    pub role: Role,
    /// Upper-layer protocol, after IPv6 extension headers; zero when not IP.
    pub protocol: u8,
    /// TCP flags; zero when not TCP.
    pub tcp_flags: u8,
    /// Source port, host byte order; zero where there is none.
    pub source_port: u16,
    /// Destination port, host byte order; zero where there is none.
    pub destination_port: u16,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Bytes from the frame's start to the end of the last header read: what each segment of a GSO
    /// super-packet repeats.
    pub header_bytes: u16,
    /// Whether bytes follow the transport header.
    pub has_payload: bool,
    /// TCP sequence number; zero when not TCP.
    pub sequence: u32,
    /// TCP acknowledgement number; zero when not TCP.
    pub acknowledgment: u32,
    /// Bytes that follow the transport header, as the IP header says.
    pub payload_bytes: u32,
}

impl Headers {
    /// Headers of a frame that has not been read.
    pub const NONE: Self = Self::bare(Class::Malformed, Role::Opaque, 0);

    const fn bare(class: Class, role: Role, header_bytes: usize) -> Self {
        Self {
            class,
            role,
            protocol: 0,
            tcp_flags: 0,
            source_port: 0,
            destination_port: 0,
            source: [0; 4],
            destination: [0; 4],
            header_bytes: header_bytes as u16,
            has_payload: false,
            sequence: 0,
            acknowledgment: 0,
            payload_bytes: 0,
        }
    }

    /// The remote's address and port and the agent's own port, for a packet going in `direction`.
    #[inline(always)]
    #[must_use]
    pub const fn remote(&self, direction: Direction) -> Remote {
        match direction {
            Direction::Outbound => Remote {
                address: self.destination,
                port: self.destination_port,
                local_port: self.source_port,
            },
            Direction::Inbound => {
                Remote { address: self.source, port: self.source_port, local_port: self.destination_port }
            }
        }
    }

    /// Who opens the conversation, if this packet alone tells: a TCP SYN does, with ACK it is the answer.
    #[inline(always)]
    #[must_use]
    pub const fn opener(&self, direction: Direction) -> Option<EndpointKind> {
        if self.tcp_flags & tcp::SYN == 0 {
            return None;
        }
        let answers = self.tcp_flags & tcp::ACK != 0;
        match (direction, answers) {
            (Direction::Outbound, false) | (Direction::Inbound, true) => Some(EndpointKind::Opened),
            (Direction::Outbound, true) | (Direction::Inbound, false) => Some(EndpointKind::Accepted),
        }
    }
}

/// The far side of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its address.
    pub address: Address,
    /// Its port.
    pub port: u16,
    /// The agent's port.
    pub local_port: u16,
}

const ETHERNET_BYTES: usize = 14;
const VLAN_BYTES: usize = 4;
/// VLAN tags read in the frame, beside one that the stack may have moved to metadata.
const VLAN_TAGS: usize = 2;
/// IPv6 extension headers followed; a longer chain is an endpoint of the extension's own protocol.
const EXTENSION_HEADERS: usize = 6;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Reads the headers of an Ethernet frame.
#[must_use]
pub fn parse<F: Frame>(frame: &F) -> Headers {
    let mut headers = Headers::NONE;
    parse_into(frame, &mut headers);
    headers
}

/// Reads the headers of an Ethernet frame into `headers`, whatever was there.
///
/// In place, because a value returned from so many ways out is put together on the stack for each of them.
#[inline(always)]
pub fn parse_into<F: Frame>(frame: &F, headers: &mut Headers) {
    let Some(ethertype) = frame.bytes(12) else {
        *headers = Headers::NONE;
        return;
    };
    let mut ethertype = u16::from_be_bytes(ethertype);
    let mut offset = ETHERNET_BYTES;
    for _ in 0..VLAN_TAGS {
        if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
            let Some(inner) = frame.bytes(offset + 2) else {
                *headers = Headers::bare(Class::Malformed, Role::Opaque, offset);
                return;
            };
            ethertype = u16::from_be_bytes(inner);
            offset += VLAN_BYTES;
        }
    }
    let is_ip = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset, headers).is_some(),
        ETHERTYPE_IPV6 => ipv6(frame, offset, headers).is_some(),
        _ => false,
    };
    if !is_ip {
        let (class, role) = match ethertype {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => (Class::Malformed, Role::Opaque),
            ETHERTYPE_ARP => (Class::Arp, Role::LinkControl),
            _ => (Class::Other, Role::Opaque),
        };
        *headers = Headers::bare(class, role, offset);
    }
}

/// Reads the headers of an IP packet without a link layer into `headers`, whatever was there.
#[inline(always)]
pub fn parse_packet_into<F: Frame>(packet: &F, headers: &mut Headers) {
    let version = packet.words(0).map(|[first]: [u32; 1]| byte(first, 0) >> 4);
    let is_ip = match version {
        Some(4) => ipv4(packet, 0, headers).is_some(),
        Some(6) => ipv6(packet, 0, headers).is_some(),
        _ => false,
    };
    if !is_ip {
        *headers = Headers::bare(Class::Malformed, Role::Opaque, 0);
    }
}

/// Where a frame's IP header begins, and its version, without reading further: what it takes to find the addresses.
/// `None` for anything but IP behind at most [`VLAN_TAGS`] tags.
#[inline(always)]
pub fn find_ip<F: Frame>(frame: &F) -> Option<(IpVersion, usize)> {
    let mut ethertype = u16::from_be_bytes(frame.bytes(12)?);
    let mut offset = ETHERNET_BYTES;
    for _ in 0..VLAN_TAGS {
        if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ {
            ethertype = u16::from_be_bytes(frame.bytes(offset + 2)?);
            offset += VLAN_BYTES;
        }
    }
    match ethertype {
        ETHERTYPE_IPV4 => Some((IpVersion::V4, offset)),
        ETHERTYPE_IPV6 => Some((IpVersion::V6, offset)),
        _ => None,
    }
}

/// The version of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4: the source address at 12, the destination at 16.
    V4,
    /// IPv6: the source address at 8, the destination at 24.
    V6,
}

/// `None` when there is no header that can be read; `headers` may be anything then.
#[inline(always)]
fn ipv4<F: Frame>(frame: &F, offset: usize, headers: &mut Headers) -> Option<()> {
    let fixed: [u32; 5] = frame.words(offset)?;
    let version = byte(fixed[0], 0);
    let header = (version & 0x0f) as usize * 4;
    let total = length_or_big(low_half(fixed[0]));
    if version >> 4 != 4 || header < 20 || total < header {
        return None;
    }
    headers.begin(Class::Ipv4, byte(fixed[2], 1), offset + header);
    headers.source = [0, 0, MAPPED, fixed[3]];
    headers.destination = [0, 0, MAPPED, fixed[4]];
    if low_half(fixed[1]) & 0x1fff != 0 {
        headers.class = Class::Fragment;
        headers.has_payload = true;
        return Some(());
    }
    transport(frame, headers, offset + header, total - header);
    Some(())
}

/// The length that an IP header says. A super-packet (BIG TCP) or jumbogram that is too long for the field says zero.
#[inline(always)]
const fn length_or_big(field: u16) -> usize {
    if field == 0 { u16::MAX as usize } else { field as usize }
}

/// As [`ipv4`].
#[inline(always)]
fn ipv6<F: Frame>(frame: &F, offset: usize, headers: &mut Headers) -> Option<()> {
    let fixed: [u32; 10] = frame.words(offset)?;
    if byte(fixed[0], 0) >> 4 != 6 {
        return None;
    }
    headers.begin(Class::Ipv6, byte(fixed[1], 2), offset + 40);
    headers.source = [fixed[2], fixed[3], fixed[4], fixed[5]];
    headers.destination = [fixed[6], fixed[7], fixed[8], fixed[9]];
    let mut next = byte(fixed[1], 2);
    let mut at = offset + 40;
    let mut payload = length_or_big(high_half(fixed[1]));
    for _ in 0..EXTENSION_HEADERS {
        if !matches!(
            next,
            protocol::HOP_BY_HOP
                | protocol::ROUTING
                | protocol::DESTINATION
                | protocol::AH
                | protocol::FRAGMENT
        ) {
            break;
        }
        // Every extension header is at least eight bytes long.
        let Some([first, _]) = frame.words(at) else {
            headers.cut_short(next);
            return Some(());
        };
        let following = byte(first, 0);
        if next == protocol::FRAGMENT && low_half(first) & 0xfff8 != 0 {
            headers.class = Class::Fragment;
            headers.protocol = following;
            headers.has_payload = true;
            headers.header_bytes = (at + 8) as u16;
            return Some(());
        }
        let units = byte(first, 1) as usize;
        let length = match next {
            protocol::FRAGMENT => 8,
            protocol::AH => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        next = following;
        at += length;
        // A lying length ends as "no payload", never below zero.
        payload = payload.saturating_sub(length);
    }
    headers.protocol = next;
    headers.header_bytes = at as u16;
    transport(frame, headers, at, payload);
    Some(())
}

/// Reads ports, flags and ICMP types at `offset`, where `length` bytes of IP payload begin.
#[inline(always)]
fn transport<F: Frame>(frame: &F, headers: &mut Headers, offset: usize, length: usize) {
    match transport_header(frame, headers, offset) {
        Some(header) => {
            headers.has_payload = length > header;
            headers.payload_bytes = length.saturating_sub(header) as u32;
            headers.header_bytes = (offset + header) as u16;
        }
        None => headers.cut_short(headers.protocol),
    }
}

/// Reads ports, flags and role; returns the length of the transport header.
#[inline(always)]
fn transport_header<F: Frame>(frame: &F, headers: &mut Headers, offset: usize) -> Option<usize> {
    let length = match headers.protocol {
        protocol::TCP => {
            let [ports, sequence, acknowledgment, flags]: [u32; 4] = frame.words(offset)?;
            headers.set_ports(ports);
            headers.sequence = u32::from_be(sequence);
            headers.acknowledgment = u32::from_be(acknowledgment);
            headers.tcp_flags = byte(flags, 1);
            (byte(flags, 0) >> 4) as usize * 4
        }
        protocol::UDP => {
            let [ports, _]: [u32; 2] = frame.words(offset)?;
            headers.set_ports(ports);
            8
        }
        protocol::SCTP => {
            let [ports, _, _]: [u32; 3] = frame.words(offset)?;
            headers.set_ports(ports);
            12
        }
        protocol::ICMP => {
            let [kind, _]: [u32; 2] = frame.words(offset)?;
            headers.role = icmp_role(byte(kind, 0));
            8
        }
        protocol::ICMPV6 => {
            let [kind, _]: [u32; 2] = frame.words(offset)?;
            headers.role = icmpv6_role(byte(kind, 0));
            8
        }
        protocol::IGMP => {
            headers.role = Role::LinkControl;
            8
        }
        _ => 0,
    };
    Some(length)
}

impl Headers {
    #[inline(always)]
    const fn set_ports(&mut self, ports: u32) {
        self.source_port = high_half(ports);
        self.destination_port = low_half(ports);
    }

    /// A frame that ends inside the header of `protocol`.
    #[inline(always)]
    const fn cut_short(&mut self, protocol: u8) {
        self.class = Class::Malformed;
        self.protocol = protocol;
        self.has_payload = true;
    }

    /// Sets everything but the addresses, as of a packet without a transport header.
    #[inline(always)]
    const fn begin(&mut self, class: Class, protocol: u8, header_bytes: usize) {
        self.class = class;
        self.role = Role::Endpoint;
        self.protocol = protocol;
        self.tcp_flags = 0;
        self.source_port = 0;
        self.destination_port = 0;
        self.header_bytes = header_bytes as u16;
        self.has_payload = false;
        self.sequence = 0;
        self.acknowledgment = 0;
        self.payload_bytes = 0;
    }
}

/// Echo reply, unreachable, source quench, redirect, time exceeded, parameter problem, and the replies to
/// timestamp, information and mask requests answer something; the rest asks.
#[inline(always)]
const fn icmp_role(kind: u8) -> Role {
    match kind {
        0 | 3 | 4 | 5 | 11 | 12 | 14 | 16 | 18 => Role::IcmpAnswer,
        _ => Role::Endpoint,
    }
}

/// Errors (1–4) and echo replies answer; MLD and NDP (130–137, 143) are link control; the rest asks.
#[inline(always)]
const fn icmpv6_role(kind: u8) -> Role {
    match kind {
        1..=4 | 129 => Role::IcmpAnswer,
        130..=137 | 143 => Role::LinkControl,
        _ => Role::Endpoint,
    }
}

/// The byte at `index` of a word as it lies in memory.
#[inline(always)]
const fn byte(word: u32, index: usize) -> u8 {
    word.to_ne_bytes()[index]
}

/// The first two bytes of a word, big endian.
#[inline(always)]
const fn high_half(word: u32) -> u16 {
    (u32::from_be(word) >> 16) as u16
}

/// The last two bytes of a word, big endian.
#[inline(always)]
const fn low_half(word: u32) -> u16 {
    u32::from_be(word) as u16
}

/// Wire bytes and packets of a buffer of `length` bytes, of which `header_bytes` are repeated by each segment
/// when it is a GSO super-packet. `gso_segments` is zero on frames from a tap.
#[inline(always)]
#[must_use]
pub const fn wire_size(length: u32, header_bytes: u16, gso_size: u32, gso_segments: u32) -> (u64, u64) {
    if gso_size == 0 {
        return (length as u64, 1);
    }
    let payload = length.saturating_sub(header_bytes as u32);
    let by_size = payload.div_ceil(gso_size);
    let segments = if gso_segments > by_size { gso_segments } else { by_size };
    let segments = if segments == 0 { 1 } else { segments };
    (length as u64 + (segments as u64 - 1) * header_bytes as u64, segments as u64)
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
