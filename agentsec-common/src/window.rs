//! A sliding window in one cache line: eight words, each a bucket that names itself.
//!
//! A bucket is a seventh of the window, so the current bucket and the seven before it always cover the whole
//! window: a sum over them never under-counts, and over-counts by at most one bucket. There is no boundary
//! that an attacker could time. Each word carries its bucket's number and the agent's epoch, so one
//! compare-exchange restarts it, and every word restarts by itself when the epoch changes.
//!
//! ```text
//! bit 0..40 value | 40..46 epoch | 46..64 bucket / 8       (bucket % 8 is the word's index)
//! ```
//!
//! A word that was last written exactly 2^21 buckets ago, or 64 epochs ago in the same bucket, looks current.
//! That can only add to a sum, needs an agent silent for six months (at 60 s), and is accepted.

/// Words in a window.
pub const BUCKETS: usize = 8;
/// Buckets that together are at least as long as the window.
const SPAN: u64 = BUCKETS as u64 - 1;

const VALUE_BITS: u32 = 40;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
/// A word that has reached this takes no more, so that additions in flight cannot reach its tag.
/// Limits must be smaller.
pub const VALUE_FULL: u64 = 1 << (VALUE_BITS - 1);

const EPOCH_SHIFT: u32 = VALUE_BITS;
const EPOCH_MASK: u64 = (1 << 6) - 1;
/// Rounds end at the word's top, so that they wrap by themselves: a word minus another tag is its value, plus in
/// this place how many rounds it is ahead, as long as the epoch is the same.
const ROUND_SHIFT: u32 = EPOCH_SHIFT + 6;

/// Turns monotonic nanoseconds into bucket numbers by a multiplication, since a division per packet is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketClock {
    multiplier: u32,
}

/// Times are taken in units of 2^20 ns, about a millisecond.
const UNIT_SHIFT: u32 = 20;
/// Shortest window, in nanoseconds.
pub const SHORTEST_NS: u64 = 1_000_000_000;
/// Longest window, in nanoseconds.
pub const LONGEST_NS: u64 = 24 * 3600 * 1_000_000_000;

impl BucketClock {
    /// The clock of a window of `window_ns`, clamped to [`SHORTEST_NS`]..=[`LONGEST_NS`]. Every bucket is at
    /// least a seventh of the window long.
    #[must_use]
    pub const fn for_window(window_ns: u64) -> Self {
        let window_ns = if window_ns < SHORTEST_NS {
            SHORTEST_NS
        } else if window_ns > LONGEST_NS {
            LONGEST_NS
        } else {
            window_ns
        };
        // One unit is added because a bucket's edges fall between units.
        let units = window_ns.div_ceil(SPAN).div_ceil(1 << UNIT_SHIFT) + 1;
        Self { multiplier: ((1u64 << 32) / units) as u32 }
    }

    /// As stored in a profile.
    #[must_use]
    pub const fn multiplier(self) -> u32 {
        self.multiplier
    }

    /// From a stored profile.
    #[inline(always)]
    #[must_use]
    pub const fn from_multiplier(multiplier: u32) -> Self {
        Self { multiplier }
    }

    /// Number of the bucket that `now_ns` lies in. Never decreases with time.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(self, now_ns: u64) -> u64 {
        (now_ns >> UNIT_SHIFT).wrapping_mul(self.multiplier as u64) >> 32
    }

    /// A point in a window's time.
    #[inline(always)]
    #[must_use]
    pub const fn moment(self, now_ns: u64, epoch: u32) -> Moment {
        Moment { bucket: self.bucket(now_ns), epoch }
    }
}

/// A bucket of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Number of the bucket.
    pub bucket: u64,
    /// The agent's epoch.
    pub epoch: u32,
}

/// What to do with a bucket's word to count an amount in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add the amount to the word as it is: it is current, or another CPU is already ahead of us.
    Add,
    /// Replace the word, which is old, by this one.
    Restart(u64),
    /// The word is full.
    Full,
}

impl Moment {
    /// Index of the moment's word.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        (self.bucket % BUCKETS as u64) as usize
    }

    #[inline(always)]
    const fn tag(self) -> u64 {
        self.tag_of(self.bucket)
    }

    /// The tag of a bucket in the same epoch.
    #[inline(always)]
    const fn tag_of(self, bucket: u64) -> u64 {
        (bucket >> 3) << ROUND_SHIFT | (self.epoch as u64 & EPOCH_MASK) << EPOCH_SHIFT
    }

    /// How to count `amount` (less than 2^32) in the moment's word, which now reads `word`.
    ///
    /// A word of another epoch is restarted. The caller first makes sure that its own epoch is still the
    /// agent's: then the word can only be older, and nothing is erased.
    #[inline(always)]
    #[must_use]
    pub const fn step(self, word: u64, amount: u64) -> Step {
        const CURRENT: u64 = 1 << ROUND_SHIFT | VALUE_MASK;
        // One round ahead is another CPU that has already passed into the next one; anything else is old.
        if word.wrapping_sub(self.tag()) & !CURRENT != 0 {
            return Step::Restart(self.tag() | amount);
        }
        if word & VALUE_MASK >= VALUE_FULL { Step::Full } else { Step::Add }
    }

    /// What the word at `index` contributes to the sum at this moment.
    #[inline(always)]
    #[must_use]
    pub const fn live(self, word: u64, index: usize) -> u64 {
        // At most three rounds ahead is another CPU's clock being ahead: it is now.
        const LIVE: u64 = 3 << ROUND_SHIFT | VALUE_MASK;
        // The latest bucket with this index that has begun.
        let latest = self.bucket.wrapping_sub(index as u64);
        let ahead = word.wrapping_sub(self.tag_of(latest));
        if ahead & !LIVE == 0 { ahead & VALUE_MASK } else { 0 }
    }

    /// Sum of a window at this moment.
    #[inline(always)]
    #[must_use]
    pub const fn sum(self, words: &[u64; BUCKETS]) -> u64 {
        let mut sum = 0;
        let mut index = 0;
        while index < BUCKETS {
            sum += self.live(words[index], index);
            index += 1;
        }
        sum
    }
}

/// When something was last counted in a window, as one word: zero for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64);

const STAMP_PRESENT: u64 = 1 << 63;
const STAMP_EPOCH_SHIFT: u32 = 43;
const STAMP_BUCKET_MASK: u64 = (1 << STAMP_EPOCH_SHIFT) - 1;

impl Stamp {
    /// Counted at `moment`.
    #[inline(always)]
    #[must_use]
    pub const fn at(moment: Moment) -> Self {
        let epoch = (moment.epoch & crate::policy::EPOCH_MASK) as u64;
        Self(STAMP_PRESENT | epoch << STAMP_EPOCH_SHIFT | (moment.bucket & STAMP_BUCKET_MASK))
    }

    /// As stored.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Whether anything counted no later than the stamp `word` says may still be in the window at `now`. One bucket
    /// more than the window has, because of two CPUs that count at a bucket's edge the later may be overwritten.
    #[inline(always)]
    #[must_use]
    pub const fn may_matter(word: u64, now: Moment) -> bool {
        let same_epoch = word >> STAMP_EPOCH_SHIFT == Self::at(now).0 >> STAMP_EPOCH_SHIFT;
        // Ahead of us is another CPU's clock being ahead.
        let age = now.bucket.wrapping_sub(word) & STAMP_BUCKET_MASK;
        same_epoch && (age <= BUCKETS as u64 || age > STAMP_BUCKET_MASK / 2)
    }

    /// If the stamp `word` is still in the window at `now`: the moment whose bucket holds the count.
    #[inline(always)]
    #[must_use]
    pub const fn counted(word: u64, now: Moment) -> Option<Moment> {
        let bucket = word & STAMP_BUCKET_MASK;
        let same_epoch = word >> STAMP_EPOCH_SHIFT == Self::at(now).0 >> STAMP_EPOCH_SHIFT;
        if same_epoch && now.bucket.wrapping_sub(bucket) < BUCKETS as u64 {
            Some(Moment { bucket, epoch: now.epoch })
        } else {
            None
        }
    }
}

impl Moment {
    /// The word of this moment's bucket with one taken away; `None` when it has moved on and holds nothing of
    /// this bucket.
    #[inline(always)]
    #[must_use]
    pub const fn take_one(self, word: u64) -> Option<u64> {
        if (word ^ self.tag()) >> VALUE_BITS == 0 && word & VALUE_MASK > 0 { Some(word - 1) } else { None }
    }
}

/// A number that was worked out from windows, with the bucket and epoch in which it was: as long as these last and
/// nothing is counted, it need not be worked out again. Whoever counts in the windows stores it anew.
///
/// ```text
/// bit 0..24 value | 24..30 epoch | 30..64 bucket
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge;

const GAUGE_BITS: u32 = 24;
/// Greatest value of a [`Gauge`]; greater ones are stored as this.
pub const GAUGE_MAX: u32 = (1 << GAUGE_BITS) - 1;

impl Gauge {
    #[inline(always)]
    const fn tag(moment: Moment) -> u64 {
        moment.bucket << 30 | (moment.epoch as u64 & EPOCH_MASK) << GAUGE_BITS
    }

    /// As stored.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(moment: Moment, value: u64) -> u64 {
        let value = if value > GAUGE_MAX as u64 { GAUGE_MAX as u64 } else { value };
        Self::tag(moment) | value
    }

    /// The value, if it is of this moment. An untouched word is zero in the first bucket of the first epoch, which is right.
    #[inline(always)]
    #[must_use]
    pub const fn read(word: u64, moment: Moment) -> Option<u32> {
        let value = word ^ Self::tag(moment);
        if value >> GAUGE_BITS == 0 { Some(value as u32) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW_NS: u64 = 60_000_000_000;

    /// One CPU's view of a window, as the kernel program keeps it.
    fn count(words: &mut [u64; BUCKETS], now: Moment, amount: u64) {
        let word = &mut words[now.index()];
        match now.step(*word, amount) {
            Step::Add => *word += amount,
            Step::Restart(fresh) => *word = fresh,
            Step::Full => {}
        }
    }

    proptest! {
        #[test]
        fn a_sum_never_under_counts_and_over_counts_by_at_most_a_bucket(
            window_ns in SHORTEST_NS..LONGEST_NS / 4,
            start in 0u64..1 << 55,
            // Gaps are fractions of the window, so that bursts fall in every phase of it.
            bursts in prop::collection::vec((0u64..3000, 1u64..1 << 30), 1..60),
            epoch: u32,
        ) {
            let clock = BucketClock::for_window(window_ns);
            let mut words = [0; BUCKETS];
            let mut sent: Vec<(u64, u64)> = Vec::new();
            let mut now = start;
            for (gap, amount) in bursts {
                now += window_ns / 1000 * gap / 8;
                let moment = clock.moment(now, epoch);
                count(&mut words, moment, amount);
                sent.push((now, amount));
                let within = |ns: u64| -> u64 {
                    sent.iter().filter(|(at, _)| now - at <= ns).map(|(_, amount)| amount).sum()
                };
                let sum = moment.sum(&words);
                prop_assert!(sum >= within(window_ns), "{} < {}", sum, within(window_ns));
                // Eight buckets, each at most a seventh longer by rounding, bound the over-count.
                let longest = window_ns / 7 * 8 + window_ns / 50 + 16 * (1 << UNIT_SHIFT);
                prop_assert!(sum <= within(longest), "{} > {}", sum, within(longest));
            }
        }

        #[test]
        fn a_new_epoch_starts_from_nothing(
            now in 0u64..1 << 55, epoch in 0u32..1 << 20, steps in 1u32..63, amount in 1u64..1 << 32,
        ) {
            let clock = BucketClock::for_window(WINDOW_NS);
            let mut words = [0; BUCKETS];
            count(&mut words, clock.moment(now, epoch), amount);
            let later = clock.moment(now, epoch.wrapping_add(steps) & crate::policy::EPOCH_MASK);
            prop_assert_eq!(later.sum(&words), 0);
        }

        #[test]
        fn a_cpu_that_lags_behind_never_erases_what_another_counted(
            round in 100u64..1 << 37, index in 0u64..8, lag in 0u64..=1, epoch: u32,
        ) {
            let ahead = Moment { bucket: round << 3 | index, epoch };
            let behind = Moment { bucket: (round - lag) << 3 | index, epoch };
            let mut words = [0; BUCKETS];
            count(&mut words, ahead, 1000);
            count(&mut words, behind, 10);
            prop_assert_eq!(ahead.sum(&words), 1010);
        }

        #[test]
        fn a_window_is_read_as_long_as_it_holds_anything(
            bucket in 32u64..1 << 40, later in 0u64..20, other in 0u64..=1, epoch in 0u32..=crate::policy::EPOCH_MASK,
        ) {
            let counted = Moment { bucket, epoch };
            let mut words = [0; BUCKETS];
            count(&mut words, counted, 1);
            // The stamp of a CPU that lags behind may have come last.
            let stamp = Stamp::at(Moment { bucket: bucket - other, epoch }).to_word();
            let now = Moment { bucket: bucket + later - 3, epoch };
            prop_assert!(now.sum(&words) == 0 || Stamp::may_matter(stamp, now));
            prop_assert!(!Stamp::may_matter(0, now), "nothing was ever counted");
            let next = Moment { epoch: epoch ^ 1, ..now };
            prop_assert!(!Stamp::may_matter(stamp, next), "another epoch");
        }

        #[test]
        fn a_full_word_stays_above_every_limit(bucket in 0u64..1 << 40, adds in 0usize..4) {
            let now = Moment { bucket, epoch: 3 };
            let mut words = [0; BUCKETS];
            count(&mut words, now, 1);
            words[now.index()] += VALUE_FULL - 1;
            for _ in 0..adds {
                count(&mut words, now, u64::from(u32::MAX));
            }
            prop_assert_eq!(now.sum(&words), VALUE_FULL);
        }

        #[test]
        fn a_stamp_is_counted_exactly_as_long_as_its_bucket(
            bucket in 8u64..1 << 40, age in 0u64..20, epoch in 0u32..=crate::policy::EPOCH_MASK,
        ) {
            let counted = Moment { bucket, epoch };
            let now = Moment { bucket: bucket + age, epoch };
            let mut words = [0; BUCKETS];
            count(&mut words, counted, 1);
            let stamp = Stamp::counted(Stamp::at(counted).to_word(), now);
            prop_assert_eq!(stamp.is_some(), now.sum(&words) == 1);
            prop_assert_eq!(stamp, (age < 8).then_some(counted));
            let other = Moment { bucket: now.bucket, epoch: epoch ^ 1 };
            prop_assert_eq!(Stamp::counted(Stamp::at(counted).to_word(), other), None);
        }
    }

    #[test]
    fn a_gauge_is_of_its_bucket_and_epoch_only() {
        let now = Moment { bucket: 12_345, epoch: 7 };
        for value in [0, 1, GAUGE_MAX] {
            let word = Gauge::to_word(now, value.into());
            assert_eq!(Gauge::read(word, now), Some(value));
            assert_eq!(Gauge::read(word, Moment { bucket: 12_346, ..now }), None);
            assert_eq!(Gauge::read(word, Moment { epoch: 8, ..now }), None);
        }
        assert_eq!(Gauge::read(Gauge::to_word(now, u64::MAX), now), Some(GAUGE_MAX));
    }

    #[test]
    fn a_count_can_be_moved_to_a_later_bucket() {
        let then = Moment { bucket: 17, epoch: 1 };
        let mut words = [0; BUCKETS];
        count(&mut words, then, 2);
        let taken = then.take_one(words[then.index()]).unwrap();
        assert_eq!(taken & VALUE_MASK, 1);
        let empty = then.take_one(taken).unwrap();
        assert_eq!(then.take_one(empty), None, "nothing is left to take");
        let moved_on = Moment { bucket: 25, epoch: 1 };
        count(&mut words, moved_on, 5);
        assert_eq!(then.take_one(words[then.index()]), None, "the word belongs to a later bucket");
    }

    #[test]
    fn a_default_bucket_is_a_seventh_of_a_minute() {
        let clock = BucketClock::for_window(WINDOW_NS);
        let first = clock.bucket(1 << 50);
        let mut now = 1u64 << 50;
        while clock.bucket(now) == first {
            now += 1 << UNIT_SHIFT;
        }
        let edge = now;
        while clock.bucket(now) == first + 1 {
            now += 1 << UNIT_SHIFT;
        }
        let length = now - edge;
        assert!((WINDOW_NS / 7..WINDOW_NS / 7 + WINDOW_NS / 500).contains(&length), "{length}");
    }
}
