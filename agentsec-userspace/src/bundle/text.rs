//! Bytes that somebody hostile has chosen, shown so that nothing hides: what is not plain text is escaped, and the
//! bytes themselves are kept in hex.

use serde_json::{Map, Value};

/// `bytes` as text: what is no valid UTF-8 becomes `\xNN`, control characters and what turns the direction of writing or
/// takes no room become `\u{…}`, and a backslash doubles. Never ambiguous.
#[must_use]
pub fn visible(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                hidden if is_hidden(hidden) => out.extend(hidden.escape_unicode()),
                shown => out.push(shown),
            }
        }
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out
}

/// Whether the text says the bytes as they are, so that nothing need be kept beside it.
#[must_use]
pub fn is_plain(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(|one| one == '\\' || is_hidden(one)))
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Puts `bytes` into `object` under `name`, at most `most` of them, and beside it `NAME_hex` where the text is not the
/// bytes, and `NAME_bytes` (how many there were) where they were cut. Whether they were.
pub fn put(object: &mut Map<String, Value>, name: &str, bytes: &[u8], most: usize) -> bool {
    let kept = &bytes[..bytes.len().min(most)];
    object.insert(name.to_owned(), visible(kept).into());
    if !is_plain(kept) {
        object.insert(format!("{name}_hex"), super::hex(kept).into());
    }
    let cut = kept.len() < bytes.len();
    if cut {
        object.insert(format!("{name}_bytes"), bytes.len().into());
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_would_hide_is_seen() {
        for (bytes, shown) in [
            (&b"/usr/bin/python3"[..], "/usr/bin/python3"),
            (b"a\nb\x1b[2J", "a\\u{a}b\\u{1b}[2J"),
            (b"caf\xe9", "caf\\xe9"),
            ("gnp.\u{202e}exe".as_bytes(), "gnp.\\u{202e}exe"),
            ("zero\u{200b}width".as_bytes(), "zero\\u{200b}width"),
            (b"C:\\x41", "C:\\\\x41"),
            ("größe".as_bytes(), "größe"),
        ] {
            assert_eq!(visible(bytes), shown);
            assert_eq!(is_plain(bytes), shown.as_bytes() == bytes, "{shown}");
        }
    }

    #[test]
    fn bytes_are_kept_beside_a_text_that_is_not_them_and_a_cut_is_told() {
        let mut object = Map::new();
        assert!(!put(&mut object, "exe", b"/bin/\xff", 100));
        assert_eq!(object["exe_hex"], "2f62696e2fff");
        assert!(put(&mut object, "name", b"abcdef", 3));
        assert_eq!((&object["name"], &object["name_bytes"]), (&"abc".into(), &6.into()));
        assert!(!object.contains_key("name_hex") && !object.contains_key("exe_bytes"));
    }

    proptest! {
        #[test]
        fn different_bytes_are_shown_differently(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(visible(&a) == visible(&b), a == b);
            let shown = visible(&a);
            prop_assert!(!shown.chars().any(is_hidden));
        }
    }
}
