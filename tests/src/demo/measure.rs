//! What really happened at the hook, told by both of its sides and not by the daemon.
//!
//! Two captures hold every frame that the exfiltrating agent sends, with the kernel's timestamps:
//!
//! ```text
//!  agent eth0 ──▶ agent-2 [presented] ▶ AgentSec's hook ▶ routing ▶ world0 [passed] ──▶ eth0 world
//! ```
//!
//! On the host's end of the agent's link the kernel shows a frame to packet sockets before TCX ingress, and on `world0`
//! when it is handed to the next link. The lab has no super-packets, so a frame is a packet. A presented frame is
//! found again among the passed ones by what routing does not change: IP identification, protocol, addresses,
//! ports, sequence numbers and the datagram's own number.
//!
//! The first presented frame that did not pass marks the trip. What passed beyond the frames presented before it,
//! passed after the trip; on several CPUs those are the verdicts that were in flight. Frames that the first capture
//! had to skip can only make that number larger, and a frame lost between the hook and `world0` as well: errors of the
//! measurement count against AgentSec.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::plan::LONGEST;
use crate::lab::{Lab, Node};
use crate::link;
use crate::traffic::capture::{Capture, Captured, Frame, Keep};

/// Bytes of a frame that tell it from all others.
const HEAD: usize = 80;

/// The captures on both sides of the exfiltrating agent's hook.
#[derive(Debug)]
pub(super) struct Gauge {
    presented: Result<Capture, Captured>,
    passed: Capture,
    interface: String,
    source: Ipv4Addr,
}

/// What they came to. Absent values are those of a trip that did not happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Measured {
    /// Wire bytes that passed, all of them since the daemon began to count.
    pub(super) bytes_passed: u64,
    /// Of those, bytes in UDP datagrams.
    pub(super) udp_bytes_passed: u64,
    /// Frames presented to the hook that never came out of it.
    pub(super) packets_dropped: u64,
    /// Frames that passed beyond those presented before the first dropped one.
    pub(super) packets_after_trip: Option<u64>,
    /// From the frame that crosses the limit to the first dropped frame; 0 when that is the same frame, or one
    /// that was in flight beside it.
    pub(super) ns_crossing_to_first_drop: Option<u64>,
    /// Frames that the second capture missed or had no room for: unless 0, nothing of this can be relied on.
    pub(super) lost: u64,
}

impl Gauge {
    /// Starts both; no frame of the agent may have been sent before.
    pub(super) fn start(lab: &Lab, agent: &Node) -> Result<Self> {
        // What comes later than these is long after the trip, and only counted.
        let keep = Keep { frames: 100_000, bytes: HEAD };
        Ok(Self {
            presented: Ok(Capture::start(lab.host(), &agent.host_interface, LONGEST, keep)?),
            passed: Capture::start(lab.host(), &lab.world().host_interface, LONGEST, keep)?,
            interface: agent.host_interface.clone(),
            source: agent.v4,
        })
    }

    /// Ends the capture before the hook, once the trip is behind us: a flood costs CPUs that others need.
    pub(super) fn tripped(self) -> Result<Self> {
        let presented = match self.presented {
            Ok(capture) => capture.stop()?,
            Err(captured) => captured,
        };
        Ok(Self { presented: Err(presented), ..self })
    }

    /// Ends the rest, when the agent sends no more.
    pub(super) fn finish(self, lab: &Lab, limit: u64) -> Result<Measured> {
        let Self { presented: Err(presented), passed, interface, source } = self.tripped()? else {
            unreachable!("the first capture has been stopped")
        };
        let passed = passed.stop()?;
        let seen = passed.arriving.frames + passed.departing.frames;
        let lost = passed.lost + seen - passed.frames.len() as u64;
        // The interface counts a frame as received exactly when it is presented to the hook.
        let all = link::counters(lab.host(), &interface)?.rx_packets;
        let presented: Vec<_> =
            presented.frames.iter().filter(|frame| !frame.departing).map(Mark::of).collect();
        let mut sent = passed.frames.iter().filter(|frame| frame.departing).map(Mark::of).collect::<Vec<_>>();
        sent.retain(|mark| mark.source() == Some(source));
        // A frame that was missed may have passed.
        let measured = judge(&presented, &sent, all.saturating_sub(lost), limit);
        Ok(Measured { lost, ..measured })
    }
}

/// A frame as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    at: SystemTime,
    bytes: u64,
    ip: Vec<u8>,
}

impl Mark {
    /// Without the Ethernet header, the TTL and the header checksum, all of which routing changes.
    fn of(frame: &Frame) -> Self {
        let mut ip = frame.bytes.get(14..).unwrap_or_default().to_vec();
        for changed in [8, 10, 11] {
            if let Some(byte) = ip.get_mut(changed) {
                *byte = 0;
            }
        }
        Self { at: frame.at, bytes: frame.length as u64, ip }
    }

    fn source(&self) -> Option<Ipv4Addr> {
        let source: [u8; 4] = self.ip.get(12..16)?.try_into().ok()?;
        (self.ip[0] >> 4 == 4).then_some(source.into())
    }

    fn is_udp(&self) -> bool {
        self.ip.get(9) == Some(&17)
    }
}

fn judge(presented: &[Mark], passed: &[Mark], all: u64, limit: u64) -> Measured {
    let bytes = |marks: &mut dyn Iterator<Item = &Mark>| marks.map(|mark| mark.bytes).sum();
    let first_drop = first_dropped(presented, passed);
    let crossing = crossing(presented, limit);
    let after = first_drop.map(|before| (passed.len() as u64).saturating_sub(before as u64));
    let delay = |(drop, crossing): (usize, usize)| {
        let later = presented[drop].at.duration_since(presented[crossing].at).unwrap_or(Duration::ZERO);
        if drop <= crossing { 0 } else { later.as_nanos() as u64 }
    };
    Measured {
        bytes_passed: bytes(&mut passed.iter()),
        udp_bytes_passed: bytes(&mut passed.iter().filter(|mark| mark.is_udp())),
        packets_dropped: all.saturating_sub(passed.len() as u64),
        packets_after_trip: after,
        ns_crossing_to_first_drop: first_drop.zip(crossing).map(delay),
        lost: 0,
    }
}

/// Index of the first presented frame that is not among the passed ones.
fn first_dropped(presented: &[Mark], passed: &[Mark]) -> Option<usize> {
    let mut left = HashMap::<&[u8], u64>::new();
    for mark in passed {
        *left.entry(&mark.ip).or_default() += 1;
    }
    presented.iter().position(|mark| match left.get_mut(mark.ip.as_slice()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    })
}

/// Index of the presented frame with which all so far are more than the limit.
fn crossing(presented: &[Mark], limit: u64) -> Option<usize> {
    let mut sum = 0;
    presented.iter().position(|mark| {
        sum += mark.bytes;
        sum > limit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(numbers: impl IntoIterator<Item = u8>) -> Vec<Mark> {
        let at = |number| SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::from(number) * 10);
        numbers.into_iter().map(|number| Mark { at: at(number), bytes: 100, ip: vec![number] }).collect()
    }

    #[test]
    fn the_very_packet_that_crosses_is_the_first_dropped() {
        let measured = judge(&marks(0..10), &marks(0..4), 12, 450);
        let want = Measured {
            bytes_passed: 400,
            packets_dropped: 8,
            packets_after_trip: Some(0),
            ns_crossing_to_first_drop: Some(0),
            ..Measured::default()
        };
        assert_eq!(measured, want);
    }

    #[test]
    fn what_passes_after_the_first_drop_is_found() {
        let measured = judge(&marks(0..10), &marks([0, 1, 2, 3, 5]), 10, 450);
        assert_eq!((measured.packets_after_trip, measured.bytes_passed), (Some(1), 500));
    }

    #[test]
    fn a_late_drop_is_measured() {
        let measured = judge(&marks(0..10), &marks(0..7), 10, 450);
        assert_eq!(measured.ns_crossing_to_first_drop, Some(30));
        assert_eq!(measured.packets_after_trip, Some(0));
    }

    #[test]
    fn without_a_trip_there_is_nothing_to_tell() {
        let measured = judge(&marks(0..3), &marks(0..3), 3, 450);
        assert_eq!((measured.packets_after_trip, measured.ns_crossing_to_first_drop), (None, None));
    }
}
