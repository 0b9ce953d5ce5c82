//! JSON in one form only, so that a hash over it means the document and not its spelling.
//!
//! RFC 8785: keys sorted by UTF-16 code units, no white space, the shortest spelling of strings and numbers. Numbers
//! mean doubles there, so an integer that a double cannot hold is written as a string of its digits, as RFC 7493 has it.

use serde_json::{Number, Value};
use std::fmt::Write;

/// `value` in its canonical form.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            let open = ['['].into_iter().chain(std::iter::repeat(','));
            for (item, separator) in items.iter().zip(open) {
                out.push(separator);
                write_value(out, item);
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        Value::Object(object) => {
            let mut entries: Vec<(&String, &Value)> = object.iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            let open = ['{'].into_iter().chain(std::iter::repeat(','));
            for ((key, value), separator) in entries.into_iter().zip(open) {
                out.push(separator);
                write_text(out, key);
                out.push(':');
                write_value(out, value);
            }
            out.push_str(if object.is_empty() { "{}" } else { "}" });
        }
    }
}

/// From here on not every integer is a double.
const INEXACT: u64 = 1 << 53;

fn write_number(out: &mut String, number: &Number) {
    let written = match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(integer), _, _) if integer >= INEXACT => write!(out, "\"{integer}\""),
        (_, Some(integer), _) if integer.unsigned_abs() >= INEXACT => write!(out, "\"{integer}\""),
        (Some(integer), _, _) => write!(out, "{integer}"),
        (_, Some(integer), _) => write!(out, "{integer}"),
        (_, _, Some(float)) => write_float(out, float),
        _ => Ok(()),
    };
    debug_assert!(written.is_ok(), "a string takes everything");
}

/// As ECMAScript writes numbers.
fn write_float(out: &mut String, float: f64) -> std::fmt::Result {
    let size = float.abs();
    if size == 0.0 {
        return out.write_char('0');
    }
    if (1e-6..1e21).contains(&size) {
        return write!(out, "{float}");
    }
    let text = format!("{float:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => write!(out, "{digits}e+{exponent}"),
        _ => out.write_str(&text),
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if control < ' ' => {
                let written = write!(out, "\\u{:04x}", u32::from(control));
                debug_assert!(written.is_ok(), "a string takes everything");
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_rfcs_example_is_written_as_the_rfc_writes_it() {
        let value: Value = serde_json::from_str(
            r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],
                "string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#,
        )
        .unwrap();
        let expected = concat!(
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"#,
            r#""string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        assert_eq!(to_string(&value), expected);
    }

    #[test]
    fn keys_are_sorted_by_utf_16() {
        assert_eq!(
            to_string(&json!({"\u{fb33}": 1, "\u{1f600}": 2, "a": 3})),
            "{\"a\":3,\"\u{1f600}\":2,\"\u{fb33}\":1}"
        );
        assert_eq!(to_string(&json!([{}, [], 1.0, -0.0, u64::MAX])), r#"[{},[],1,0,"18446744073709551615"]"#);
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_json_with_the_same_meaning(text: String, number: i64, milli in 0u16..=1000) {
            let value = json!({ &text: [text, number, f64::from(milli) / 1000.0, { "b": 1, "a": null }] });
            let once = to_string(&value);
            let again: Value = serde_json::from_str(&once).unwrap();
            prop_assert_eq!(to_string(&again), once);
        }
    }
}
