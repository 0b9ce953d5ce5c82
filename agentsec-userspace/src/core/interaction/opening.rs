//! What the first segment of a plaintext HTTP/1 request tells: its method, how the caller said who it is, the trace that
//! it belongs to. Total over any bytes, and never a credential.

use super::trace::trace_id;
use crate::core::hex::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Header lines that are looked at.
const LINES: usize = 128;
/// Longest method that is shown.
const METHOD_BYTES: usize = 20;

/// Schemes of `Authorization` by IANA's registry, and those that are in wide use without it. Another word there may be
/// the credential itself, and is not shown.
const SCHEMES: [&str; 21] = [
    "apikey",
    "aws4-hmac-sha256",
    "basic",
    "bearer",
    "concealed",
    "digest",
    "dpop",
    "gnap",
    "hoba",
    "key",
    "mutual",
    "negotiate",
    "ntlm",
    "oauth",
    "privatetoken",
    "scram-sha-1",
    "scram-sha-256",
    "sharedkey",
    "signature",
    "token",
    "vapid",
];

/// What a request told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// `http` and the method.
    pub kind: String,
    /// How the caller said who it is; `None` if it did not within what was seen.
    pub auth_method: Option<String>,
    /// W3C trace id in hex.
    pub trace_id: Option<String>,
    /// SHA-256 in hex of the bytes that were seen.
    pub payload_hash: String,
    /// How many they were.
    pub payload_bytes: u64,
}

/// Reads the first bytes of a request.
#[must_use]
pub fn read(bytes: &[u8]) -> Opening {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').take(LINES);
    let method = lines.next().map_or(&b""[..], method);
    let mut auth = [None, None, None, None];
    let mut trace = None;
    for line in lines {
        let (text, is_whole) = match line.strip_suffix(b"\n") {
            Some(text) => (text.strip_suffix(b"\r").unwrap_or(text), true),
            None => (line, false),
        };
        if text.is_empty() {
            break;
        }
        let Some(colon) = text.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (text[..colon].to_ascii_lowercase(), text[colon + 1..].trim_ascii_start());
        let rank = match name.as_slice() {
            b"authorization" => Some((0, scheme(value))),
            b"proxy-authorization" => Some((1, scheme(value))),
            b"x-api-key" | b"api-key" | b"x-goog-api-key" => Some((2, "api_key")),
            b"cookie" => Some((3, "cookie")),
            // A value that was cut is another one.
            b"traceparent" if is_whole && trace.is_none() => {
                trace = std::str::from_utf8(value).ok().and_then(trace_id).map(str::to_owned);
                None
            }
            _ => None,
        };
        if let Some((rank, how)) = rank {
            auth[rank].get_or_insert(how);
        }
    }
    Opening {
        kind: if method.is_empty() { "http".into() } else { format!("http {}", ascii(method)) },
        auth_method: auth.into_iter().flatten().next().map(str::to_owned),
        trace_id: trace,
        payload_hash: hex(&Sha256::digest(bytes)),
        payload_bytes: bytes.len() as u64,
    }
}

/// The request line's first word, if it is a method.
fn method(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
    let word = &line[..end.min(METHOD_BYTES + 1)];
    let fits =
        word.len() <= METHOD_BYTES && word.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
    if fits { word } else { b"" }
}

/// The scheme of a credential; `other` for one that is not known, or where the credential stands alone.
fn scheme(value: &[u8]) -> &'static str {
    // Without something behind it, the word may be the credential, or the begin of one that was cut.
    let Some(end) = value.iter().position(|byte| *byte == b' ') else { return "other" };
    let word = value[..end].to_ascii_lowercase();
    SCHEMES.into_iter().find(|scheme| scheme.as_bytes() == word).unwrap_or("other")
}

fn ascii(word: &[u8]) -> String {
    word.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn request(headers: &str) -> Opening {
        read(format!("POST /v1/chat HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes())
    }

    #[test]
    fn a_request_tells_its_method_scheme_trace_and_hash() {
        let text = format!(
            "GET /a HTTP/1.1\r\nHOST: b\r\nauthorization: Bearer secret\r\nTraceParent: 00-{TRACE}-00f067aa0ba902b7-01\r\n\r\n"
        );
        let opening = read(text.as_bytes());
        assert_eq!((opening.kind.as_str(), opening.auth_method.as_deref()), ("http GET", Some("bearer")));
        assert_eq!(opening.trace_id.as_deref(), Some(TRACE));
        assert_eq!(opening.payload_bytes, text.len() as u64);
        // `printf 'GET / HTTP/1.1\r\n\r\n' | sha256sum`
        let known = "8ac8a2c19d1c441af9f62e3e2309d3adaf82ddc6cbc8f100770cc234df048e17";
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n").payload_hash, known);
    }

    #[test]
    fn the_scheme_is_told_and_never_the_credential() {
        for (headers, expected) in [
            ("Authorization: Basic dTpw\r\n", Some("basic")),
            ("Authorization:digest username=\"x\"\r\n", Some("digest")),
            ("Authorization: AWS4-HMAC-SHA256 Credential=x\r\n", Some("aws4-hmac-sha256")),
            ("Authorization: sk-live-123456\r\n", Some("other")),
            ("Authorization: sk-live 123456\r\n", Some("other")),
            ("Authorization: bearer\r\n", Some("other")),
            ("Proxy-Authorization: Negotiate abc\r\n", Some("negotiate")),
            ("Cookie: a=b\r\nX-API-Key: k\r\n", Some("api_key")),
            ("Cookie: session=1\r\n", Some("cookie")),
            ("Cookie: a=b\r\nAuthorization: Bearer x\r\n", Some("bearer")),
            ("X-Authorization-Note: Basic x\r\n", None),
            ("", None),
        ] {
            assert_eq!(request(headers).auth_method.as_deref(), expected, "{headers:?}");
        }
        let body = read(b"POST / HTTP/1.1\r\nHost: a\r\n\r\nAuthorization: Basic x\r\n");
        assert_eq!(body.auth_method, None, "a body is no header");
    }

    #[test]
    fn what_was_cut_tells_what_is_certain() {
        let cut = format!("GET / HTTP/1.1\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(read(cut.as_bytes()).trace_id, None, "its end was not seen");
        assert_eq!(
            read(b"GET / HTTP/1.1\r\nAuthorization: Bearer ey").auth_method.as_deref(),
            Some("bearer")
        );
        assert_eq!(read(b"GET / HTTP/1.1\r\nAuthorization: Bear").auth_method.as_deref(), Some("other"));
        assert_eq!(read(b"\x16\x03\x01").kind, "http");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_what_is_shown_is_known(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
            let opening = read(&bytes);
            prop_assert_eq!(opening.payload_bytes, bytes.len() as u64);
            prop_assert!(opening.kind.len() <= 5 + METHOD_BYTES && opening.kind.is_ascii());
        }

        #[test]
        fn a_credential_is_never_shown(credential in "[!-~]{4,40}", scheme in "[A-Za-z]{1,12}") {
            let shown = request(&format!("Authorization: {scheme} {credential}\r\n")).auth_method.unwrap();
            prop_assert!(shown == "other" || SCHEMES.contains(&shown.as_str()));
            let alone = request(&format!("Authorization: {credential}\r\n")).auth_method.unwrap();
            prop_assert_eq!(alone, "other");
        }
    }
}
