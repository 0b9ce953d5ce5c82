//! The Community ID, version 1: one name for a flow, whoever sees it and from whichever side.
//!
//! `1:` and the base64 of a SHA-1 over both ends in a fixed order, as <https://github.com/corelight/community-id-spec>
//! says; Zeek, Suricata and Wireshark compute the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use std::net::IpAddr;

/// The seed of everybody who has not agreed on another one.
pub const DEFAULT_SEED: u16 = 0;

/// A flow as one side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTuple {
    /// IP protocol number.
    pub protocol: u8,
    /// One end.
    pub source: IpAddr,
    /// The other end.
    pub destination: IpAddr,
    /// Port of the source; the type of an ICMP message; anything where the protocol has no ports.
    pub source_port: u16,
    /// Port of the destination; the code of an ICMP message.
    pub destination_port: u16,
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// ICMP messages that are questions, and their answers.
const ICMP_PAIRS: [(u16, u16); 5] = [(8, 0), (13, 14), (15, 16), (17, 18), (10, 9)];
const ICMPV6_PAIRS: [(u16, u16); 6] =
    [(128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145)];

impl FlowTuple {
    /// Its Community ID, the same for both directions.
    #[must_use]
    pub fn community_id(&self, seed: u16) -> String {
        let (from, to, one_way) = self.ends();
        let (first, second) = if one_way || from <= to { (from, to) } else { (to, from) };
        let mut hash = Sha1::new();
        hash.update(seed.to_be_bytes());
        hash_address(&mut hash, first.0);
        hash_address(&mut hash, second.0);
        hash.update([self.protocol, 0]);
        if self.has_ports() {
            hash.update(first.1.to_be_bytes());
            hash.update(second.1.to_be_bytes());
        }
        format!("1:{}", STANDARD.encode(hash.finalize()))
    }

    const fn has_ports(&self) -> bool {
        matches!(self.protocol, ICMP | TCP | UDP | ICMPV6 | SCTP)
    }

    /// Both ends with what stands for their ports, and whether the direction is a part of the flow.
    fn ends(&self) -> ((IpAddr, u16), (IpAddr, u16), bool) {
        let (source, destination) = (self.source.to_canonical(), self.destination.to_canonical());
        let pairs = match self.protocol {
            ICMP => &ICMP_PAIRS[..],
            ICMPV6 => &ICMPV6_PAIRS[..],
            _ if self.has_ports() => {
                return ((source, self.source_port), (destination, self.destination_port), false);
            }
            _ => return ((source, 0), (destination, 0), false),
        };
        let kind = self.source_port;
        let answer = pairs.iter().find_map(|&(question, answer)| match kind {
            _ if kind == question => Some(answer),
            _ if kind == answer => Some(question),
            _ => None,
        });
        let other = answer.unwrap_or(self.destination_port);
        ((source, kind), (destination, other), answer.is_none())
    }
}

fn hash_address(hash: &mut Sha1, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => hash.update(v4.octets()),
        IpAddr::V6(v6) => hash.update(v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuple(protocol: u8, source: (&str, u16), destination: (&str, u16)) -> FlowTuple {
        FlowTuple {
            protocol,
            source: source.0.parse().unwrap(),
            destination: destination.0.parse().unwrap(),
            source_port: source.1,
            destination_port: destination.1,
        }
    }

    #[test]
    fn published_flows_have_their_published_ids() {
        // Values that several independent implementations publish as their test vectors.
        for (flow, expected) in [
            (tuple(6, ("128.232.110.120", 34855), ("66.35.250.204", 80)), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (tuple(6, ("66.35.250.204", 80), ("128.232.110.120", 34855)), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (tuple(17, ("192.168.1.52", 54585), ("8.8.8.8", 53)), "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
            (tuple(132, ("192.168.170.8", 7), ("192.168.170.56", 7)), "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="),
            (tuple(1, ("192.168.0.89", 8), ("192.168.0.1", 0)), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            (tuple(1, ("192.168.0.1", 0), ("192.168.0.89", 8)), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            (tuple(58, ("fe80::260:97ff:fe07:69ea", 134), ("ff02::1", 0)), "1:pkvHqCL88/tg1k4cPigmZXUtL00="),
            (
                tuple(6, ("2001:470:e5bf:dead:4957:2174:e82c:4887", 63943), ("2607:f8b0:400c:c03::1a", 25)),
                "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
            ),
        ] {
            assert_eq!(flow.community_id(DEFAULT_SEED), expected, "{flow:?}");
        }
    }

    proptest! {
        #[test]
        fn both_sides_of_a_flow_give_it_one_name(
            protocol in prop::sample::select(vec![6u8, 17, 47, 132]),
            a: [u8; 4], b: [u8; 4], a_port: u16, b_port: u16, v6: bool,
        ) {
            let address = |octets: [u8; 4]| match v6 {
                false => IpAddr::from(octets),
                true => IpAddr::from([[0x20, 1, 0xd, 0xb8].as_slice(), &[0; 8], &octets].concat().try_into().map(|bytes: [u8; 16]| bytes).unwrap()),
            };
            let one = FlowTuple { protocol, source: address(a), destination: address(b), source_port: a_port, destination_port: b_port };
            let other = FlowTuple { protocol, source: address(b), destination: address(a), source_port: b_port, destination_port: a_port };
            prop_assert_eq!(one.community_id(0), other.community_id(0));
            if protocol != 47 && a_port != b_port {
                let another = FlowTuple { source_port: b_port, ..one };
                prop_assert_ne!(one.community_id(0), another.community_id(0));
            }
        }
    }
}
