//! What the kernel writes about an agent, and only the kernel.

use crate::auth::AUTH_ROOM;
use crate::endpoint::Address;
use crate::window::BUCKETS;

/// Who tripped a circuit, why and when, with the packet that did it. Written by the winner of the trip's
/// compare-exchange, [`Self::seq`] last: a record whose `seq` equals the ledger's `trip_seq` is complete.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TripRecord {
    /// Trip sequence that the record belongs to.
    pub seq: u64,
    /// Monotonic nanoseconds.
    pub at_ns: u64,
    /// Wire bytes in the window, the packet included.
    pub volume: u64,
    /// Unusual endpoints in the window, the packet's included.
    pub unusual_endpoints: u32,
    /// Failed authentications in the window, hundredths.
    pub auth_failures_centi: u32,
    /// Response time deviation, 100 µs.
    pub deviation_100us: u32,
    /// Requests in the window.
    pub requests: u32,
    /// Anomalous ones of them.
    pub anomalous_requests: u32,
    /// The epoch in which it tripped.
    pub epoch: u32,
    /// Row of the profile that judged.
    pub row: u32,
    /// Wire bytes of the packet.
    pub packet_bytes: u32,
    /// Remote address of the packet.
    pub remote: Address,
    /// The agent's port, host byte order.
    pub local_port: u16,
    /// The remote's port, host byte order.
    pub remote_port: u16,
    /// IP protocol of the packet.
    pub protocol: u8,
    /// A [`Cause`](crate::risk::Cause).
    pub cause: u8,
    /// A [`Direction`](crate::agent::Direction).
    pub direction: u8,
    /// [`Class`](crate::packet::Class) of the packet.
    pub class: u8,
    /// Terms of the score, per mille: auth, volume, endpoints, deviation, requests, anomalous, extra, total.
    pub terms: [u16; 8],
}

const _: () = assert!(size_of::<TripRecord>() == 96);

/// One agent's ledger. Each of its first cache lines has one use, so that what every packet reads is not where every
/// packet writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Counts the kernel's trips, 24 bits. Changed only by compare-exchange from acknowledged to the next.
    pub trip_seq: u64,
    /// Second (2^30 ns) of the latest notice of a drop.
    pub drop_noticed: u64,
    /// [`Stamp`](crate::window::Stamp) of when an endpoint was last counted as unusual: as long as that is not in
    /// the window, [`Self::unusual`] sums to nothing and need not be read.
    pub unusual_latest: u64,
    /// [`Gauge`](crate::window::Gauge) of failed authentications, hundredths.
    pub auth_gauge: u64,
    /// [`Gauge`](crate::window::Gauge) of the response times' mean absolute deviation, 100 µs; zero as long as there are
    /// fewer than [`RESPONSES_MIN`](crate::risk::RESPONSES_MIN).
    pub deviation_gauge: u64,
    /// [`Gauge`](crate::window::Gauge) of requests.
    pub requests_gauge: u64,
    /// [`Gauge`](crate::window::Gauge) of anomalous requests.
    pub anomalous_gauge: u64,
    /// What the probe's byte bucket owes: see [`Bucket`](crate::bucket::Bucket).
    pub probe_bucket: u64,
    /// Window of wire bytes.
    pub volume: [u64; BUCKETS],
    /// Window of unusual endpoints.
    pub unusual: [u64; BUCKETS],
    /// Window of failed authentications, hundredths.
    pub auth: [u64; BUCKETS],
    /// Window of the sum of response times' absolute deviations, 100 µs.
    pub deviation: [u64; BUCKETS],
    /// Window of response times measured.
    pub responses: [u64; BUCKETS],
    /// Window of requests.
    pub requests: [u64; BUCKETS],
    /// Window of anomalous requests.
    pub anomalous: [u64; BUCKETS],
    /// Notice budget: second in the upper half, notices in it in the lower.
    pub notices: u64,
    /// Notices lost: budget spent or ring full.
    pub notices_lost: u64,
    /// Sample budget, likewise.
    pub samples: u64,
    /// Samples lost.
    pub samples_lost: u64,
    /// Probe violations: epoch in the upper half, count in the lower.
    pub violations: u64,
    /// Packet sockets that were denied to the agent's processes.
    pub sockets_denied: u64,
    /// Endpoints inserted, by [`EndpointKind`](crate::endpoint::EndpointKind).
    pub endpoints_inserted: [u64; 2],
    /// Packets whose endpoint found no room.
    pub endpoint_overflow: u64,
    /// Connections inserted.
    pub flows_inserted: u64,
    /// Connections removed because they ended.
    pub flows_ended: u64,
    /// Packets whose connection found no room.
    pub flow_overflow: u64,
    /// Answers whose endpoint found no room for its response times.
    pub responses_overflow: u64,
    /// Response times measured, ever.
    pub responses_total: u64,
    /// Requests, ever.
    pub requests_total: u64,
    /// Anomalous requests, ever.
    pub anomalous_total: u64,
    /// Failed authentications, ever, by [`AuthKind`](crate::auth::AuthKind).
    pub auth_total: [u64; AUTH_ROOM],
    /// The latest trip.
    pub trip: TripRecord,
    /// Connections whose [`FlowRecord`](crate::flow::FlowRecord) found no room in the ring.
    pub flow_records_lost: u64,
    /// Budget of [`OpeningRecord`](crate::flow::OpeningRecord)s: second in the upper half, records in it in the lower.
    pub openings: u64,
    /// First requests that were not told: budget spent or ring full.
    pub openings_lost: u64,
    /// Packets recorded, ever: the latest one's sequence number.
    pub recorded: u64,
    /// Packets that were not recorded, because another CPU was still writing to their place.
    pub recorder_lost: u64,
    /// Monotonic nanoseconds at which the exact time was last asked for a packet that was recorded.
    pub recorder_time: u64,
    /// Explicit padding to whole cache lines.
    pub reserved: [u64; 6],
}

const _: () = assert!(size_of::<Ledger>() == 896);

/// Probe violations counted in `epoch`, from the ledger's word.
#[inline(always)]
#[must_use]
pub const fn violations_in(word: u64, epoch: u32) -> u32 {
    if (word >> 32) as u32 == epoch { word as u32 } else { 0 }
}

/// The ledger's word with one violation more in `epoch`.
#[inline(always)]
#[must_use]
pub const fn one_more_violation(word: u64, epoch: u32) -> u64 {
    (epoch as u64) << 32 | violations_in(word, epoch).saturating_add(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_start_again_with_an_epoch() {
        let two = one_more_violation(one_more_violation(0, 7), 7);
        assert_eq!(violations_in(two, 7), 2);
        assert_eq!(violations_in(two, 8), 0);
        assert_eq!(violations_in(one_more_violation(two, 8), 8), 1);
    }
}
