//! The TCP segments among the frames of a capture.

use std::net::Ipv4Addr;

use crate::traffic::capture::Captured;
use crate::traffic::frames::IPV4;

/// `FIN` among a segment's flags.
pub const FIN: u8 = 0x01;
/// `SYN` among a segment's flags.
pub const SYN: u8 = 0x02;
/// `RST` among a segment's flags.
pub const RST: u8 = 0x04;
/// `PSH` among a segment's flags.
pub const PSH: u8 = 0x08;
/// `ACK` among a segment's flags.
pub const ACK: u8 = 0x10;

/// One TCP segment over IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The sender.
    pub from: (Ipv4Addr, u16),
    /// The receiver.
    pub to: (Ipv4Addr, u16),
    /// The number of its first byte.
    pub sequence: u32,
    /// The number of the next byte that its sender expects.
    pub acknowledged: u32,
    /// Its flags.
    pub flags: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Segment {
    /// Reads an untagged Ethernet frame; none if it is anything else than a whole TCP segment over IPv4.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (ethernet, packet) = frame.split_at_checked(14)?;
        let header = usize::from(packet.first()? & 0x0f) * 4;
        if ethernet[12..] != IPV4.to_be_bytes() || packet[0] >> 4 != 4 || *packet.get(9)? != 6 {
            return None;
        }
        let total = usize::from(u16::from_be_bytes(bytes(packet, 2)?));
        let address = |at| Some(Ipv4Addr::from(bytes::<4>(packet, at)?));
        let tcp = packet.get(header..total)?;
        let port = |at| Some(u16::from_be_bytes(bytes(tcp, at)?));
        Some(Self {
            from: (address(12)?, port(0)?),
            to: (address(16)?, port(2)?),
            sequence: u32::from_be_bytes(bytes(tcp, 4)?),
            acknowledged: u32::from_be_bytes(bytes(tcp, 8)?),
            flags: *tcp.get(13)?,
            payload: tcp.get(usize::from(tcp[12] >> 4) * 4..)?.to_vec(),
        })
    }
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

/// All segments that a capture kept whole, in their order.
#[must_use]
pub fn all(captured: &Captured) -> Vec<Segment> {
    captured.frames.iter().filter_map(|frame| Segment::parse(&frame.bytes)).collect()
}

/// The payloads that `port` sent, segment by segment, without empty ones.
#[must_use]
pub fn payloads_from(captured: &Captured, port: u16) -> Vec<Vec<u8>> {
    let sent = all(captured).into_iter().filter(|segment| segment.from.1 == port);
    sent.map(|segment| segment.payload).filter(|payload| !payload.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::frames::{Path, tcp4, udp4};

    const A: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 1000);
    const B: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 2), 80);

    #[test]
    fn a_segment_is_read_without_padding_and_nothing_else_is() {
        let path = Path { from: [1; 6], to: [2; 6] };
        let mut frame = path.frame(IPV4, &tcp4(A, B, ACK, b"hi"));
        frame.extend([0; 4]);
        let read = Segment::parse(&frame).expect("a segment");
        assert_eq!((read.from, read.to, read.flags, read.sequence), (A, B, ACK, 1));
        assert_eq!(read.payload, b"hi");
        assert_eq!(Segment::parse(&path.frame(IPV4, &udp4(A, B, b"hi"))), None);
        for length in 0..frame.len() - 4 {
            assert_eq!(Segment::parse(&frame[..length]), None, "{length} bytes");
        }
    }
}
