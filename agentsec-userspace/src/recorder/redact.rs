//! Overwrites credentials in the first bytes of packets, before anything of them is kept or shown.
//!
//! What counts is a name that says so (`Authorization`, `Cookie`, `X-Api-Key`, `access_token`, `password`, …) with its value:
//! a header line of plaintext HTTP to its end, folded lines included, or a parameter of a query or form to the next one.
//! Every byte of the value becomes `*`, so that lengths stay. Nothing else can be told from a secret: what is compressed
//! (HTTP/2), encoded or has no such name is not found, which is why payload is not recorded unless that is asked for.

use std::collections::BTreeMap;

use agentsec_common::endpoint::Address;
use agentsec_common::packet::{Headers, protocol};

use crate::core::secrets::{is_name_of_secret, is_of_name, is_of_token, token_bytes, userinfo};

/// Longest name that is looked at.
const NAME_BYTES: usize = 64;
/// Bytes before which no payload begins: the shortest IP header.
const IP_BYTES: usize = 20;

/// Overwrites credentials in packets that come one after the other: a header line may go on in the next segment of its
/// connection.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Connections, of one direction, whose last segment ended within a credential, with the next one's sequence number.
    unfinished: BTreeMap<Way, u32>,
}

type Way = (Address, Address, u16, u16);

impl Redactor {
    /// Overwrites what `bytes`, the beginning of a packet with `headers`, hold of credentials.
    pub fn redact(&mut self, bytes: &mut [u8], headers: &Headers) {
        let start = usize::from(headers.header_bytes).min(bytes.len());
        let is_tcp = headers.protocol == protocol::TCP && headers.payload_bytes > 0;
        let way = (headers.source, headers.destination, headers.source_port, headers.destination_port);
        let goes_on = is_tcp && self.unfinished.remove(&way) == Some(headers.sequence);
        let mut inside = false;
        if goes_on {
            inside = overwrite_line(bytes, start) == bytes.len();
        }
        // From the IP header's end on: a TCP header that lies about its length hides nothing.
        inside |= redact(&mut bytes[start.min(IP_BYTES)..]);
        // Also when the rest of this segment was not recorded: the credential may go on to its end.
        if is_tcp && inside {
            self.unfinished.insert(way, headers.sequence.wrapping_add(headers.payload_bytes));
        }
    }
}

/// Overwrites credentials in `bytes`; true, when the last one may go on behind their end.
pub fn redact(bytes: &mut [u8]) -> bool {
    let mut at = 0;
    let mut inside = false;
    while at < bytes.len() {
        let Some(end) = overwrite_at(bytes, at) else {
            at += 1;
            continue;
        };
        inside = end == bytes.len();
        at = end;
    }
    inside
}

/// Overwrites the credential that is announced at `at`, or begins there; where it ends.
fn overwrite_at(bytes: &mut [u8], at: usize) -> Option<usize> {
    match bytes[at] {
        b':' if is_named(&bytes[..at]) => Some(overwrite_line(bytes, at + 1)),
        b'=' if is_named(&bytes[..at]) => Some(overwrite_parameter(bytes, at + 1)),
        b'=' => overwrite_part(bytes, at + 1),
        b':' => {
            let secret = userinfo(&bytes[at + 1..])?;
            bytes[at + 1..][secret.clone()].fill(b'*');
            Some(at + 1 + secret.end)
        }
        _ if at > 0 && is_of_token(bytes[at - 1]) => None,
        _ => {
            let end = Some(at + token_bytes(&bytes[at..])).filter(|end| *end > at)?;
            bytes[at..end].fill(b'*');
            Some(end)
        }
    }
}

/// Of a form in parts, overwrites the value of the field that is named in quotes at `from`, if it is a credential's; where it
/// ends.
fn overwrite_part(bytes: &mut [u8], from: usize) -> Option<usize> {
    let before = &bytes[..from];
    if !before.ends_with(b"name=") || before.ends_with(b"filename=") {
        return None;
    }
    let name = bytes[from..].strip_prefix(b"\"")?;
    let name = &name[..name.iter().take(NAME_BYTES).position(|byte| *byte == b'"')?];
    if !is_name_of_secret(name) {
        return None;
    }
    let value = from + bytes[from..].windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    Some(overwrite_line(bytes, value))
}

/// Whether what ends here is the name of a credential, quoted or not.
fn is_named(before: &[u8]) -> bool {
    let before = before.trim_ascii_end();
    let before = before.strip_suffix(b"\"").unwrap_or(before);
    let length = before.iter().rev().take(NAME_BYTES).take_while(|byte| is_of_name(**byte)).count();
    is_name_of_secret(&before[before.len() - length..])
}

/// Overwrites from `from` to the end of the line, and the lines folded onto it; where it ends.
fn overwrite_line(bytes: &mut [u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\n' if !matches!(bytes.get(at + 1), Some(b' ' | b'\t')) => return at,
            b'\n' | b'\r' | b' ' | b'\t' => {}
            ref mut byte => *byte = b'*',
        }
        at += 1;
    }
    at
}

/// Overwrites from `from` to the next parameter; where it ends.
fn overwrite_parameter(bytes: &mut [u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() && !matches!(bytes[at], b'&' | b' ' | b'\r' | b'\n' | b';' | b'#') {
        bytes[at] = b'*';
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redacted(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        redact(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn credentials_of_requests_and_answers_are_overwritten_and_nothing_else() {
        for (given, expected) in [
            (
                "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic c2VjcmV0\r\nAccept: */*\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: ***** ********\r\nAccept: */*\r\n\r\n",
            ),
            (
                "HTTP/1.1 200 OK\r\nset-cookie: id=7; Secure\r\nA: b",
                "HTTP/1.1 200 OK\r\nset-cookie: ***** ******\r\nA: b",
            ),
            ("PROXY-AUTHORIZATION:Bearer x\n", "PROXY-AUTHORIZATION:****** *\n"),
            (
                "X-Api-Key:k\r\nX-Auth-Token: t\r\nX-Amz-Security-Token: s",
                "X-Api-Key:*\r\nX-Auth-Token: *\r\nX-Amz-Security-Token: *",
            ),
            ("Cookie: a=b\r\n\tc=d\r\nAge: 3\r\n", "Cookie: ***\r\n\t***\r\nAge: 3\r\n"),
            (
                "GET /p?access_token=abc&q=1&api_key=z HTTP/1.1\r\n",
                "GET /p?access_token=***&q=1&api_key=* HTTP/1.1\r\n",
            ),
            ("user=bob&password=hunter2", "user=bob&password=*******"),
            ("user[password]=hunter2&a=b", "user[password]=*******&a=b"),
            ("user%5Bpassword%5D=hunter2&a=b", "user%5Bpassword%5D=*******&a=b"),
            ("access_key=k&pwd=p&page=3", "access_key=*&pwd=*&page=3"),
            (
                "Ocp-Apim-Subscription-Key: k\r\nHost: [::1]:80\r\n",
                "Ocp-Apim-Subscription-Key: *\r\nHost: [::1]:80\r\n",
            ),
            ("{\"password\" : \"hunter2\"}", "{\"password\" : **********"),
            ("Referer: http://u:hunter2@h/a:b@c\r\n", "Referer: http://u:*******@h/a:b@c\r\n"),
            ("Referer: http://h/\r\nTo: a@b", "Referer: http://h/\r\nTo: a@b"),
            ("X: sk-hunter2-AAAAAAAAAAAAAAA\r\n", "X: **************************\r\n"),
            (
                "form-data; name=\"password\"\r\nA: b\r\n\r\nhunter2\r\n--x; name=\"q\"\r\n\r\nshown\r\n",
                "form-data; name=\"password\"\r\nA: b\r\n\r\n*******\r\n--x; name=\"q\"\r\n\r\nshown\r\n",
            ),
            ("Cookie", "Cookie"),
            (
                "Content-Type: text/plain\r\nHost: cookies.example\r\n",
                "Content-Type: text/plain\r\nHost: cookies.example\r\n",
            ),
        ] {
            assert_eq!(redacted(given), expected);
        }
    }

    fn tcp(sequence: u32, payload_bytes: u32) -> Headers {
        Headers { protocol: protocol::TCP, sequence, payload_bytes, header_bytes: 40, ..Headers::NONE }
    }

    #[test]
    fn a_line_that_goes_on_in_the_next_segment_is_overwritten_there_too() {
        let mut redactor = Redactor::default();
        let mut segment = |sequence: u32, payload: &str| {
            let mut bytes = [&[0; 40][..], payload.as_bytes()].concat();
            redactor.redact(&mut bytes, &tcp(sequence, payload.len() as u32));
            String::from_utf8(bytes[40..].to_vec()).unwrap()
        };
        assert_eq!(segment(100, "Authorization: Bea"), "Authorization: ***");
        assert_eq!(segment(118, "rer abc"), "*** ***");
        assert_eq!(segment(125, "def\r\nHost: a\r\n"), "***\r\nHost: a\r\n");
        assert_eq!(segment(139, "plain"), "plain");
        assert_eq!(segment(200, "Cookie: x"), "Cookie: *");
        assert_eq!(segment(300, "not the next segment"), "not the next segment");
    }

    #[test]
    fn a_line_whose_end_was_not_recorded_is_overwritten_in_the_next_segment() {
        let mut redactor = Redactor::default();
        let mut cut = [&[0; 40][..], b"Authorization: Bea"].concat();
        redactor.redact(&mut cut, &tcp(100, 1448));
        let mut next = [&[0; 40][..], b"rer abc\r\nHost: a\r\n"].concat();
        redactor.redact(&mut next, &tcp(1548, 18));
        assert!(next.ends_with(b"*** ***\r\nHost: a\r\n"));
    }

    #[test]
    fn a_header_that_lies_about_its_length_hides_nothing() {
        let mut bytes = [&[0; 40][..], b"Cookie: abc"].concat();
        Redactor::default().redact(&mut bytes, &Headers { header_bytes: 60, ..tcp(1, 11) });
        assert!(bytes.ends_with(b"Cookie: ***"));
    }

    proptest! {
        #[test]
        fn no_secret_survives_wherever_it_is_and_no_length_changes(
            before in "[ -~\r\n]{0,40}", name in "(AUTHORIZATION|authorization|x-Api-Key|X-API-KEY|set-cookie|Set-Cookie)", secret in "[A-Z0-9]{4,40}",
            cut in 0usize..160,
        ) {
            let text = format!("{before}\n{name}: {secret}\r\n");
            let mut bytes = text.as_bytes()[..cut.min(text.len())].to_vec();
            let length = bytes.len();
            redact(&mut bytes);
            prop_assert_eq!(bytes.len(), length);
            let shown = &secret.as_bytes()[..4];
            prop_assert!(before.contains(&secret[..4]) || !bytes.windows(4).any(|part| part == shown));
        }

        #[test]
        fn any_bytes_are_taken(mut bytes: Vec<u8>, header_bytes: u16, payload_bytes: u32, sequence: u32) {
            let headers = Headers { header_bytes, ..tcp(sequence, payload_bytes) };
            Redactor::default().redact(&mut bytes, &headers);
        }
    }
}
