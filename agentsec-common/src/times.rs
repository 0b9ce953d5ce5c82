//! Response times as a histogram: exact to a sixteenth of an octave.
//!
//! The first sixteen buckets are [`UNIT_NS`] wide; from there on each octave has sixteen. A quantile read from the
//! middle of a bucket is within half a unit or 3.2 % of the exact one.

/// Width of the first buckets, nanoseconds.
pub const UNIT_NS: u64 = 1 << UNIT_SHIFT;
const UNIT_SHIFT: u32 = 15;
/// Buckets in an octave, as a power of two.
const FINE_SHIFT: u32 = 4;
const FINE: u64 = 1 << FINE_SHIFT;

/// Buckets of an agent's histogram. The last one also holds all that is longer (16.8 seconds).
pub const TIME_BUCKETS: usize = 256;
/// How many of them are one bucket of an endpoint's histogram, as a power of two.
pub const COARSE_SHIFT: u32 = 2;
/// Buckets of an endpoint's histogram: four in an octave.
pub const COARSE_BUCKETS: usize = TIME_BUCKETS >> COARSE_SHIFT;

/// The bucket of a time.
#[inline(always)]
#[must_use]
pub const fn time_bucket(ns: u64) -> usize {
    let units = ns >> UNIT_SHIFT;
    if units < FINE {
        return units as usize;
    }
    // The longest time of the last octave, so that the shift below stays small.
    let units = if units >> 19 != 0 { (1 << 19) - 1 } else { units };
    let octave = log2(units as u32) - FINE_SHIFT;
    let bucket = ((octave as u64 + 1) << FINE_SHIFT) + ((units >> octave) - FINE);
    bucket as usize & (TIME_BUCKETS - 1)
}

/// Position of the highest bit of a number below 2^20 that is not zero. By halves, since the BPF target counts leading zeros by a
/// table or a long sequence.
#[inline(always)]
const fn log2(mut value: u32) -> u32 {
    let mut log = 0;
    if value >> 16 != 0 {
        value >>= 16;
        log += 16;
    }
    if value >> 8 != 0 {
        value >>= 8;
        log += 8;
    }
    if value >> 4 != 0 {
        value >>= 4;
        log += 4;
    }
    if value >> 2 != 0 {
        value >>= 2;
        log += 2;
    }
    log + (value >> 1)
}

/// Where a bucket begins and where the next one does, nanoseconds.
#[must_use]
pub const fn time_bounds(bucket: usize) -> (u64, u64) {
    (begin(bucket), begin(bucket + 1))
}

const fn begin(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket << UNIT_SHIFT;
    }
    let (octave, step) = ((bucket >> FINE_SHIFT) - 1, bucket & (FINE - 1));
    (FINE + step) << octave << UNIT_SHIFT
}

/// The time below which `per_mille` of the counted ones lie, from the middle of its bucket; `None` when there are
/// none. `coarse` is the power of two by which the histogram's buckets are wider than those of [`time_bucket`].
#[must_use]
pub fn quantile_ns(counts: &[u32], coarse: u32, per_mille: u64) -> Option<u64> {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    if total == 0 {
        return None;
    }
    let rank = (total * per_mille).div_ceil(1000).max(1);
    let mut seen = 0;
    let bucket = counts.iter().position(|&count| {
        seen += u64::from(count);
        seen >= rank
    })?;
    let (from, to) = (begin(bucket << coarse), begin((bucket + 1) << coarse));
    Some(from + (to - from) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for bucket in 0..TIME_BUCKETS {
            let (from, to) = time_bounds(bucket);
            assert_eq!((time_bucket(from), time_bucket(to - 1)), (bucket, bucket));
        }
        assert_eq!(time_bucket(u64::MAX), TIME_BUCKETS - 1);
    }

    #[test]
    fn nothing_counted_has_no_quantile() {
        assert_eq!(quantile_ns(&[0; TIME_BUCKETS], 0, 500), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_half_a_bucket_of_the_exact_one(
            mut times in prop::collection::vec(0u64..16_000_000_000, 1..300), per_mille in 1u64..=1000,
        ) {
            let mut counts = [0u32; TIME_BUCKETS];
            let mut coarse = [0u32; COARSE_BUCKETS];
            for &time in &times {
                counts[time_bucket(time)] += 1;
                coarse[time_bucket(time) >> COARSE_SHIFT] += 1;
            }
            times.sort_unstable();
            let rank = (times.len() as u64 * per_mille).div_ceil(1000).max(1);
            let exact = times[rank as usize - 1];
            let told = quantile_ns(&counts, 0, per_mille).unwrap();
            prop_assert!(told.abs_diff(exact) <= (UNIT_NS / 2).max(exact / 31), "{} for {}", told, exact);
            let told = quantile_ns(&coarse, COARSE_SHIFT, per_mille).unwrap();
            prop_assert!(told.abs_diff(exact) <= (2 * UNIT_NS).max(exact / 7), "{} for {}", told, exact);
        }
    }
}
