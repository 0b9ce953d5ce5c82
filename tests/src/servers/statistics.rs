//! What a client's measurements come to, to compare with what the kernel says about the same answers.

use std::time::Duration;

/// How far off is still the same, for [`within_5_percent_or_200us`].
const SLACK: Duration = Duration::from_micros(200);

/// The smallest of the values that at least `per_mille` of them do not exceed (the nearest rank); none of none.
#[must_use]
pub fn nearest_rank(values: &[Duration], per_mille: usize) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * per_mille.min(1000)).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied()
}

/// The median by [`nearest_rank`].
#[must_use]
pub fn p50(values: &[Duration]) -> Option<Duration> {
    nearest_rank(values, 500)
}

/// What one in a hundred exceeds, by [`nearest_rank`].
#[must_use]
pub fn p99(values: &[Duration]) -> Option<Duration> {
    nearest_rank(values, 990)
}

/// How far the values are from `normal` on average, to either side; none of none.
#[must_use]
pub fn mean_absolute_deviation(values: &[Duration], normal: Duration) -> Option<Duration> {
    let sum: Duration = values.iter().map(|value| value.abs_diff(normal)).sum();
    let nanos = sum.as_nanos().checked_div(values.len() as u128)?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// Whether `told` differs from `measured` by at most 5 % of `measured` or 200 µs, whichever is more.
#[must_use]
pub fn within_5_percent_or_200us(told: Duration, measured: Duration) -> bool {
    told.abs_diff(measured) <= SLACK.max(measured / 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_micros).collect()
    }

    #[test]
    fn ranks_are_values_that_were_measured() {
        let cases = [
            ("one value is every rank", micros([7]), 7, 7),
            ("the lower of two is the median", micros([9, 1]), 1, 9),
            ("of a hundred the 99th", micros((1..=100).rev()), 50, 99),
            ("of a hundred and one the hundredth", micros(1..=101), 51, 100),
            ("of a thousand the 990th", micros(1..=1000), 500, 990),
        ];
        for (what, values, median, high) in cases {
            assert_eq!(
                (p50(&values), p99(&values)),
                (micros([median]).pop(), micros([high]).pop()),
                "{what}"
            );
        }
        assert_eq!(p50(&[]), None);
        assert_eq!(nearest_rank(&micros([3, 4]), 0), micros([3]).pop());
        assert_eq!(nearest_rank(&micros([3, 4]), 5000), micros([4]).pop());
    }

    #[test]
    fn deviations_count_to_either_side() {
        let normal = Duration::from_micros(10);
        assert_eq!(mean_absolute_deviation(&micros([4, 10, 22]), normal), Some(Duration::from_micros(6)));
        assert_eq!(mean_absolute_deviation(&[], normal), None);
    }

    #[test]
    fn five_percent_or_two_hundred_microseconds_are_the_same() {
        let cases = [
            (1_000, 1_200, true),
            (1_000, 1_201, false),
            (1_200, 1_000, true),
            (0, 200, true),
            (105_001, 100_000, false),
            (105_000, 100_000, true),
            (95_000, 100_000, true),
            (94_999, 100_000, false),
        ];
        for (told, measured, same) in cases {
            let [a, b] = [told, measured].map(Duration::from_micros);
            assert_eq!(within_5_percent_or_200us(a, b), same, "{told} told, {measured} measured");
        }
    }
}
