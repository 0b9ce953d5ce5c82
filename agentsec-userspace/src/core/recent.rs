//! An agent's response times of the last one to two windows, from a histogram that only ever grows.

use agentsec_common::times::{TIME_BUCKETS, quantile_ns};

/// A histogram: see [`agentsec_common::times`]. Its numbers wrap around.
pub type Times = [u32; TIME_BUCKETS];

/// A histogram as it was; `None` is one of nothing.
type Copy = Option<Box<Times>>;

/// Two earlier copies, a window apart: what came since the older one is of the last one to two windows.
#[derive(Clone, Debug)]
pub struct Recent {
    older: Copy,
    newer: Copy,
    /// How many response times the newer one has.
    total: u64,
    /// When the next copy is due, monotonic nanoseconds.
    next_ns: u64,
}

impl Recent {
    /// Of an agent that is first seen now, with so many response times already: when these came nobody knows.
    #[must_use]
    pub fn new(now_ns: u64, window_ns: u64, total: u64, read: impl FnOnce() -> Times) -> Self {
        let copy = (total > 0).then(|| Box::new(read()));
        Self { older: copy.clone(), newer: copy, total, next_ns: now_ns.saturating_add(window_ns) }
    }

    /// Makes a copy when it is due; the histogram is read only if it has grown to another `total`.
    pub fn keep(&mut self, now_ns: u64, window_ns: u64, total: u64, read: impl FnOnce() -> Times) {
        if now_ns < self.next_ns {
            return;
        }
        let copy = if total == self.total { self.newer.clone() } else { Some(Box::new(read())) };
        let is_late = now_ns.saturating_sub(self.next_ns) >= window_ns;
        let newer = std::mem::replace(&mut self.newer, copy);
        // Nobody looked for a whole window: what came meanwhile is too old by half.
        self.older = if is_late { self.newer.clone() } else { newer };
        self.total = total;
        self.next_ns = now_ns.saturating_add(window_ns);
    }

    /// What came since the older copy, by the histogram as it is now.
    #[must_use]
    pub fn since(&self, now: &Times) -> Times {
        match &self.older {
            None => *now,
            Some(older) => std::array::from_fn(|bucket| now[bucket].wrapping_sub(older[bucket])),
        }
    }
}

/// How many response times there are, and their median and 99th percentile, nanoseconds; no quantiles of none.
#[must_use]
pub fn quantiles_ns(times: &[u32], coarse: u32) -> (u64, Option<u64>, Option<u64>) {
    let count = times.iter().map(|&count| u64::from(count)).sum();
    (count, quantile_ns(times, coarse, 500), quantile_ns(times, coarse, 990))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentsec_common::times::time_bucket;
    use proptest::prelude::*;

    const WINDOW_NS: u64 = 60_000_000_000;

    #[test]
    fn what_was_there_before_anybody_looked_is_not_recent() {
        let recent = Recent::new(0, WINDOW_NS, 7, || [7; TIME_BUCKETS]);
        let mut now = [7; TIME_BUCKETS];
        now[3] = 9;
        assert_eq!(recent.since(&now)[3], 2);
        assert_eq!(quantiles_ns(&recent.since(&now), 0).0, 2);
        assert_eq!(quantiles_ns(&recent.since(&[7; TIME_BUCKETS]), 0), (0, None, None));
    }

    #[test]
    fn a_histogram_that_has_not_grown_is_not_read() {
        let unread = || panic!("nobody reads it");
        let mut recent = Recent::new(0, WINDOW_NS, 0, unread);
        for window in 1..5 {
            recent.keep(window * WINDOW_NS, WINDOW_NS, 0, unread);
        }
    }

    #[test]
    fn numbers_may_wrap_around() {
        let recent = Recent::new(0, WINDOW_NS, 1, || [u32::MAX; TIME_BUCKETS]);
        assert_eq!(recent.since(&[1; TIME_BUCKETS]), [2; TIME_BUCKETS]);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_of_the_last_one_to_two_windows(
            gaps_ms in prop::collection::vec(1u64..20_000, 1..200),
            started_ms in 0u64..60_000,
        ) {
            let mut now = 1_000_000_000_000;
            let mut times = [0; TIME_BUCKETS];
            let mut recent = Recent::new(now - started_ms * 1_000_000, WINDOW_NS, 0, || times);
            let mut came = Vec::new();
            for (total, gap_ms) in gaps_ms.into_iter().enumerate() {
                now += gap_ms * 1_000_000;
                recent.keep(now, WINDOW_NS, total as u64, || times);
                times[time_bucket(5_000_000)] += 1;
                came.push(now);
                let within = |ns: u64| came.iter().filter(|at| now - **at <= ns).count() as u64;
                let (shown, ..) = quantiles_ns(&recent.since(&times), 0);
                // One look may be as late as the longest gap.
                let most = within(2 * WINDOW_NS + 40_000_000_000);
                prop_assert!((within(WINDOW_NS)..=most).contains(&shown), "{} of {}", shown, most);
            }
        }
    }
}
