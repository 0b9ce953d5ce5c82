//! What the first bytes of a payload are: total functions over sixteen bytes, of which so many are there.

/// The first bytes; zero where there are none.
pub type FirstBytes = [u8; 16];

/// A method of HTTP/1, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Asks for a tunnel.
    Connect,
    /// Any other.
    Other,
}

/// Four bytes as one number.
#[inline(always)]
const fn word(bytes: &FirstBytes, at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Two bytes as one number.
#[inline(always)]
const fn half(bytes: &FirstBytes, at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

const fn letters(text: [u8; 4]) -> u32 {
    u32::from_be_bytes(text)
}

const GET: u32 = letters(*b"GET ");
const PUT: u32 = letters(*b"PUT ");
const POST: u32 = letters(*b"POST");
const HEAD: u32 = letters(*b"HEAD");
const PATC: u32 = letters(*b"PATC");
const DELE: u32 = letters(*b"DELE");
const OPTI: u32 = letters(*b"OPTI");
const TRAC: u32 = letters(*b"TRAC");
const CONN: u32 = letters(*b"CONN");
const ECT: u32 = letters(*b"ECT ");

/// The method of a request of HTTP/1 that begins here: one of those that RFC 9110 and RFC 5789 name, and a space.
#[inline(always)]
#[must_use]
pub const fn request_method(bytes: &FirstBytes, length: u32) -> Option<Method> {
    if length < 5 {
        return None;
    }
    let method = match word(bytes, 0) {
        GET | PUT => return Some(Method::Other),
        POST | HEAD if bytes[4] == b' ' => Method::Other,
        PATC if bytes[4] == b'H' && bytes[5] == b' ' => Method::Other,
        TRAC if bytes[4] == b'E' && bytes[5] == b' ' => Method::Other,
        DELE if word(bytes, 3) == letters(*b"ETE ") => Method::Other,
        OPTI if word(bytes, 4) == letters(*b"ONS ") => Method::Other,
        CONN if word(bytes, 4) == ECT => Method::Connect,
        _ => return None,
    };
    Some(method)
}

/// Whether a client of HTTP/2 with prior knowledge begins here (RFC 9113, section 3.4).
#[inline(always)]
#[must_use]
pub const fn is_http2_preface(bytes: &FirstBytes, length: u32) -> bool {
    length == 16
        && word(bytes, 0) == letters(*b"PRI ")
        && word(bytes, 4) == letters(*b"* HT")
        && word(bytes, 8) == letters(*b"TP/2")
        && word(bytes, 12) == letters(*b".0\r\n")
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
/// Bytes of a TLS record before its content.
const RECORD_HEADER: u32 = 5;
/// An alert's two bytes, its type and the tag of the cipher: all records of TLS 1.3 that are as long are alerts, since what else
/// is sent under protection within a handshake is longer.
const PROTECTED_ALERT: u16 = 2 + 1 + 16;

/// Whether a TLS record begins here: of a known type, of version 3.
#[inline(always)]
#[must_use]
pub const fn is_tls_record(bytes: &FirstBytes, length: u32) -> bool {
    length >= RECORD_HEADER
        && bytes[0] >= CHANGE_CIPHER_SPEC
        && bytes[0] <= APPLICATION_DATA
        && bytes[1] == 3
        && bytes[2] <= 4
}

/// A TLS alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// In the clear, with its description.
    Plain(u8),
    /// Under protection: that it is one is told by its length.
    Protected,
}

impl Alert {
    /// Whether it refuses the peer's certificate or identity, when it answers a handshake.
    ///
    /// In the clear: bad, unsupported, revoked, expired or unknown certificate (42–46), unknown authority (48), access denied
    /// (49), unknown identity of a pre-shared key (115), certificate required (116), and handshake failure (40), which is what
    /// servers before TLS 1.3 say when none is given. Under protection the reason cannot be read. As the `second` answer it
    /// is a refusal: the first one greets, and the next says what the server thinks of the agent's certificate. A later one
    /// is how connections end.
    #[inline(always)]
    #[must_use]
    pub const fn refuses(self, second: bool) -> bool {
        match self {
            Self::Plain(description) => matches!(description, 40 | 42..=46 | 48 | 49 | 115 | 116),
            Self::Protected => second,
        }
    }
}

/// The alert that is all of a payload of `payload` bytes, if it is one: in the clear a fatal one.
#[inline(always)]
#[must_use]
pub const fn tls_alert(bytes: &FirstBytes, length: u32, payload: u32) -> Option<Alert> {
    const FATAL: u8 = 2;
    if length < RECORD_HEADER + 2 || bytes[1] != 3 {
        return None;
    }
    let content = half(bytes, 3);
    match bytes[0] {
        ALERT if content == 2 && bytes[5] == FATAL => Some(Alert::Plain(bytes[6])),
        ALERT if content > 2 => Some(Alert::Protected),
        APPLICATION_DATA if content == PROTECTED_ALERT && payload == RECORD_HEADER + content as u32 => {
            Some(Alert::Protected)
        }
        _ => None,
    }
}

/// Bytes of the header of a DNS message.
const DNS_HEADER: u32 = 12;

/// The id of a DNS query that begins here: a standard one, which asks something and answers nothing.
#[inline(always)]
#[must_use]
pub const fn dns_query(bytes: &FirstBytes, length: u32) -> Option<u16> {
    let asks = half(bytes, 4) != 0 && half(bytes, 6) == 0;
    if length >= DNS_HEADER && bytes[2] & 0xf8 == 0 && asks { Some(half(bytes, 0)) } else { None }
}

/// The id of a DNS response that begins here, to a standard query.
#[inline(always)]
#[must_use]
pub const fn dns_response(bytes: &FirstBytes, length: u32) -> Option<u16> {
    if length >= DNS_HEADER && bytes[2] & 0xf8 == 0x80 { Some(half(bytes, 0)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(text: &[u8]) -> (FirstBytes, u32) {
        let mut bytes = [0; 16];
        let length = text.len().min(16);
        bytes[..length].copy_from_slice(&text[..length]);
        (bytes, length as u32)
    }

    #[test]
    fn a_request_begins_with_a_method_and_a_space() {
        for method in ["GET", "PUT", "POST", "HEAD", "PATCH", "TRACE", "DELETE", "OPTIONS", "CONNECT"] {
            let (bytes, length) = first(format!("{method} /a HTTP/1.1").as_bytes());
            let expected = if method == "CONNECT" { Method::Connect } else { Method::Other };
            assert_eq!(request_method(&bytes, length), Some(expected), "{method}");
            let (bytes, length) = first(format!("{method}x/a").as_bytes());
            assert_eq!(request_method(&bytes, length), None, "{method}x");
        }
        for other in ["get / HTTP/1.1", "HTTP/1.1 200 OK", "GE", "GET ", "PRI * HTTP/2.0"] {
            let (bytes, length) = first(other.as_bytes());
            assert_eq!(request_method(&bytes, length), None, "{other}");
        }
    }

    #[test]
    fn the_preface_of_http2_is_told_from_requests() {
        let (bytes, length) = first(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert!(is_http2_preface(&bytes, length));
        assert!(!is_http2_preface(&bytes, 15));
        let (bytes, length) = first(b"PRI * HTTP/1.1\r\n");
        assert!(!is_http2_preface(&bytes, length));
    }

    #[test]
    fn alerts_by_what_they_say() {
        let plain = |level, description| first(&[21, 3, 3, 0, 2, level, description]).0;
        assert_eq!(tls_alert(&plain(2, 49), 7, 7), Some(Alert::Plain(49)));
        assert_eq!(tls_alert(&plain(1, 0), 7, 7), None, "a warning");
        assert_eq!(tls_alert(&plain(2, 49), 6, 6), None, "cut short");
        let (protected, _) = first(&[23, 3, 3, 0, 19, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(tls_alert(&protected, 16, 24), Some(Alert::Protected));
        assert_eq!(tls_alert(&protected, 16, 300), None, "with more behind it");
        let (earlier, _) = first(&[21, 3, 3, 0, 26, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(tls_alert(&earlier, 16, 31), Some(Alert::Protected));
        let refused: Vec<u8> =
            (0..=255).filter(|&description| Alert::Plain(description).refuses(false)).collect();
        assert_eq!(refused, [40, 42, 43, 44, 45, 46, 48, 49, 115, 116]);
        assert!(Alert::Protected.refuses(true) && !Alert::Protected.refuses(false));
    }

    #[test]
    fn dns_messages_by_their_header() {
        let header = |flags: u8, questions: u8, answers: u8| {
            first(&[0xbe, 0xef, flags, 0, 0, questions, 0, answers, 0, 0, 0, 0, 1, b'a', 0, 0]).0
        };
        assert_eq!(dns_query(&header(1, 1, 0), 16), Some(0xbeef));
        assert_eq!(dns_query(&header(1, 0, 0), 16), None, "asks nothing");
        assert_eq!(dns_query(&header(0x81, 1, 0), 16), None, "a response");
        assert_eq!(dns_query(&header(0x29, 1, 0), 16), None, "an update");
        assert_eq!(dns_response(&header(0x81, 1, 1), 16), Some(0xbeef));
        assert_eq!(dns_response(&header(1, 1, 0), 16), None);
        assert_eq!(dns_response(&header(0x81, 1, 1), 11), None, "cut short");
    }

    proptest! {
        #[test]
        fn what_begins_here_is_one_thing_at_most(bytes: [u8; 16], length in 0u32..=16) {
            let request = request_method(&bytes, length).is_some();
            let others = [is_http2_preface(&bytes, length), is_tls_record(&bytes, length)];
            prop_assert!(u8::from(request) + others.map(u8::from).iter().sum::<u8>() <= 1);
            prop_assert!(dns_query(&bytes, length).is_none() || dns_response(&bytes, length).is_none());
        }
    }
}
