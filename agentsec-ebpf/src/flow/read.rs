//! Reading a packet's first bytes.

use aya_ebpf::bindings::__sk_buff;

use agentsec_common::auth::AuthKind;
use agentsec_common::flow::{Flow, Language, Line, Sent, Start};
use agentsec_common::payload::{
    Method, dns_query, dns_response, is_http2_preface, is_tls_record, request_method, tls_alert,
};

use super::entry::{is_opened, load_requests, load_sent, load_statuses};
use super::is_tcp;
use crate::case::Case;
use crate::payload::{First, first};
use crate::words::store;

/// Port of DNS.
const DNS: u16 = 53;

/// Length of the only interim status that comes in one segment with what follows it: `HTTP/1.1 100 Continue` and an empty
/// line.
const CONTINUE_BYTES: u32 = 25;

/// Whether a decision about the packet rests on its payload.
#[inline(always)]
pub(super) fn is_read_first(entry: *const Flow, case: &Case) -> bool {
    let sent = load_sent(entry);
    let language = sent.language();
    case.headers.has_payload
        && match (is_opened(entry), case.inbound) {
            (true, 0) => !matches!(language, Language::Tls | Language::Other),
            (true, _) => matches!(language, Language::Dns),
            (false, 0) => false,
            (false, _) => is_tcp(case) && sent.is_read() && !load_statuses(entry).has_heard(),
        }
}

/// What a packet's payload says, in one word: bits 0..8 language, 8..16 start, 16 connect, 32..64 id; zero for nothing.
#[inline(always)]
fn said(language: Language, start: Start, connects: bool) -> u64 {
    language as u64 | (start as u64) << 8 | (connects as u64) << 16
}

/// Whether the payload that was read is the begin of a request in plain HTTP/1.
#[inline(always)]
pub(super) fn is_request(read: u64) -> bool {
    matches!(Start::from_byte((read >> 8) as u8), Start::Request)
}

/// Set in ids of DNS messages, so that none is zero.
const DNS_ID: u32 = 1 << 16;

/// Reads the first bytes of a packet's payload: see [`said`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_read(skb: *mut __sk_buff, case: *const Case, sent: u64) -> u64 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let Some(First { bytes, length }) = first(skb, case, 0) else { return 0 };
    if is_tcp(case) { read_segment(&bytes, length, Sent(sent)) } else { read_datagram(&bytes, length, case) }
}

#[inline(always)]
fn read_datagram(bytes: &[u8; 16], length: u32, case: &Case) -> u64 {
    let id = match case.inbound {
        0 if case.headers.destination_port == DNS => dns_query(bytes, length),
        0 => None,
        _ => dns_response(bytes, length),
    };
    match id {
        Some(id) => said(Language::Dns, Start::Unread, false) | ((DNS_ID | id as u32) as u64) << 32,
        None => said(Language::Other, Start::Unread, false),
    }
}

#[inline(always)]
fn read_segment(bytes: &[u8; 16], length: u32, sent: Sent) -> u64 {
    if let Some(method) = request_method(bytes, length) {
        return said(Language::Http1, Start::Request, matches!(method, Method::Connect));
    }
    match sent.spoken() {
        Language::Http1 => said(Language::Http1, Start::Rest, sent.is_connecting()),
        Language::Http2 => said(Language::Http2, Start::Shared, sent.is_connecting()),
        _ if is_http2_preface(bytes, length) => said(Language::Http2, Start::Shared, false),
        _ if is_tls_record(bytes, length) => said(Language::Tls, Start::Shared, false),
        _ => said(Language::Other, Start::Unread, false),
    }
}

/// Whether the payload is a TLS alert that refuses the agent, perhaps in the second answer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_refuses(skb: *mut __sk_buff, case: *const Case, second: u32) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let Some(First { bytes, length }) = first(skb, case, 0) else { return 0 };
    tls_alert(&bytes, length, case.headers.payload_bytes).is_some_and(|alert| alert.refuses(second != 0))
        as i32
}

/// Reads on in a status line at `offset` of the payload. The [`AuthKind`] plus one, if it is of a failed authentication.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_hear_status(
    skb: *mut __sk_buff,
    case: *const Case,
    entry: *mut Flow,
    offset: u32,
) -> u64 {
    // SAFETY: the verifier checks that callers pass a whole case and entry.
    let (Some(case), false) = (unsafe { case.as_ref() }, entry.is_null()) else { return 0 };
    let mut offset = offset;
    let mut failed = 0;
    for _ in 0..2 {
        let Some(First { bytes, length }) = first(skb, case, offset) else { break };
        match read_status(entry, &bytes, length) {
            Some(100) => offset += CONTINUE_BYTES,
            Some(status) => {
                failed = AuthKind::of_status(status).map_or(0, |kind| kind as u64 + 1);
                break;
            }
            None => break,
        }
    }
    failed
}

/// Reads on in a status line; the status, once it is there.
#[inline(always)]
fn read_status(entry: *mut Flow, bytes: &[u8; 16], length: u32) -> Option<u32> {
    let statuses = load_statuses(entry);
    let waiting = statuses.waiting(load_requests(entry));
    let (statuses, line) = statuses.advance(bytes, length);
    let (statuses, status) = match line {
        Line::Status(status) => {
            (statuses.met(status, waiting, load_sent(entry).is_connecting()), Some(status))
        }
        // Of several answers, a segment that begins with no status line goes on with an earlier one.
        Line::Foreign if waiting == 1 => (statuses.met(0, waiting, false), None),
        Line::Foreign | Line::Unfinished => (statuses, None),
    };
    // SAFETY: a whole entry, as the verifier checks.
    unsafe { store(&raw mut (*entry).statuses, statuses.0) };
    status
}
