//! Following connections: what the agent asks, what it is answered, and when.
//!
//! The rules are in [`agentsec_common::flow`]; here are the map, the payload and the clock. A packet is first read, then
//! decided about, then acted on, each in functions that call no other of these, since all that are called at once share
//! one small stack.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_ktime_get_ns;

use agentsec_common::auth::AuthKind;
use agentsec_common::flow::{Flow, FlowKey, Language, Segment};
use agentsec_common::packet::{Class, Role, protocol, tcp};
use agentsec_common::profile::{FOLLOW_FLOWS, Profile};

use crate::case::Case;
use crate::maps::FLOWS;
use crate::payload::{agentsec_http2, agentsec_sample, pack};
use crate::signals::{agentsec_auth_failed, agentsec_requested, agentsec_responded};
use crate::words::{add, load, store};

mod entry;
mod hear;
mod list;
mod read;
mod record;
mod say;

pub use entry::kind;
pub use list::{agentsec_end, find, is_settled, passed, settle};

use entry::{is_another, load_samples, load_sent};
use hear::agentsec_hear;
use list::agentsec_new_flow;
use read::{agentsec_hear_status, agentsec_read, agentsec_refuses, is_read_first};
use record::agentsec_opening;
use say::agentsec_say;

/// Whether a packet says anything about a connection: it has payload, or begins or ends one.
#[inline(always)]
pub fn concerns(case: &Case, profile: &Profile) -> bool {
    let headers = &case.headers;
    if profile.flags & FOLLOW_FLOWS == 0
        || !matches!(headers.role, Role::Endpoint)
        || !matches!(headers.class, Class::Ipv4 | Class::Ipv6)
    {
        return false;
    }
    match headers.protocol {
        protocol::TCP => headers.has_payload || headers.tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0,
        protocol::UDP => headers.has_payload,
        _ => false,
    }
}

/// The key of a packet's connection.
#[inline(always)]
pub fn key_of(case: &Case) -> FlowKey {
    let remote = case.headers.remote(case.direction());
    let local = if case.inbound != 0 { &case.headers.destination } else { &case.headers.source };
    let ports = (remote.local_port, remote.port);
    FlowKey::new(case.slot, case.headers.protocol, local, ports, remote.address)
}

#[inline(always)]
pub(super) fn is_tcp(case: &Case) -> bool {
    case.headers.protocol == protocol::TCP
}

#[inline(always)]
pub(super) fn segment_of(case: &Case) -> Segment {
    Segment {
        sequence: case.headers.sequence,
        acknowledgment: case.headers.acknowledgment,
        payload: case.headers.payload_bytes,
        flags: case.headers.tcp_flags,
    }
}

/// Whether the packet opens a connection.
#[inline(always)]
pub(super) fn opens(case: &Case) -> bool {
    case.headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// What is to be done about a packet, beside a number: an offset, a count or an [`AuthKind`].
mod act {
    /// The connection is over.
    pub const END: u64 = 1;
    /// A response time is to be counted.
    pub const RESPOND: u64 = 1 << 1;
    /// An authentication has failed; the number is its kind.
    pub const FAIL: u64 = 1 << 2;
    /// A status line may be at an offset, the number.
    pub const STATUS: u64 = 1 << 3;
    /// A TLS alert may be there; the number is one in the second answer.
    pub const ALERT: u64 = 1 << 4;
    /// Headers of HTTP/2 may be there.
    pub const HEADERS: u64 = 1 << 5;
    /// The daemon is to have a look.
    pub const SAMPLE: u64 = 1 << 6;
    /// So many requests are to be counted.
    pub const REQUEST: u64 = 1 << 7;
    /// The daemon is to have a look at the connection's first request.
    pub const OPENING: u64 = 1 << 8;
    /// Where the number is.
    pub const NUMBER_SHIFT: u32 = 32;
}

/// Follows a packet's connection, which was found to be `found`, or null. One, when it is over.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_follow(skb: *mut __sk_buff, case: *const Case, found: *mut Flow) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let entry = if found.is_null() { taken_up(case) } else { found };
    if entry.is_null() {
        return 0;
    }
    if found.is_null() {
        list::count_beside(entry, case);
    }
    let read = if is_read_first(entry, case) { agentsec_read(skb, case, load_sent(entry).0) } else { 0 };
    let todo =
        if case.inbound != 0 { agentsec_hear(case, entry, read) } else { agentsec_say(case, entry, read) };
    if todo & !act::END != 0 {
        carry_out(skb, case, entry, todo);
    }
    (todo & act::END != 0) as i32
}

/// A connection that was not found: it opens, or is taken up where it is. Null when there is no room for it.
#[inline(always)]
fn taken_up(case: &Case) -> *mut Flow {
    let key = key_of(case);
    let known = FLOWS.get_ptr_mut(&key);
    if let Some(entry) = known
        && !(opens(case) && is_another(entry, case))
    {
        return entry;
    }
    if known.is_some() {
        // The ports are used again.
        agentsec_end(case);
    } else if case.headers.tcp_flags & (tcp::RST | tcp::FIN) != 0 && !case.headers.has_payload {
        // A reset or an end is no begin.
        return core::ptr::null_mut();
    }
    agentsec_new_flow(case, &key);
    FLOWS.get_ptr_mut(&key).unwrap_or(core::ptr::null_mut())
}

#[inline(always)]
fn carry_out(skb: *mut __sk_buff, case: &Case, entry: *mut Flow, todo: u64) {
    let number = (todo >> act::NUMBER_SHIFT) as u32;
    if todo & act::RESPOND != 0 {
        respond(case, entry);
    }
    let mut failed = 0;
    if todo & act::FAIL != 0 {
        failed = number + 1;
    }
    if todo & act::STATUS != 0 {
        failed = agentsec_hear_status(skb, case, entry, number) as u32;
    }
    if todo & act::ALERT != 0 && agentsec_refuses(skb, case, number) != 0 {
        failed = AuthKind::TlsAlert as u32 + 1;
    }
    if failed != 0 {
        agentsec_auth_failed(case, failed - 1);
    }
    let mut requests = if todo & act::REQUEST != 0 { number } else { 0 };
    if todo & act::HEADERS != 0 {
        let found = agentsec_http2(skb, case);
        let headers = (found >> 32) as u32;
        if case.inbound == 0 {
            requests += further_requests(entry, headers);
        } else if headers != 0 {
            sample(skb, case, entry, Language::Http2, found as u32);
        }
    }
    if requests != 0 {
        agentsec_requested(case, requests);
    }
    if todo & act::SAMPLE != 0 {
        sample(skb, case, entry, Language::Other, 0);
    }
    if todo & act::OPENING != 0 {
        agentsec_opening(skb, case, entry);
    }
}

/// So many HEADERS of HTTP/2, but for the connection's first one: its opening was counted already.
#[inline(always)]
fn further_requests(entry: *mut Flow, headers: u32) -> u32 {
    let sent = load_sent(entry);
    if headers == 0 || sent.is_connecting() {
        return headers;
    }
    // SAFETY: a whole entry, as the verifier checks.
    unsafe { store(&raw mut (*entry).sent, sent.connecting(true).0) };
    headers - 1
}

/// Counts a response time, from the end of what was asked until now.
#[inline(always)]
fn respond(case: &Case, entry: *mut Flow) {
    // SAFETY: a whole entry, as the verifier checks, and a helper without arguments.
    let time_ns = unsafe {
        let time_ns = bpf_ktime_get_ns().saturating_sub(load(&raw const (*entry).asked_ns));
        add(&raw mut (*entry).response_ns, time_ns);
        add(&raw mut (*entry).responses, 1);
        time_ns
    };
    agentsec_responded(case, time_ns);
}

/// Sends the daemon a sample.
#[inline(always)]
fn sample(skb: *mut __sk_buff, case: &Case, entry: *mut Flow, language: Language, offset: u32) {
    // SAFETY: a whole entry, as the verifier checks.
    let word = unsafe { &raw mut (*entry).samples };
    let ordinal = load_samples(entry);
    store(word, ordinal + 1);
    agentsec_sample(skb, case, offset, pack(language, ordinal));
}
