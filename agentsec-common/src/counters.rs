//! Exact counts of packets and wire bytes, one copy per CPU.

/// Passed and dropped, one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Layer-2 wire bytes that passed.
    pub bytes: u64,
    /// Packets that passed; a GSO super-packet counts as the segments it becomes.
    pub packets: u64,
    /// Layer-2 wire bytes that were dropped.
    pub dropped_bytes: u64,
    /// Packets that were dropped.
    pub dropped_packets: u64,
}

/// One agent's counts on one CPU: the first cache line is all that an OPEN agent touches.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By [`Direction`](crate::agent::Direction): outbound, inbound.
    pub traffic: [Traffic; 2],
    /// Frames judged, by [`Class`](crate::packet::Class).
    pub classes: [u64; 6],
    /// Packets that shadow mode let pass and enforcement would have dropped.
    pub would_drop_packets: u64,
    /// Their wire bytes.
    pub would_drop_bytes: u64,
}

const _: () = assert!(size_of::<Counters>() == 128);

impl Counters {
    /// Adds another CPU's copy.
    pub fn add(&mut self, other: &Self) {
        for (sum, part) in self.traffic.iter_mut().zip(&other.traffic) {
            sum.bytes += part.bytes;
            sum.packets += part.packets;
            sum.dropped_bytes += part.dropped_bytes;
            sum.dropped_packets += part.dropped_packets;
        }
        for (sum, part) in self.classes.iter_mut().zip(&other.classes) {
            *sum += part;
        }
        self.would_drop_packets += other.would_drop_packets;
        self.would_drop_bytes += other.would_drop_bytes;
    }
}

/// Packets at a hook of ours that no known agent owns. They are dropped: an interface with our programs on it
/// carries an agent, even when the daemon no longer knows which (it was renumbered in another namespace, say).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strays {
    /// The interface has no identity.
    pub unidentified_packets: u64,
    /// The slot has no policy, or its profile row does not exist.
    pub unpoliced_packets: u64,
}

const _: () = assert!(size_of::<Strays>() == 16);
