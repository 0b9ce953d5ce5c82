//! What is too deep for the kernel: the first bytes of an answer, for the daemon to read.

use crate::flow::FlowKey;

/// Payload in a sample, at most.
pub const SAMPLE_BYTES: usize = 256;
/// Samples per agent and second (2^30 ns).
pub const SAMPLES_PER_SECOND: u32 = 256;
/// Samples of one connection: of HTTP/2 each answer's headers up to this, since later ones refer to earlier ones.
pub const SAMPLES_HTTP2: u64 = 64;
/// The same in any other language: enough for a login that takes several turns, and for some guesses.
pub const SAMPLES_OTHER: u64 = 8;

/// One record of [`SAMPLES`](crate::maps::SAMPLES).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Monotonic nanoseconds.
    pub at_ns: u64,
    /// The connection.
    pub flow: FlowKey,
    /// The agent's epoch.
    pub epoch: u32,
    /// Payload bytes of the segment from the sample's first one on.
    pub total: u32,
    /// How many of them are in [`Self::bytes`].
    pub length: u16,
    /// The how-many-th sample of the connection, from zero.
    pub ordinal: u16,
    /// A [`Language`](crate::flow::Language).
    pub language: u8,
    /// Explicit padding.
    pub reserved: [u8; 3],
    /// The bytes.
    pub bytes: [u8; SAMPLE_BYTES],
}

const _: () = assert!(size_of::<Sample>() == 304);

/// Value of [`RESPONSES`](crate::maps::RESPONSES): how an endpoint answers, since its first answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responses {
    /// Response times measured.
    pub count: u64,
    /// Sum of their absolute deviations from the normal one, 100 µs.
    pub deviation_100us: u64,
    /// Histogram: see [`crate::times`].
    pub times: [u32; crate::times::COARSE_BUCKETS],
}

const _: () = assert!(size_of::<Responses>() == 272);
