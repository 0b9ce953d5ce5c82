//! Frames of one agent, both ways. Checksums of transport headers are left out: the kernel programs run before
//! anybody checks them, and do not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agentsec_common::agent::Direction;
use agentsec_common::endpoint::{Address, EndpointKey, EndpointKind};
use agentsec_common::packet::protocol;

use super::arena::Agent;
use crate::traffic::frames::{IPV4, IPV6, Path, ipv4, ipv6};

/// The agent's IPv4 address.
pub const AGENT4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The agent's IPv6 address.
pub const AGENT6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);

/// TCP flags.
pub mod flags {
    /// Opens.
    pub const SYN: u8 = 0x02;
    /// Answers an opening.
    pub const SYN_ACK: u8 = 0x12;
    /// Everything between.
    pub const ACK: u8 = 0x10;
    /// Refuses.
    pub const RST: u8 = 0x14;
}

/// The agent's side of a link, and the other one.
const AGENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Ethernet addresses of a frame going this way.
#[must_use]
pub fn path(direction: Direction) -> Path {
    match direction {
        Direction::Outbound => Path { from: AGENT_MAC, to: FAR_MAC },
        Direction::Inbound => Path { from: FAR_MAC, to: AGENT_MAC },
    }
}

/// A frame with an IP packet between the agent and `remote`.
#[must_use]
pub fn packet(direction: Direction, remote: impl Into<IpAddr>, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (remote.into(), direction) {
        (IpAddr::V4(remote), Direction::Outbound) => {
            path(direction).frame(IPV4, &ipv4(AGENT4, remote, protocol, payload))
        }
        (IpAddr::V4(remote), Direction::Inbound) => {
            path(direction).frame(IPV4, &ipv4(remote, AGENT4, protocol, payload))
        }
        (IpAddr::V6(remote), Direction::Outbound) => {
            path(direction).frame(IPV6, &ipv6(AGENT6, remote, protocol, payload))
        }
        (IpAddr::V6(remote), Direction::Inbound) => {
            path(direction).frame(IPV6, &ipv6(remote, AGENT6, protocol, payload))
        }
    }
}

/// A flow between a port of the agent and a port of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The agent's port.
    pub local_port: u16,
    /// Somebody else.
    pub remote: IpAddr,
    /// Their port.
    pub remote_port: u16,
}

impl Flow {
    /// A flow with a server, from an ephemeral port of the agent.
    #[must_use]
    pub fn to(remote: impl Into<IpAddr>, remote_port: u16) -> Self {
        Self { local_port: 40_000, remote: remote.into(), remote_port }
    }

    /// A flow with a client, to a port that the agent serves.
    #[must_use]
    pub fn from(remote: impl Into<IpAddr>, remote_port: u16, local_port: u16) -> Self {
        Self { local_port, remote: remote.into(), remote_port }
    }

    /// A TCP segment.
    #[must_use]
    pub fn tcp(&self, direction: Direction, flags: u8, payload: &[u8]) -> Vec<u8> {
        let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        packet(direction, self.remote, protocol::TCP, &[&self.ports(direction)[..], &rest, payload].concat())
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(&self, direction: Direction, payload: &[u8]) -> Vec<u8> {
        let length = (8 + payload.len() as u16).to_be_bytes();
        let datagram = [&self.ports(direction)[..], &length, &[0, 0], payload].concat();
        packet(direction, self.remote, protocol::UDP, &datagram)
    }

    /// A UDP datagram in a frame of exactly `bytes`.
    ///
    /// # Panics
    /// When the headers alone are longer.
    #[must_use]
    pub fn udp_of(&self, direction: Direction, bytes: usize) -> Vec<u8> {
        let headers = self.udp(direction, &[]).len();
        self.udp(direction, &vec![0x5a; bytes.checked_sub(headers).expect("room for the headers")])
    }

    /// Ports as they lie in TCP, UDP and SCTP.
    #[must_use]
    pub fn ports(&self, direction: Direction) -> [u8; 4] {
        let (from, to) = match direction {
            Direction::Outbound => (self.local_port, self.remote_port),
            Direction::Inbound => (self.remote_port, self.local_port),
        };
        let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
        [a, b, c, d]
    }

    /// The flow's endpoint, if the agent opened it.
    #[must_use]
    pub fn opened(&self, agent: &Agent, protocol: u8) -> EndpointKey {
        EndpointKey {
            slot: agent.slot,
            port: self.remote_port,
            protocol,
            kind: EndpointKind::Opened as u8,
            remote: address(self.remote),
        }
    }

    /// The flow's endpoint, if the agent accepted it.
    #[must_use]
    pub fn accepted(&self, agent: &Agent, protocol: u8) -> EndpointKey {
        EndpointKey {
            port: self.local_port,
            kind: EndpointKind::Accepted as u8,
            ..self.opened(agent, protocol)
        }
    }
}

/// The nth of 65,536 addresses that nobody expects.
#[must_use]
pub const fn stranger(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(198, 18, high, low))
}

/// An address as it lies in maps.
#[must_use]
pub fn address(address: IpAddr) -> Address {
    let v6 = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(v6.octets().chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// `frame` with other bytes at an offset.
#[must_use]
pub fn with(frame: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}
