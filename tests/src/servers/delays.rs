//! How long a slow server takes for each of its answers: known before, and the same in every run.

use std::time::Duration;

/// `count` delays between `shortest` and `longest`, evenly spread, by a seeded generator.
#[must_use]
pub fn jittered(seed: u64, count: usize, shortest: Duration, longest: Duration) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let range = micros(shortest)..=micros(longest.max(shortest));
    (0..count).map(|_| Duration::from_micros(random.u64(range.clone()))).collect()
}

/// `count` delays around `usual`, of which every `every`th is `slow`: quick, with a long tail.
///
/// # Panics
/// When `every` is nothing.
#[must_use]
pub fn with_outliers(count: usize, usual: Duration, every: usize, slow: Duration) -> Vec<Duration> {
    (1..=count).map(|number| if number.is_multiple_of(every) { slow } else { usual }).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_range_and_is_the_same_again() {
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_millis(9));
        let delays = jittered(7, 500, shortest, longest);
        assert!(delays.iter().all(|delay| (shortest..=longest).contains(delay)));
        assert_eq!(delays, jittered(7, 500, shortest, longest));
        assert_ne!(delays, jittered(8, 500, shortest, longest));
        let distinct: std::collections::BTreeSet<_> = delays.iter().collect();
        assert!(distinct.len() > 400, "only {} of 500 differ", distinct.len());
    }

    #[test]
    fn every_so_many_is_slow() {
        let (usual, slow) = (Duration::from_millis(1), Duration::from_millis(50));
        assert_eq!(with_outliers(5, usual, 2, slow), [usual, slow, usual, slow, usual]);
    }
}
