//! What the index stores instead of words: numbers that fit into few bytes.
//!
//! Two words may have the same number. That costs a look at a line that is then not wanted, and hides nothing, since
//! every answer is checked against the log.

use crate::record::head::Head;
use std::net::IpAddr;

/// Bits of an endpoint's key: 32 of its address, 16 of its port.
const ENDPOINT_BITS: u32 = 48;
/// Bits of a correlation's key.
const CORRELATION_BITS: u32 = 60;
/// Rare keys are tallied together, in so many buckets of neighbours.
pub const BUCKET_BITS: u32 = 12;

/// Spreads a number over all bits, each number to another one (the end of SplitMix64).
#[must_use]
pub const fn spread(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// FNV-1a, spread.
fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    spread(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The key of an agent.
#[must_use]
pub fn agent(name: &str) -> i64 {
    (hash(name.as_bytes()) >> 33) as i64
}

/// The key of a type.
#[must_use]
pub fn kind(name: &str) -> i64 {
    (hash(name.to_ascii_uppercase().as_bytes()) >> 49) as i64
}

/// The key of a correlation id.
#[must_use]
pub fn correlation(id: &str) -> i64 {
    (hash(id.as_bytes()) >> (64 - CORRELATION_BITS)) as i64
}

/// The key of an endpoint. Those of one address are neighbours.
#[must_use]
pub fn endpoint(address: IpAddr, port: u16) -> i64 {
    let folded = match address.to_canonical() {
        IpAddr::V4(v4) => spread(u64::from(v4.to_bits())),
        IpAddr::V6(v6) => hash(&v6.octets()),
    };
    ((folded >> 32 << 16) | u64::from(port)) as i64
}

/// The bucket of a correlation's key.
#[must_use]
pub const fn correlation_bucket(key: i64) -> i64 {
    key >> (CORRELATION_BITS - BUCKET_BITS)
}

/// The bucket of an endpoint's key.
#[must_use]
pub const fn endpoint_bucket(key: i64) -> i64 {
    key >> (ENDPOINT_BITS - BUCKET_BITS)
}

/// The keys of a correlation's bucket.
#[must_use]
pub const fn correlation_keys(bucket: i64) -> (i64, i64) {
    let width = 1 << (CORRELATION_BITS - BUCKET_BITS);
    (bucket * width, (bucket + 1) * width - 1)
}

/// The keys of an endpoint's bucket.
#[must_use]
pub const fn endpoint_keys(bucket: i64) -> (i64, i64) {
    let width = 1 << (ENDPOINT_BITS - BUCKET_BITS);
    (bucket * width, (bucket + 1) * width - 1)
}

/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// One entry as the index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the log.
    pub place: i64,
    /// When, in milliseconds since 1970; 0 if it does not say.
    pub time_ms: i64,
    /// About whom.
    pub agent: Option<i64>,
    /// Its type.
    pub kind: i64,
    /// Its endpoint.
    pub endpoint: Option<i64>,
    /// Its correlation id, trace id and reported id.
    pub ids: [Option<i64>; 3],
}

impl Row {
    /// The row of an entry with this head.
    #[must_use]
    pub fn of(place: u64, head: &Head<'_>) -> Self {
        Self {
            place: place as i64,
            time_ms: head.time().map_or(0, |time| time.0 as i64),
            agent: head.agent().map(agent),
            kind: kind(head.kind()),
            endpoint: head.endpoint().map(|(address, port)| endpoint(address, port)),
            ids: head.ids().map(|id| id.map(correlation)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_keys_and_an_address_its_ports() {
        for text in ["a", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", ""] {
            let key = correlation(text);
            let (first, last) = correlation_keys(correlation_bucket(key));
            assert!((first..=last).contains(&key) && key >= 0);
        }
        for address in ["192.0.2.7", "2001:db8::7", "255.255.255.255"] {
            let address: IpAddr = address.parse().unwrap();
            let (first, last) = endpoint_keys(endpoint_bucket(endpoint(address, 443)));
            let all = [endpoint(address, 0), endpoint(address, 443), endpoint(address, u16::MAX)];
            assert!(all.is_sorted() && all[2] - all[0] == 0xffff && first <= all[0] && all[2] <= last);
        }
        assert_eq!(kind("loss"), kind("LOSS"));
        assert_eq!(
            endpoint("::ffff:192.0.2.7".parse().unwrap(), 1),
            endpoint("192.0.2.7".parse().unwrap(), 1)
        );
    }
}
