//! Numbers for people, and times from people.

use std::time::Duration;

use crate::api::Timestamp;

/// `10.0 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut unit = 0;
    // Rounding must not write 1024.0 of anything.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// `7,000`.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `51.5 ms`, `2.50 s`, three digits of it; nothing of nothing.
pub(super) fn milliseconds(ms: Option<f64>) -> String {
    let Some(ms) = ms else { return String::new() };
    let (value, unit) = if ms < 1000.0 { (ms, "ms") } else { (ms / 1000.0, "s") };
    let decimals = match value {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// `2 h 5 min`: the two greatest units.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (greater, lesser) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3600 => ((seconds / 60, "min"), (seconds % 60, "s")),
        3600..86_400 => ((seconds / 3600, "h"), (seconds % 3600 / 60, "min")),
        _ => ((seconds / 86_400, "d"), (seconds % 86_400 / 3600, "h")),
    };
    match lesser.0 {
        0 => format!("{} {}", greater.0, greater.1),
        rest => format!("{} {} {rest} {}", greater.0, greater.1, lesser.1),
    }
}

/// `3 min 2 s ago`.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> String {
    match then.age_at(now) {
        age if age.as_secs() == 0 => "just now".into(),
        age => duration(age) + " ago",
    }
}

/// An RFC 3339 time, or how long ago: `90s`, `10m`, `2h`, `1d`.
pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let wrong = || format!("`{text}` is neither a time such as 2026-01-31T12:00:00Z nor an age such as 10m");
    let (digits, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let age_ms =
        digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s * 1000)).ok_or_else(wrong)?;
    Ok(Timestamp(Timestamp::now().0.saturating_sub(age_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (10_485_760, "10.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn response_times_have_three_digits() {
        let shown = [0.049, 5.0, 51.5, 130.25, 2500.0].map(|ms| milliseconds(Some(ms)));
        assert_eq!(shown, ["0.05 ms", "5.00 ms", "51.5 ms", "130 ms", "2.50 s"]);
        assert_eq!(milliseconds(None), "");
    }

    #[test]
    fn durations_have_their_two_greatest_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (7500, "2 h 5 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(ago(Timestamp(5000), Timestamp(4000)), "just now", "a clock that was set back");
        assert_eq!(ago(Timestamp(5000), Timestamp(65_000)), "1 min ago");
    }

    #[test]
    fn since_takes_a_time_or_an_age() {
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(Timestamp(1000)));
        let now = Timestamp::now().0;
        let ten_minutes = since("10m").unwrap().0;
        assert!((now - 600_000..=now - 590_000).contains(&ten_minutes));
        for wrong in ["", "m", "10", "10ü", "-1h", "99999999999999999999d", "18446744073709551615d"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
