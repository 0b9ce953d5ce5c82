//! A server made of packets: no kernel keeps its segments in order. And somebody in between, who sends in others' names.
//!
//! [`HostileServer`] has an address that nobody's kernel owns, reached through the world of a routed lab. It shakes
//! hands properly, acknowledges what its client sends, and says exactly the segments of its script.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use nix::sys::time::TimeVal;

use super::segments::{ACK, FIN, PSH, RST, SYN, Segment};
use crate::lab::{Lab, Node};
use crate::link::ip_batch;
use crate::traffic::TICK;
use crate::traffic::frames::{IPV4, Path, udp4};
use crate::traffic::packet::{PacketSocket, Way, bound};
use crate::traffic::task::{Stop, Task};

/// Where every hostile server is.
pub const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 66), 80);
/// Connections that it knows at the same time; it does not answer more.
const MOST_AT_ONCE: usize = 256;
/// The number of the first byte of each connection: it wraps soon.
const FIRST: u32 = u32::MAX - 100;

/// One segment of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forged {
    /// Where its first byte is, counted from what the server has said before this part of the script.
    pub offset: i32,
    /// Its flags.
    pub flags: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Forged {
    /// Data at this place.
    #[must_use]
    pub fn data(offset: i32, payload: impl Into<Vec<u8>>) -> Self {
        Self { offset, flags: ACK | PSH, payload: payload.into() }
    }

    /// A reset at this place; only at 0 it is a good one.
    #[must_use]
    pub fn reset(offset: i32) -> Self {
        Self { offset, flags: RST, payload: Vec::new() }
    }

    /// `bytes` in order, in segments of `length` bytes.
    ///
    /// # Panics
    /// When the length is nothing.
    #[must_use]
    pub fn stream(bytes: &[u8], length: usize) -> Vec<Self> {
        let piece = |(index, piece): (usize, &[u8])| Self::data((index * length) as i32, piece);
        bytes.chunks(length).enumerate().map(piece).collect()
    }
}

/// What a hostile server says on each connection.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Once the connection is there, before any request.
    pub greeting: Vec<Forged>,
    /// To each segment with data, in order; then nothing more but acknowledgements.
    pub answers: Vec<Vec<Forged>>,
}

/// A server that says its script until it is dropped or its time is over.
#[derive(Debug)]
pub struct HostileServer {
    requests: Arc<AtomicU64>,
    _task: Task<()>,
}

impl HostileServer {
    /// Starts the one hostile server of a routed lab, at [`ADDRESS`]. It listens when this returns.
    pub fn start(lab: &Lab, longest: Duration, script: Script) -> Result<Self> {
        let world = lab.world();
        ip_batch(lab.host(), &format!("route replace {} via {}\n", ADDRESS.ip(), world.v4))?;
        let socket = world.namespace.run(|| bound(&world.interface, IPV4))?;
        let tick = TimeVal::new(0, TICK.as_micros() as i64);
        setsockopt(&socket, ReceiveTimeout, &tick).context("setting a timeout")?;
        let requests = Arc::<AtomicU64>::default();
        let link = Link { socket, path: Path { from: world.mac, to: world.host_mac } };
        let counter = Arc::clone(&requests);
        let task = Task::start(&world.namespace, "hostile-server", longest, move |stop| {
            serve(&link, &script, stop, &counter);
        })?;
        Ok(Self { requests, _task: task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        ADDRESS.into()
    }

    /// Segments with data that came in order so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

struct Link {
    socket: OwnedFd,
    path: Path,
}

impl Link {
    /// The next segment to the server; none if there is none for a tick.
    fn receive(&self) -> Option<Segment> {
        let mut buffer = [0; 2048];
        let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok()?;
        Segment::parse(&buffer[..length]).filter(|segment| segment.to == (*ADDRESS.ip(), ADDRESS.port()))
    }

    fn send(&self, segment: &Segment) {
        // A frame that the kernel does not take is lost, as any frame can be.
        let _ = send(self.socket.as_raw_fd(), &segment.frame(self.path), MsgFlags::empty());
    }
}

/// One connection.
struct Flow {
    client: (Ipv4Addr, u16),
    /// The client's next byte.
    expected: u32,
    /// The server's next byte.
    next: u32,
    greeted: bool,
    answered: usize,
}

fn serve(link: &Link, script: &Script, stop: &Stop, requests: &AtomicU64) {
    let mut flows = HashMap::new();
    while !stop.now() {
        let Some(segment) = link.receive() else { continue };
        let client = segment.from;
        if segment.flags & RST != 0 {
            flows.remove(&client);
        } else if segment.flags & SYN != 0 {
            if flows.len() < MOST_AT_ONCE || flows.contains_key(&client) {
                flows.insert(client, Flow::shake_hands(&segment, link));
            }
        } else if let Some(flow) = flows.get_mut(&client) {
            flow.take(&segment, link, script, requests);
        }
    }
}

impl Flow {
    fn shake_hands(syn: &Segment, link: &Link) -> Self {
        let mut flow =
            Self { client: syn.from, expected: syn.end(), next: FIRST, greeted: false, answered: 0 };
        link.send(&flow.segment(0, SYN | ACK, Vec::new()));
        flow.next = flow.next.wrapping_add(1);
        flow
    }

    fn take(&mut self, segment: &Segment, link: &Link, script: &Script, requests: &AtomicU64) {
        if !self.greeted {
            self.greeted = true;
            self.say(&script.greeting, link);
        }
        if segment.end() == segment.sequence {
            return;
        }
        if segment.sequence != self.expected {
            // It comes again, or comes too early: the client must hear what is missing.
            link.send(&self.segment(0, ACK, Vec::new()));
            return;
        }
        self.expected = segment.end();
        if !segment.payload.is_empty() {
            requests.fetch_add(1, Ordering::Relaxed);
            let answer = script.answers.get(self.answered).map_or(&[][..], Vec::as_slice);
            self.answered += 1;
            self.say(answer, link);
        }
        let farewell = segment.flags & FIN;
        link.send(&self.segment(0, ACK | farewell, Vec::new()));
        self.next = self.next.wrapping_add(u32::from(farewell != 0));
    }

    /// Says these segments as they are. What they say nearest to the stream's end is where the next part goes on.
    fn say(&mut self, forged: &[Forged], link: &Link) {
        for one in forged {
            link.send(&self.segment(one.offset, one.flags, one.payload.clone()));
        }
        self.next = self.next.wrapping_add(said_in_order(forged));
    }

    fn segment(&self, offset: i32, flags: u8, payload: Vec<u8>) -> Segment {
        Segment {
            from: (*ADDRESS.ip(), ADDRESS.port()),
            to: self.client,
            sequence: self.next.wrapping_add_signed(offset),
            acknowledged: if flags & ACK == 0 { 0 } else { self.expected },
            flags,
            payload,
        }
    }
}

/// How many bytes from 0 on these segments say without a gap, in whatever order.
fn said_in_order(forged: &[Forged]) -> u32 {
    let range = |one: &Forged| (i64::from(one.offset), i64::from(one.offset) + one.payload.len() as i64);
    let mut ranges: Vec<_> = forged.iter().filter(|one| one.flags & RST == 0).map(range).collect();
    ranges.sort_unstable();
    let contiguous = |end: i64, (from, to): (i64, i64)| if from <= end { end.max(to) } else { end };
    ranges.into_iter().fold(0, contiguous) as u32
}

/// Somebody in between who can send segments in anybody's name.
#[derive(Debug)]
pub struct Injector {
    socket: PacketSocket,
    path: Path,
}

impl Injector {
    /// Sends from a node to the host, which routes it on.
    pub fn open(node: &Node) -> Result<Self> {
        let socket = PacketSocket::open(&node.namespace, &node.interface, Way::TrafficControl)?;
        Ok(Self { socket, path: Path { from: node.mac, to: node.host_mac } })
    }

    /// Sends one segment.
    pub fn send(&self, segment: &Segment) -> io::Result<()> {
        self.socket.send(&segment.frame(self.path)).map(drop)
    }

    /// Starts sending `count` equal datagrams in the name of `from`, as fast as it goes: answers to no question.
    /// Returns how many the kernel took.
    pub fn flood_datagrams(
        self,
        from: (Ipv4Addr, u16),
        to: (Ipv4Addr, u16),
        payload: &[u8],
        count: u64,
        longest: Duration,
    ) -> Result<Task<u64>> {
        let frame = self.path.frame(IPV4, &udp4(from, to, payload));
        self.socket.flood(frame, count, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_no_gap_before_it_is_said() {
        let data = |offset, length: usize| Forged::data(offset, vec![b'x'; length]);
        let cases = [
            ("nothing", vec![], 0),
            ("two pieces the wrong way round", vec![data(5, 5), data(0, 5)], 10),
            ("a gap", vec![data(0, 5), data(6, 5)], 5),
            ("overlaps", vec![data(0, 5), data(3, 5), data(0, 2)], 8),
            ("before the beginning", vec![data(-10, 5)], 0),
            ("across the beginning", vec![data(-3, 5)], 2),
            ("a reset", vec![data(0, 5), Forged::reset(5)], 5),
        ];
        for (what, forged, said) in cases {
            assert_eq!(said_in_order(&forged), said, "{what}");
        }
    }
}
