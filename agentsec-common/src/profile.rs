//! An agent's expected behaviour, compiled by the daemon into a row that the kernel reads.

use crate::bucket::Bucket;
use crate::window::BucketClock;

/// Set in [`Profile::flags`] of every row in use.
pub const PRESENT: u16 = 1;
/// Outbound bytes count towards the volume.
pub const COUNT_OUTBOUND: u16 = 1 << 1;
/// Inbound bytes count towards the volume.
pub const COUNT_INBOUND: u16 = 1 << 2;

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
}

impl Weights {
    /// The article's weights.
    pub const DEFAULT: Self =
        Self { auth: 300, volume: 400, endpoints: 200, endpoints_cap: 300, deviation: 200 };
}

/// One row. Never changed while an agent's policy refers to it. Every number of bytes is wire bytes, every
/// count is over the sliding window, and every comparison is "greater than".
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// [`PRESENT`], [`COUNT_OUTBOUND`], [`COUNT_INBOUND`].
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
    /// Failed authentications: limit, or `u32::MAX`.
    pub max_auth_failures: u32,
    /// Failed authentications above which the auth term counts.
    pub anomalous_auth_failures: u32,
    /// Response time deviation, in units of 100 µs, above which its term counts.
    pub anomalous_deviation_100us: u32,
    /// Number of typical endpoints.
    pub typical_endpoints: u32,
    /// The circuit trips when the score exceeds this, per mille.
    pub quarantine_threshold: u16,
    /// Weights of the score's terms.
    pub weights: Weights,
    /// Violations while HALF_OPEN that trip the circuit.
    pub probe_violations: u32,
    /// Most endpoints of one kind in the agent's list.
    pub endpoint_cap: u32,
    /// What an agent may send and receive while HALF_OPEN. Here the second cache line begins, which a CLOSED
    /// agent's packets do not need.
    pub probe: Bucket,
    /// Explicit padding to whole cache lines.
    pub reserved: [u64; 6],
}

const _: () = assert!(size_of::<Profile>() == 128);

impl Profile {
    /// Names the content of `row` while this profile is in it.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self, row: u16) -> u32 {
        (self.generation as u32) << 16 | row as u32
    }

    /// The clock of this profile's windows.
    #[inline(always)]
    #[must_use]
    pub const fn bucket_clock(&self) -> BucketClock {
        BucketClock::from_multiplier(self.bucket_multiplier)
    }
}
