//! The TCP segments among the frames of a capture.

use std::net::Ipv4Addr;

use crate::traffic::capture::Captured;
use crate::traffic::frames::{IPV4, Path, checksum, ipv4};

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

    /// The Ethernet frame of this segment, with good checksums, the largest window and no options.
    #[must_use]
    pub fn frame(&self, path: Path) -> Vec<u8> {
        let mut tcp = [self.from.1.to_be_bytes(), self.to.1.to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(&self.payload);
        let length = (tcp.len() as u16).to_be_bytes();
        let (from, to) = (self.from.0, self.to.0);
        let sum = checksum(&[&from.octets(), &to.octets(), &[0, 6], &length, &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        path.frame(IPV4, &ipv4(from, to, 6, &tcp))
    }

    /// The number after its last byte; SYN and FIN have one too.
    #[must_use]
    pub fn end(&self) -> u32 {
        let flags = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.sequence.wrapping_add(self.payload.len() as u32).wrapping_add(flags)
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
    use crate::traffic::frames::{tcp4, udp4};

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
        assert_eq!(Segment::parse(&read.frame(path)).as_ref(), Some(&read));
        assert_eq!(read.end(), 3);
        assert_eq!(Segment::parse(&path.frame(IPV4, &udp4(A, B, b"hi"))), None);
        for length in 0..frame.len() - 4 {
            assert_eq!(Segment::parse(&frame[..length]), None, "{length} bytes");
        }
    }
}
