//! The trace that a request belongs to, as the W3C's Trace Context writes it into HTTP's `traceparent`.

/// The trace id of a `traceparent` header's value, in lower-case hex; `None` if the value is not valid.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = traceparent.trim_matches([' ', '\t']).split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    // Later versions may have more parts; `ff` is none.
    let known = version != "ff" && (version != "00" || parts.next().is_none());
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    (hex && known && !is_zero(trace) && !is_zero(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_header_has_a_trace_and_any_other_has_none() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (value, expected) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(trace)),
            (" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\t", Some(trace)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-will-come", Some(trace)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", None),
            ("", None),
        ] {
            assert_eq!(trace_id(value), expected, "{value:?}");
        }
    }
}
