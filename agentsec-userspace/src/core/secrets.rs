//! Names that say that a credential follows: of headers, parameters, fields and flags.

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
        for name in
            ["Authorization", "X-API-Key", "access_key", "Ocp-Apim-Subscription-Key", "user[password]", "PWD"]
        {
            assert!(is_name_of_secret(name.as_bytes()) && name.bytes().all(is_of_name), "{name}");
        }
        for name in ["", "Host", "key", "keyboard", "author", "to-ken"] {
            assert!(!is_name_of_secret(name.as_bytes()), "{name}");
        }
    }
}
