//! Frames written by hand, field by field, against what the parser says of them.

use super::*;
use proptest::prelude::*;

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ipv4(protocol: u8, fragment: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(vec![0; options]);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(payload);
    packet
}

fn tcp_segment(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![];
    segment.extend(40_000u16.to_be_bytes());
    segment.extend(443u16.to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![];
    datagram.extend(5353u16.to_be_bytes());
    datagram.extend(53u16.to_be_bytes());
    datagram.extend(((8 + payload.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

fn read(frame: &[u8]) -> Headers {
    parse(&frame)
}

const V4_ONE: Address = [0, 0, MAPPED, u32::from_ne_bytes([10, 0, 0, 1])];
const V4_TWO: Address = [0, 0, MAPPED, u32::from_ne_bytes([10, 0, 0, 2])];

#[test]
fn a_tcp_segment_over_ipv4_with_options() {
    for options in [0, 4, 40] {
        let frame = ethernet(0x0800, &ipv4(6, 0x4000, options, &tcp_segment(tcp::SYN, b"x")));
        let headers = read(&frame);
        assert_eq!((headers.class, headers.role), (Class::Ipv4, Role::Endpoint));
        assert_eq!((headers.source, headers.destination), (V4_ONE, V4_TWO));
        assert_eq!((headers.source_port, headers.destination_port), (40_000, 443));
        assert_eq!((headers.protocol, headers.tcp_flags), (6, tcp::SYN));
        assert_eq!(headers.header_bytes as usize, 14 + 20 + options + 20);
        assert!(headers.has_payload);
        let bare = read(&ethernet(0x0800, &ipv4(6, 0, options, &tcp_segment(tcp::ACK, b""))));
        assert!(!bare.has_payload);
    }
}

#[test]
fn vlan_and_qinq_tags_are_seen_through_and_a_third_is_other() {
    let inner = ipv4(17, 0, 0, &udp(b"q"));
    let tag = |ethertype: u16, rest: &[u8]| [&[0, 5][..], &ethertype.to_be_bytes(), rest].concat();
    let one = ethernet(0x8100, &tag(0x0800, &inner));
    let two = ethernet(0x88a8, &tag(0x8100, &tag(0x0800, &inner)));
    let three = ethernet(0x88a8, &tag(0x8100, &tag(0x8100, &tag(0x0800, &inner))));
    assert_eq!(read(&one).destination_port, 53);
    assert_eq!(read(&two).destination_port, 53);
    assert_eq!(read(&two).header_bytes, 14 + 8 + 20 + 8);
    assert_eq!((read(&three).class, read(&three).role), (Class::Other, Role::Opaque));
}

#[test]
fn later_fragments_have_no_ports_and_first_ones_do() {
    let first = read(&ethernet(0x0800, &ipv4(17, 0x2000, 0, &udp(b"q"))));
    assert_eq!((first.class, first.destination_port), (Class::Ipv4, 53));
    let later = read(&ethernet(0x0800, &ipv4(17, 0x2001, 0, b"4444 not a header")));
    assert_eq!((later.class, later.protocol, later.destination_port), (Class::Fragment, 17, 0));
    assert_eq!(later.role, Role::Endpoint);

    let later = [17, 0, 0, 8, 0, 0, 0, 1, 4, 4, 4, 4];
    let later = read(&ethernet(0x86dd, &ipv6(44, &later)));
    assert_eq!((later.class, later.protocol, later.destination_port), (Class::Fragment, 17, 0));
    let first = [&[17, 0, 0, 1, 0, 0, 0, 1][..], &udp(b"q")].concat();
    let first = read(&ethernet(0x86dd, &ipv6(44, &first)));
    assert_eq!((first.class, first.protocol, first.destination_port), (Class::Ipv6, 17, 53));
}

#[test]
fn an_ipv6_extension_chain_is_followed_and_a_longer_one_is_its_own_protocol() {
    let chain = |count: usize| {
        let mut bytes = vec![];
        for _ in 1..count {
            bytes.extend([60, 0, 0, 0, 0, 0, 0, 0]);
        }
        bytes.extend([6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(tcp_segment(tcp::SYN, b""));
        ethernet(0x86dd, &ipv6(0, &bytes))
    };
    for count in 1..=EXTENSION_HEADERS {
        let headers = read(&chain(count));
        assert_eq!((headers.protocol, headers.destination_port), (6, 443), "{count} extension headers");
        assert!(!headers.has_payload);
    }
    let too_long = read(&chain(EXTENSION_HEADERS + 1));
    assert_eq!((too_long.class, too_long.destination_port), (Class::Ipv6, 0));
    assert_eq!(
        too_long.protocol,
        protocol::DESTINATION,
        "still somebody's traffic, to an endpoint of its own"
    );
}

#[test]
fn who_asks_and_who_answers() {
    let v4 = |kind: u8| read(&ethernet(0x0800, &ipv4(1, 0, 0, &[kind, 0, 0, 0, 0, 0, 0, 0]))).role;
    let v6 = |kind: u8| read(&ethernet(0x86dd, &ipv6(58, &[kind, 0, 0, 0, 0, 0, 0, 0]))).role;
    assert_eq!((v4(8), v6(128)), (Role::Endpoint, Role::Endpoint), "echo requests");
    assert_eq!((v4(0), v6(129)), (Role::IcmpAnswer, Role::IcmpAnswer), "echo replies");
    assert_eq!((v4(3), v6(1)), (Role::IcmpAnswer, Role::IcmpAnswer), "unreachable");
    assert_eq!((v6(135), v6(143)), (Role::LinkControl, Role::LinkControl), "NDP and MLD");
    assert_eq!(read(&ethernet(0x0806, &[0; 28])).role, Role::LinkControl);
    assert_eq!(read(&ethernet(0x88cc, &[0; 28])).class, Class::Other);
}

#[test]
fn a_syn_tells_who_opened() {
    let with = |flags| read(&ethernet(0x0800, &ipv4(6, 0, 0, &tcp_segment(flags, b""))));
    assert_eq!(with(tcp::SYN).opener(Direction::Outbound), Some(EndpointKind::Opened));
    assert_eq!(with(tcp::SYN).opener(Direction::Inbound), Some(EndpointKind::Accepted));
    assert_eq!(with(tcp::SYN | tcp::ACK).opener(Direction::Outbound), Some(EndpointKind::Accepted));
    assert_eq!(with(tcp::SYN | tcp::ACK).opener(Direction::Inbound), Some(EndpointKind::Opened));
    assert_eq!(with(tcp::ACK).opener(Direction::Outbound), None);
}

#[test]
fn what_is_cut_short_or_lies_is_malformed() {
    let whole = ethernet(0x0800, &ipv4(6, 0, 0, &tcp_segment(0, b"")));
    for length in 0..14 + 20 + 16 {
        let headers = read(&whole[..length]);
        assert_eq!(headers.class, Class::Malformed, "{length} bytes");
        let expected = if length < 14 + 20 { Role::Opaque } else { Role::Endpoint };
        assert_eq!(headers.role, expected, "with an IP header it has an endpoint ({length} bytes)");
        assert_eq!(headers.destination_port, 0);
    }
    let whole = ethernet(0x86dd, &ipv6(17, &udp(b"")));
    for length in 0..14 + 40 + 8 {
        assert_eq!(read(&whole[..length]).class, Class::Malformed, "{length} bytes");
    }
    let mut version = ipv4(6, 0, 0, &tcp_segment(0, b""));
    version[0] = 0x65;
    assert_eq!(read(&ethernet(0x0800, &version)).class, Class::Malformed);
    let mut header = ipv4(6, 0, 0, &tcp_segment(0, b""));
    header[0] = 0x44;
    assert_eq!(read(&ethernet(0x0800, &header)).class, Class::Malformed);
    let mut total = ipv4(6, 0, 0, &tcp_segment(0, b""));
    total[3] = 10;
    assert_eq!(read(&ethernet(0x0800, &total)).class, Class::Malformed);
}

#[test]
fn a_packet_too_long_for_its_length_field_has_ports_and_payload() {
    let mut big = ipv4(6, 0, 0, &tcp_segment(tcp::ACK, b"x"));
    (big[2], big[3]) = (0, 0);
    let mut jumbo = ipv6(6, &tcp_segment(tcp::ACK, b"x"));
    (jumbo[4], jumbo[5]) = (0, 0);
    for (frame, class) in [(ethernet(0x0800, &big), Class::Ipv4), (ethernet(0x86dd, &jumbo), Class::Ipv6)] {
        let headers = read(&frame);
        assert_eq!((headers.class, headers.destination_port, headers.has_payload), (class, 443, true));
    }
}

#[test]
fn a_super_packet_counts_as_its_segments() {
    assert_eq!(wire_size(1514, 54, 0, 0), (1514, 1));
    assert_eq!(wire_size(54 + 14_480, 54, 1448, 10), (54 + 14_480 + 9 * 54, 10));
    assert_eq!(
        wire_size(54 + 14_481, 54, 1448, 0),
        (54 + 14_481 + 10 * 54, 11),
        "a tap leaves the segments out"
    );
    assert_eq!(wire_size(40, 54, 1448, 0), (40, 1), "nothing underflows");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_headers_stay_in_the_frame(
        ethertype in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x8100), Just(0x88a8), any::<u16>()],
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let headers = read(&ethernet(ethertype, &bytes));
        if headers.role == Role::Endpoint {
            prop_assert_ne!((headers.source, headers.destination), ([0; 4], [0; 4]));
        }
        prop_assert!((headers.header_bytes as usize) < 64 * 1024);
    }
}
