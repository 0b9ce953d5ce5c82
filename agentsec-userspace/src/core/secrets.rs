//! Names that say that a credential follows: of headers, parameters, fields and flags. And shapes that only credentials have.

use std::ops::Range;

/// A name that contains one of these is a credential's.
const NAMES: [&str; 22] = [
    "access_key",
    "accesskey",
    "api_key",
    "apikey",
    "auth_key",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "functions_key",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "privatekey",
    "pwd",
    "secret",
    "session",
    "signature",
    "subscription_key",
    "token",
    "x_auth",
];

/// Whether a name is a credential's, in any case and with `-` for `_`.
#[must_use]
pub fn is_name_of_secret(name: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    let name: Vec<u8> = name.iter().map(plain).collect();
    NAMES.iter().any(|known| name.windows(known.len()).any(|part| part == known.as_bytes()))
        || name.split(|byte| !byte.is_ascii_alphanumeric()).any(|word| word == b"pass")
}

/// How the tokens of well-known issuers begin.
const TOKENS: [&str; 11] =
    ["sk-", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AKIA", "AIza", "eyJ"];
/// The shortest of them.
const TOKEN_BYTES: usize = 20;

/// How long the token is with which a text begins, by its shape; 0 when it begins with none.
#[must_use]
pub fn token_bytes(text: &[u8]) -> usize {
    if !TOKENS.iter().any(|known| text.starts_with(known.as_bytes())) {
        return 0;
    }
    let token = &text[..text.iter().take_while(|byte| is_of_token(**byte)).count()];
    if token.len() >= TOKEN_BYTES && token.iter().any(u8::is_ascii_digit) { token.len() } else { 0 }
}

/// Whether a byte may be within a token.
#[must_use]
pub fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Of what follows the `:` of an address, the password of `//user:password@host`.
#[must_use]
pub fn userinfo(rest: &[u8]) -> Option<Range<usize>> {
    let authority = rest.strip_prefix(b"//")?;
    let ends = |byte: &u8| matches!(byte, b'/' | b'?' | b'#' | b' ' | b'"' | b'\r' | b'\n');
    let end = authority.iter().position(ends).unwrap_or(authority.len());
    let at = authority[..end].iter().rposition(|byte| *byte == b'@')?;
    let colon = authority[..at].iter().position(|byte| *byte == b':')?;
    Some(2 + colon + 1..2 + at)
}

/// Whether a byte may be within a name. Brackets are: forms nest fields as `user[password]`, which is `user%5Bpassword%5D` in an address.
#[must_use]
pub fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'[' | b']' | b'%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_any_case_and_spelling() {
        for name in [
            "Authorization",
            "X-API-Key",
            "access_key",
            "Ocp-Apim-Subscription-Key",
            "user[password]",
            "PWD",
            "--pass",
            "DB_PASS",
        ] {
            assert!(is_name_of_secret(name.as_bytes()) && name.bytes().all(is_of_name), "{name}");
        }
        for name in ["", "Host", "key", "keyboard", "author", "to-ken", "bypass", "passive", "compass_x"] {
            assert!(!is_name_of_secret(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_token_is_known_by_its_shape_and_nothing_shorter_or_plainer_is() {
        for (text, bytes) in [
            ("sk-ant-api03-AAAAAAAAAAAAAAAAAA rest", 31),
            ("ghp_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 40),
            ("AKIAIOSFODNN7EXAMPLE\"", 20),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc", 44),
            ("sk-learn", 0),
            ("sk-learn-has-a-long-name-here", 0),
            ("ask-AAAAAAAAAAAAAAAAAAAAAAAA1", 0),
            ("", 0),
        ] {
            assert_eq!(token_bytes(text.as_bytes()), bytes, "{text}");
        }
    }
}
