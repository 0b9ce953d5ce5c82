//! The byte bucket of a probe: a rate and a burst, held in one word.
//!
//! The word is a time: when the bucket will be full again. Sending moves it on by what the packet costs, and a
//! packet that would move it further ahead than the burst finds no room (the generic cell rate algorithm). Time
//! alone refills it, so nobody has to, and two CPUs agree by one compare-exchange.

/// Rate and burst of a bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Nanoseconds that 1,024 bytes take to refill.
    pub ns_per_kib: u32,
    /// What every packet costs at least, bytes: many small packets are no way around the rate.
    pub min_charge: u32,
    /// Nanoseconds that a whole bucket takes to refill.
    pub burst_ns: u64,
}

const _: () = assert!(size_of::<Bucket>() == 16);

/// Slowest and fastest rate, bytes a second: what [`Bucket::ns_per_kib`] can say with some precision.
pub const RATES: core::ops::RangeInclusive<u64> = 1_000..=1_000_000_000;

impl Bucket {
    /// A bucket of `burst` bytes that refills with `rate` bytes a second, within [`RATES`].
    #[must_use]
    pub const fn new(rate: u64, burst: u64, min_charge: u32) -> Self {
        let rate = if rate < *RATES.start() { *RATES.start() } else { rate };
        let ns_per_kib = 1_024_000_000_000 / rate;
        Self { ns_per_kib: ns_per_kib as u32, min_charge, burst_ns: cost_ns(burst, ns_per_kib) }
    }

    /// The word after `packets` of together `bytes` bytes have gone through at `now_ns`; `None` when they do not
    /// fit.
    #[inline(always)]
    #[must_use]
    pub const fn spend(&self, word: u64, now_ns: u64, bytes: u64, packets: u64) -> Option<u64> {
        let least = packets * self.min_charge as u64;
        let charge = if bytes > least { bytes } else { least };
        let from = if word > now_ns { word } else { now_ns };
        let full = from + cost_ns(charge, self.ns_per_kib as u64);
        if full - now_ns > self.burst_ns { None } else { Some(full) }
    }
}

/// Buckets have at most 2^32 bytes and 2^31 nanoseconds a KiB, so the product fits.
#[inline(always)]
const fn cost_ns(bytes: u64, ns_per_kib: u64) -> u64 {
    (bytes * ns_per_kib) >> 10
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_full_bucket_passes_its_burst_and_then_only_its_rate() {
        let bucket = Bucket::new(10_240, 20_480, 0);
        let mut word = bucket.spend(0, SECOND, 20_480, 1).unwrap();
        assert_eq!(bucket.spend(word, SECOND, 1, 1), None, "the burst is spent");
        assert_eq!(bucket.spend(word, SECOND + SECOND / 2, 5_121, 1), None, "half a second refills 5,120");
        word = bucket.spend(word, SECOND + SECOND / 2, 5_120, 1).unwrap();
        assert_eq!(bucket.spend(word, 100 * SECOND, 20_481, 1), None, "never more than a burst");
    }

    #[test]
    fn every_packet_costs_its_least_charge() {
        let bucket = Bucket::new(1_024, 1_024, 256);
        let mut word = 0;
        for _ in 0..4 {
            word = bucket.spend(word, SECOND, 1, 1).unwrap();
        }
        assert_eq!(bucket.spend(word, SECOND, 1, 1), None);
        assert_eq!(Bucket::new(1_024, 1_024, 256).spend(0, SECOND, 40, 5), None, "segments count each");
    }

    proptest! {
        #[test]
        fn no_sequence_passes_more_than_burst_and_rate_allow(
            rate in 1_000u64..1_000_000_000,
            burst in 1_000u64..100_000_000,
            steps in prop::collection::vec((0u64..SECOND, 1u64..100_000), 1..200),
        ) {
            let bucket = Bucket::new(rate, burst, 0);
            let (mut now, mut word, mut passed) = (SECOND, 0, 0u64);
            for (wait, bytes) in steps {
                now += wait;
                if let Some(next) = bucket.spend(word, now, bytes, 1) {
                    word = next;
                    passed += bytes;
                }
            }
            // Both roundings are below a KiB's time and are made up for here.
            let refilled = (now - SECOND) as u128 * rate as u128 / u128::from(SECOND);
            let slack = refilled / 500 + burst as u128 / 500 + 200 * 1024 / 100 + 2;
            prop_assert!(passed as u128 <= burst as u128 + refilled + slack);
        }
    }
}
