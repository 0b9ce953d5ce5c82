//! A TCP connection of an agent, segment by segment, with the sequence numbers that both sides would use.

use agentsec_common::agent::Direction::{self, Inbound, Outbound};
use agentsec_common::packet::protocol;
use anyhow::Result;

use super::frames::{Flow, packet};
use super::{Arena, Fate};

/// TCP flags as they lie in the header.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// One segment, all of which can be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Which way it goes.
    pub direction: Direction,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgment: u32,
    /// Flags as they lie in the header.
    pub flags: u8,
    /// Payload.
    pub payload: &'a [u8],
}

/// A connection that the agent opens.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    /// Between whom.
    pub flow: Flow,
    /// The agent's next sequence number.
    pub agent: u32,
    /// The remote's next sequence number.
    pub remote: u32,
}

impl Talk {
    /// A connection before its first segment.
    #[must_use]
    pub const fn new(flow: Flow) -> Self {
        // Both wrap within a few segments.
        Self { flow, agent: u32::MAX - 99, remote: u32::MAX - 199 }
    }

    /// The same after the handshake.
    pub fn opened(arena: &Arena, flow: Flow) -> Result<Self> {
        let mut talk = Self::new(flow);
        talk.knock(arena)?;
        talk.accept(arena)?;
        Ok(talk)
    }

    /// The agent's SYN.
    pub fn knock(&mut self, arena: &Arena) -> Result<Fate> {
        let fate = self.put(arena, Outbound, SYN, b"");
        self.agent = self.agent.wrapping_add(1);
        fate
    }

    /// The remote's SYN-ACK, and the agent's ACK.
    pub fn accept(&mut self, arena: &Arena) -> Result<Fate> {
        let fate = self.put(arena, Inbound, SYN | ACK, b"");
        self.remote = self.remote.wrapping_add(1);
        self.put(arena, Outbound, ACK, b"")?;
        fate
    }

    /// A message of the agent in one segment.
    pub fn say(&mut self, arena: &Arena, payload: &[u8]) -> Result<Fate> {
        let fate = self.put(arena, Outbound, PSH | ACK, payload);
        self.agent = self.agent.wrapping_add(payload.len() as u32);
        fate
    }

    /// A part of a message of the agent that goes on in the next segment.
    pub fn begin_to_say(&mut self, arena: &Arena, payload: &[u8]) -> Result<Fate> {
        let fate = self.put(arena, Outbound, ACK, payload);
        self.agent = self.agent.wrapping_add(payload.len() as u32);
        fate
    }

    /// A segment of the remote.
    pub fn hear(&mut self, arena: &Arena, payload: &[u8]) -> Result<Fate> {
        let fate = self.put(arena, Inbound, PSH | ACK, payload);
        self.remote = self.remote.wrapping_add(payload.len() as u32);
        fate
    }

    /// A reset by the remote, with the number that the agent waits for.
    pub fn reset(&self, arena: &Arena) -> Result<Fate> {
        self.put(arena, Inbound, RST | ACK, b"")
    }

    /// Both sides close.
    pub fn close(&mut self, arena: &Arena) -> Result<()> {
        self.put(arena, Outbound, FIN | ACK, b"")?;
        self.agent = self.agent.wrapping_add(1);
        self.put(arena, Inbound, FIN | ACK, b"")?;
        self.remote = self.remote.wrapping_add(1);
        self.put(arena, Outbound, ACK, b"").map(drop)
    }

    fn put(&self, arena: &Arena, direction: Direction, flags: u8, payload: &[u8]) -> Result<Fate> {
        let (sequence, acknowledgment) = match direction {
            Outbound => (self.agent, if flags & ACK != 0 { self.remote } else { 0 }),
            Inbound => (self.remote, self.agent),
        };
        self.send(arena, Segment { direction, sequence, acknowledgment, flags, payload })
    }

    /// Any segment; the numbers of the connection stay.
    pub fn send(&self, arena: &Arena, segment: Segment<'_>) -> Result<Fate> {
        let Segment { direction, sequence, acknowledgment, flags, payload } = segment;
        let numbers = [sequence.to_be_bytes(), acknowledgment.to_be_bytes()].concat();
        let rest = [0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        let tcp = [&self.flow.ports(direction)[..], &numbers, &rest, payload].concat();
        let frame = packet(direction, self.flow.remote, protocol::TCP, &tcp);
        match direction {
            Outbound => arena.send(frame),
            Inbound => arena.receive(frame),
        }
    }
}
