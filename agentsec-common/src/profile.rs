//! An agent's expected behaviour, compiled by the daemon into a row that the kernel reads.

use crate::auth::AUTH_ROOM;
use crate::bucket::Bucket;
use crate::window::BucketClock;

/// Set in [`Profile::flags`] of every row in use.
pub const PRESENT: u16 = 1;
/// Outbound bytes count towards the volume.
pub const COUNT_OUTBOUND: u16 = 1 << 1;
/// Inbound bytes count towards the volume.
pub const COUNT_INBOUND: u16 = 1 << 2;
/// Connections are followed: response times, failed authentications and requests are measured.
pub const FOLLOW_FLOWS: u16 = 1 << 3;
/// Requests, or anomalous ones, have a weight.
pub const JUDGE_REQUESTS: u16 = 1 << 4;

/// What connections were is told when they end, and their first requests. Only with [`FOLLOW_FLOWS`].
pub const TELL_FLOWS: u16 = 1 << 5;

/// A limit that is never exceeded.
pub const NO_LIMIT: u64 = u64::MAX;

/// What each term of the score contributes, per mille.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// When authentication failures exceed their threshold.
    pub auth: u16,
    /// When the volume exceeds its threshold.
    pub volume: u16,
    /// Per unusual endpoint, divided by the number of typical ones.
    pub endpoints: u16,
    /// The most that unusual endpoints contribute.
    pub endpoints_cap: u16,
    /// When the response time deviation exceeds its threshold.
    pub deviation: u16,
    /// When requests exceed their threshold.
    pub requests: u16,
    /// When anomalous requests exceed theirs.
    pub anomalous: u16,
}

impl Weights {
    /// The article's weights. It counts requests and anomalous ones, and weighs neither.
    pub const DEFAULT: Self = Self {
        auth: 300,
        volume: 400,
        endpoints: 200,
        endpoints_cap: 300,
        deviation: 200,
        requests: 0,
        anomalous: 0,
    };
}

/// One row. Never changed while an agent's policy refers to it. Every number of bytes is wire bytes, every
/// count is over the sliding window, and every comparison is "greater than".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// [`PRESENT`] and the other flags.
    pub flags: u16,
    /// Counts the profiles that this row has held, so that answers cached for an earlier one are not taken for
    /// this one's.
    pub generation: u16,
    /// Turns a time into a window's bucket: see [`BucketClock`].
    pub bucket_multiplier: u32,
    /// Bytes: limit, or [`NO_LIMIT`].
    pub max_volume: u64,
    /// Bytes above which the volume term counts (expected volume times the anomalous ratio).
    pub anomalous_volume: u64,
    /// Endpoints: limit, or `u32::MAX`.
    pub max_unusual_endpoints: u32,
    /// Hundredths of a failed authentication: limit, or `u32::MAX`.
    pub max_auth_failures_centi: u32,
    /// Hundredths of a failed authentication above which the auth term counts.
    pub anomalous_auth_failures_centi: u32,
    /// Response time deviation: limit, in units of 100 µs, or `u32::MAX`.
    pub max_deviation_100us: u32,
    /// Response time deviation, in units of 100 µs, above which its term counts.
    pub anomalous_deviation_100us: u32,
    /// Number of typical endpoints.
    pub typical_endpoints: u32,
    /// The circuit trips when the score exceeds this, per mille.
    pub quarantine_threshold: u16,
    /// Weights of the score's terms.
    pub weights: Weights,
    /// Requests above which their term counts. Here the second cache line begins, which packets of CLOSED agents need
    /// only for what is new: an endpoint, a connection, an answer.
    pub anomalous_rate: u32,
    /// Anomalous requests above which their term counts.
    pub anomalous_requests: u32,
    /// Violations while HALF_OPEN that trip the circuit.
    pub probe_violations: u32,
    /// Most endpoints of one kind in the agent's list.
    pub endpoint_cap: u32,
    /// Most connections in the agent's list.
    pub flow_cap: u32,
    /// Normal response time, in units of 100 µs.
    pub normal_response_100us: u32,
    /// What an agent may send and receive while HALF_OPEN.
    pub probe: Bucket,
    /// Hundredths of a failed authentication that one is, by [`AuthKind`](crate::auth::AuthKind).
    pub auth_weights_centi: [u16; AUTH_ROOM],
    /// Explicit padding to a whole cache line.
    pub reserved: u64,
    /// Remote ports whose connections' payload is looked at.
    pub read_ports: [PortRange; READ_PORTS],
    /// Explicit padding to a whole cache line.
    pub reserved_more: [u64; 4],
}

const _: () = assert!(size_of::<Profile>() == 192);

/// Ranges in [`Profile::read_ports`].
pub const READ_PORTS: usize = 8;

/// Ports from one to another, both included.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl PortRange {
    /// No port.
    pub const NONE: Self = Self { from: 1, to: 0 };
    /// Every port.
    pub const ANY: Self = Self { from: 0, to: u16::MAX };
}

impl Profile {
    /// Names the content of `row` while this profile is in it.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self, row: u16) -> u32 {
        (self.generation as u32) << 16 | row as u32
    }

    /// Whether payload of connections to this remote port is looked at.
    #[inline(always)]
    #[must_use]
    pub const fn reads_port(&self, port: u16) -> bool {
        let mut index = 0;
        while index < READ_PORTS {
            let PortRange { from, to } = self.read_ports[index];
            if from <= port && port <= to {
                return true;
            }
            index += 1;
        }
        false
    }

    /// The clock of this profile's windows.
    #[inline(always)]
    #[must_use]
    pub const fn bucket_clock(&self) -> BucketClock {
        BucketClock::from_multiplier(self.bucket_multiplier)
    }
}
