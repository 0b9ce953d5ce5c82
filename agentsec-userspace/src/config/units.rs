//! Durations, bytes and ratios as operators write them.

/// Nanoseconds of `"250ms"`, `"30s"`, `"10m"`, `"24h"`, `"1d"`; a fraction is allowed.
pub(super) fn duration_ns(text: &str) -> Option<u64> {
    let units = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
        ("d", 8.64e13),
    ];
    scaled(text, &units)
}

/// Bytes of `"1.2MB"`, `"64KiB"`, `"100B"`; a fraction is allowed, the unit is not optional.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let units = [
        ("B", 1.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
    ];
    scaled(text, &units)
}

/// A decimal number and one of `units`, rounded to the nearest whole.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    let value = number.parse::<f64>().ok()? * factor;
    // Above 2^63 a limit means nothing, and below it the conversion is exact enough for any unit.
    (value < 9.2e18).then_some(value.round() as u64)
}

/// Nanoseconds as an operator would write them, for messages.
pub(super) fn show_duration(ns: u64) -> String {
    let units =
        [(86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s")];
    for (factor, unit) in units.into_iter().chain([(1_000_000, "ms"), (1_000, "us")]) {
        if ns >= factor && ns.is_multiple_of(factor) {
            return format!("{}{unit}", ns / factor);
        }
    }
    format!("{ns}ns")
}

/// Bytes as an operator would write them, for messages.
pub(super) fn show_bytes(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1 << 20, "MiB"), (1_000, "kB"), (1 << 10, "KiB")];
    for (factor, unit) in units {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

/// Changes needed to turn one word into another, to guess what a misspelt key was meant to be.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, ns) in [
            ("250ms", 250_000_000),
            ("30s", 30_000_000_000),
            ("1.5m", 90_000_000_000),
            ("24 h", 86_400_000_000_000),
        ] {
            assert_eq!(duration_ns(text), Some(ns), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "1e3s", "5s5s", "1..2s"] {
            assert_eq!(duration_ns(text), None, "{text:?}");
        }
        for (bytes, text) in [(1_000, "1kB"), (131_072, "128KiB"), (3 << 20, "3MiB"), (999, "999B")] {
            assert_eq!(show_bytes(bytes), text);
        }
        assert_eq!(show_duration(90_000_000_000), "90s");
        assert_eq!(show_duration(60_000_000_000), "1m");
    }

    #[test]
    fn bytes_have_units_of_both_kinds() {
        for (text, count) in [("1.2MB", 1_200_000), ("64KiB", 65_536), ("0B", 0), ("3GiB", 3 << 30)] {
            assert_eq!(bytes(text), Some(count), "{text}");
        }
        for text in ["12", "12 Mb", "MB", "99999999999TB"] {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_misspelling_is_near() {
        assert_eq!(distance("windwo", "window"), 2);
        assert_eq!(distance("", "abc"), 3);
    }
}
