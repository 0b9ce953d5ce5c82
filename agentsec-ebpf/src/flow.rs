//! Following connections: what the agent asks, what it is answered, and when.
//!
//! The rules are in [`agentsec_common::flow`]; here are the map, the payload and the clock. A packet is first read, then
//! decided about, then acted on, each in functions that call no other of these, since all that are called at once share
//! one small stack.

use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_ktime_get_ns;

use agentsec_common::auth::AuthKind;
use agentsec_common::endpoint::{Endpoint, EndpointKey, EndpointKind};
use agentsec_common::flow::{
    Answered, Asked, Asking, Flow, FlowKey, Hears, Language, Line, Requests, Reset, Says, Segment, Sent,
    Settled, Start, Statuses, reset,
};
use agentsec_common::packet::{Class, Role, protocol, tcp};
use agentsec_common::payload::{
    Method, dns_query, dns_response, is_http2_preface, is_tls_record, request_method, tls_alert,
};
use agentsec_common::profile::{FOLLOW_FLOWS, Profile};
use agentsec_common::sample::{SAMPLES_HTTP2, SAMPLES_OTHER};

use crate::account::Seen;
use crate::case::Case;
use crate::maps::{ENDPOINTS, FLOWS, LEDGER, NO_FLOW, POLICY, PROFILES};
use crate::payload::{First, agentsec_http2, agentsec_sample, first, pack};
use crate::signals::{agentsec_auth_failed, agentsec_requested, agentsec_responded};
use crate::words::{add, load, replace, store};

/// Port of DNS.
const DNS: u16 = 53;
/// Messages of the agent within which a TLS handshake is over: hello, a second one if the first did not do, and the
/// certificate, key exchange, change of cipher, and finish, each of which may be written by itself.
const TLS_HANDSHAKE: u32 = 8;
/// Length of the only interim status that comes in one segment with what follows it: `HTTP/1.1 100 Continue` and an empty
/// line.
const CONTINUE_BYTES: u32 = 25;

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
fn is_tcp(case: &Case) -> bool {
    case.headers.protocol == protocol::TCP
}

#[inline(always)]
fn segment_of(case: &Case) -> Segment {
    Segment {
        sequence: case.headers.sequence,
        acknowledgment: case.headers.acknowledgment,
        payload: case.headers.payload_bytes,
        flags: case.headers.tcp_flags,
    }
}

/// Whether the packet opens a connection.
#[inline(always)]
fn opens(case: &Case) -> bool {
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
    /// Where the number is.
    pub const NUMBER_SHIFT: u32 = 32;
}

/// The packet's connection, if connections are followed and it is known; null otherwise. What opens one is looked at
/// more closely.
#[inline(always)]
pub fn find(case: &Case, profile: &Profile) -> *mut Flow {
    let headers = &case.headers;
    let followed = profile.flags & FOLLOW_FLOWS != 0
        && matches!(headers.class, Class::Ipv4 | Class::Ipv6)
        && (matches!(headers.protocol, protocol::UDP) || is_tcp(case) && headers.tcp_flags & tcp::SYN == 0);
    if !followed {
        return core::ptr::null_mut();
    }
    FLOWS.get_ptr_mut(&key_of(case)).unwrap_or(core::ptr::null_mut())
}

/// Whether a connection speaks for its endpoint: see [`Settled`].
#[inline(always)]
pub fn is_settled(entry: *const Flow, case: &Case) -> bool {
    // SAFETY: a live map value.
    load(unsafe { &raw const (*entry).settled }) == Settled::to_word(case.profile_tag, case.now_ns)
}

/// Who opened a connection.
#[inline(always)]
pub fn kind(entry: *const Flow) -> u8 {
    // SAFETY: a live map value.
    load(unsafe { &raw const (*entry).kind }) as u8
}

/// Tells a connection's endpoint of it, and lets it speak for the endpoint if that is typical.
#[inline(always)]
pub fn settle(entry: *mut Flow, case: &Case, seen: &Seen) {
    if seen.entry.is_null() || kind(entry) != case.endpoint_kind {
        return;
    }
    tell(entry, seen.entry, case.now_ns);
    if seen.typical {
        // SAFETY: a live map value.
        store(unsafe { &raw mut (*entry).settled }, Settled::to_word(case.profile_tag, case.now_ns));
    }
}

/// Tells an endpoint what has passed on a connection since it was last told.
#[inline(always)]
fn tell(entry: *mut Flow, endpoint: *mut Endpoint, now_ns: u64) {
    for direction in 0..2 {
        // SAFETY: live map values, and the direction is zero or one.
        unsafe {
            tell_one(
                (&raw const (*entry).bytes).cast::<u64>().add(direction),
                (&raw mut (*entry).told_bytes).cast::<u64>().add(direction),
                (&raw mut (*endpoint).bytes).cast::<u64>().add(direction),
            );
            tell_one(
                (&raw const (*entry).packets).cast::<u64>().add(direction),
                (&raw mut (*entry).told_packets).cast::<u64>().add(direction),
                (&raw mut (*endpoint).packets).cast::<u64>().add(direction),
            );
        }
    }
    // SAFETY: a live map value.
    store(unsafe { &raw mut (*endpoint).last_seen_ns }, now_ns);
}

/// Only who moves what was told adds the difference.
#[inline(always)]
fn tell_one(passed: *const u64, told: *mut u64, total: *mut u64) {
    let (passed, before) = (load(passed), load(told));
    if passed != before && replace(told, before, passed) {
        add(total, passed.wrapping_sub(before));
    }
}

/// Counts a packet that passes.
#[inline(always)]
pub fn passed(entry: *mut Flow, case: &Case) {
    let direction = (case.inbound & 1) as usize;
    // SAFETY: a live map value, and the direction is zero or one.
    unsafe {
        add((&raw mut (*entry).bytes).cast::<u64>().add(direction), case.bytes);
        add((&raw mut (*entry).packets).cast::<u64>().add(direction), case.packets);
        store(&raw mut (*entry).last_seen_ns, case.now_ns);
    }
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

#[inline(always)]
fn load_sent(entry: *const Flow) -> Sent {
    // SAFETY: a whole entry, as the verifier checks.
    Sent(load(unsafe { &raw const (*entry).sent }))
}

#[inline(always)]
fn load_asked(entry: *const Flow) -> Asked {
    // SAFETY: a whole entry, as the verifier checks.
    Asked(load(unsafe { &raw const (*entry).asked }))
}

#[inline(always)]
fn load_answered(entry: *const Flow) -> Answered {
    // SAFETY: a whole entry, as the verifier checks.
    Answered(load(unsafe { &raw const (*entry).answered }))
}

#[inline(always)]
fn load_statuses(entry: *const Flow) -> Statuses {
    // SAFETY: a whole entry, as the verifier checks.
    Statuses(load(unsafe { &raw const (*entry).statuses }))
}

#[inline(always)]
fn load_requests(entry: *const Flow) -> Requests {
    // SAFETY: a whole entry, as the verifier checks.
    Requests(load(unsafe { &raw const (*entry).requests }))
}

/// Whether the agent opened the connection.
#[inline(always)]
fn is_opened(entry: *const Flow) -> bool {
    // SAFETY: a whole entry, as the verifier checks.
    load(unsafe { &raw const (*entry).kind }) == EndpointKind::Opened as u64
}

/// Whether a SYN is not the one that began the entry's connection.
#[inline(always)]
fn is_another(entry: *const Flow, case: &Case) -> bool {
    let by_agent = case.inbound == 0;
    // A SYN that is sent again ends where the first one did; what others send again does no harm.
    is_opened(entry) != by_agent || by_agent && load_sent(entry).end() != segment_of(case).end()
}

/// Removes a connection that has ended, of which its endpoint is told first.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_end(case: *const Case) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let key = key_of(case);
    let (Some(entry), Some(ledger)) = (FLOWS.get_ptr_mut(&key), LEDGER.get_ptr_mut(case.slot)) else {
        return 0;
    };
    let opened = is_opened(entry);
    let endpoint = EndpointKey {
        slot: case.slot,
        port: if opened { key.remote_port } else { key.local_port },
        protocol: case.headers.protocol,
        kind: if opened { EndpointKind::Opened as u8 } else { EndpointKind::Accepted as u8 },
        remote: key.remote,
    };
    if let Some(endpoint) = ENDPOINTS.get_ptr_mut(&endpoint) {
        tell(entry, endpoint, case.now_ns);
    }
    if FLOWS.remove(&key).is_ok() {
        // SAFETY: a live map value.
        add(unsafe { &raw mut (*ledger).flows_ended }, 1);
    }
    0
}

/// Makes an entry for a connection, if the agent has room for it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_new_flow(case: *const Case, key: *const FlowKey) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case and key.
    let (Some(case), Some(key)) = (unsafe { (case.as_ref(), key.as_ref()) }) else { return 0 };
    let (Some(policy), Some(ledger), Some(profile), Some(fresh)) =
        (POLICY.get_ptr(case.slot), LEDGER.get_ptr_mut(case.slot), PROFILES.get(case.row), NO_FLOW.get(0))
    else {
        return 0;
    };
    // SAFETY: live map values.
    let (inserted, ended, removed, overflow) = unsafe {
        (
            &raw mut (*ledger).flows_inserted,
            &raw const (*ledger).flows_ended,
            &raw const (*policy).flows_removed,
            &raw mut (*ledger).flow_overflow,
        )
    };
    let live = load(inserted).wrapping_sub(load(ended)).wrapping_sub(load(removed));
    // A key of this function's own: kernels before 6.2 take none that lies in a caller's memory.
    // SAFETY: a whole key, as above.
    let own = unsafe { core::ptr::from_ref(key).read_volatile() };
    let has_room = live < profile.flow_cap as u64;
    match has_room.then(|| FLOWS.insert(&own, fresh, BPF_NOEXIST as u64)) {
        Some(Ok(())) => add(inserted, 1),
        Some(Err(EXISTS)) => return 0,
        _ => {
            add(overflow, 1);
            return 0;
        }
    }
    if let Some(entry) = FLOWS.get_ptr_mut(&own) {
        begin(entry, case, profile.reads_port(own.remote_port));
    }
    0
}

/// -EEXIST: another CPU has made the entry.
const EXISTS: i32 = -17;

/// Sets the words of a new connection. A packet of it on another CPU may find them unset at this very moment: then it
/// is one that nobody has said anything on, which is what it is.
#[inline(always)]
fn begin(entry: *mut Flow, case: &Case, read: bool) {
    // Without its begin, it is taken up where it is.
    let midway = is_tcp(case) && !opens(case);
    let (statuses, heard) = match (midway, case.inbound != 0) {
        (true, true) => (Statuses::default().hearing(), case.headers.sequence),
        (true, false) => (Statuses::default().hearing(), case.headers.acknowledgment),
        (false, _) => (Statuses::default(), 0),
    };
    // SAFETY: a live map value.
    unsafe {
        store(&raw mut (*entry).kind, case.endpoint_kind as u64);
        store(&raw mut (*entry).first_seen_ns, case.now_ns);
        store(&raw mut (*entry).last_seen_ns, case.now_ns);
        (&raw mut (*entry).local).write(if case.inbound != 0 {
            case.headers.destination
        } else {
            case.headers.source
        });
        store(&raw mut (*entry).answered, Answered::new(0, heard).0);
        store(&raw mut (*entry).statuses, statuses.0);
        store(&raw mut (*entry).sent, Sent::new(read, midway).0);
    }
}

/// Whether a decision about the packet rests on its payload.
#[inline(always)]
fn is_read_first(entry: *const Flow, case: &Case) -> bool {
    let language = load_sent(entry).language();
    case.headers.has_payload
        && is_opened(entry)
        && match case.inbound {
            0 => !matches!(language, Language::Tls | Language::Other),
            _ => matches!(language, Language::Dns),
        }
}

/// What a packet's payload says, in one word: bits 0..8 language, 8..16 start, 16 connect, 32..64 id; zero for nothing.
#[inline(always)]
fn said(language: Language, start: Start, connects: bool) -> u64 {
    language as u64 | (start as u64) << 8 | (connects as u64) << 16
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

/// Decides about what the agent sends, of which `read` was read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_say(case: *const Case, entry: *mut Flow, read: u64) -> u64 {
    // SAFETY: the verifier checks that callers pass a whole case and entry.
    let (Some(case), false) = (unsafe { case.as_ref() }, entry.is_null()) else { return 0 };
    let (sent, asked, requests) = (load_sent(entry), load_asked(entry), load_requests(entry));
    let (statuses, answered) = (load_statuses(entry), load_answered(entry).count());
    let begins = sent.is_fresh();
    let (sent, start) = match read {
        0 if matches!(sent.language(), Language::Tls) => (sent, Start::Shared),
        0 => (sent, Start::Unread),
        _ => (
            sent.speaking(Language::from_byte(read as u8)).connecting(read >> 16 & 1 != 0),
            Start::from_byte((read >> 8) as u8),
        ),
    };
    let asking = Asking { sent, asked, answer: requests.answer() };
    let (asking, says) = if is_tcp(case) {
        asking.tcp(&segment_of(case), start, answered)
    } else {
        asking.started().udp((read >> 32) as u32, answered)
    };
    let mut todo = 0;
    if is_opened(entry) {
        ask(entry, &asking, says, start, requests, statuses);
        todo = counts(&asking, says, start, begins);
    }
    // SAFETY: a whole entry.
    unsafe { store(&raw mut (*entry).sent, asking.sent.0) };
    let over = case.headers.tcp_flags & tcp::RST != 0 || asking.sent.is_finished() && statuses.is_finished();
    todo | if over { act::END } else { 0 }
}

/// Keeps what is asked.
#[inline(always)]
fn ask(entry: *mut Flow, asking: &Asking, says: Says, start: Start, requests: Requests, statuses: Statuses) {
    if matches!(says, Says::Nothing) {
        return;
    }
    // SAFETY: a whole entry.
    unsafe {
        if matches!(says, Says::Asks | Says::AsksAnew | Says::GoesOn { ends: true }) {
            // The time before the count: who finds the count finds the time.
            store(&raw mut (*entry).asked_ns, bpf_ktime_get_ns());
        }
        let word = &raw mut (*entry).requests;
        if matches!(says, Says::Asks) {
            // Whatever was read of earlier answers, one is due now.
            store(word, Requests::new(statuses.count().wrapping_add(1), asking.answer).0);
        } else if matches!(says, Says::AsksMore) && matches!(start, Start::Request) {
            store(word, Requests::new(requests.count().wrapping_add(1), requests.answer()).0);
        }
        store(&raw mut (*entry).asked, asking.asked.0);
    }
}

/// The requests to be counted: the connection's opening is one, which its first request is, and each further one.
#[inline(always)]
fn counts(asking: &Asking, says: Says, start: Start, begins: bool) -> u64 {
    let again = asking.asked.count() > 1 && !matches!(says, Says::Nothing);
    let more = match asking.sent.language() {
        Language::Http1 => again && matches!(start, Start::Request),
        Language::Dns => again,
        _ => false,
    };
    let number = more as u64 + begins as u64;
    let headers = !matches!(says, Says::Nothing) && matches!(asking.sent.language(), Language::Http2);
    let request = if number != 0 { act::REQUEST | number << act::NUMBER_SHIFT } else { 0 };
    request | if headers { act::HEADERS } else { 0 }
}

/// Decides about what the agent is sent, of which `read` was read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_hear(case: *const Case, entry: *mut Flow, read: u64) -> u64 {
    // SAFETY: the verifier checks that callers pass a whole case and entry.
    let (Some(case), false) = (unsafe { case.as_ref() }, entry.is_null()) else { return 0 };
    let (sent, answered, mut statuses) = (load_sent(entry), load_answered(entry), load_statuses(entry));
    let segment = segment_of(case);
    if segment.flags & tcp::RST != 0 {
        return if is_opened(entry) { by_reset(&segment, sent, answered, statuses) } else { act::END };
    }
    let mut todo = 0;
    if segment.flags & tcp::SYN != 0 {
        if !statuses.is_reached() && segment.acknowledgment == sent.end() {
            answer(entry, answered, Answered::new(answered.count(), segment.sequence.wrapping_add(1)));
            statuses = statuses.reaching();
        }
    } else if case.headers.has_payload {
        if is_opened(entry) {
            todo = if is_tcp(case) {
                hear_segment(entry, &segment, sent, answered, statuses)
            } else {
                hear_datagram(entry, (read >> 32) as u32, answered)
            };
        }
        statuses = statuses.hearing();
    }
    if segment.flags & tcp::FIN != 0 {
        statuses = statuses.finishing();
    }
    // SAFETY: a whole entry.
    unsafe { store(&raw mut (*entry).statuses, statuses.0) };
    todo | if sent.is_finished() && statuses.is_finished() { act::END } else { 0 }
}

#[inline(always)]
fn by_reset(segment: &Segment, sent: Sent, answered: Answered, statuses: Statuses) -> u64 {
    let failed = match reset(segment, sent, answered, statuses) {
        Reset::Foreign => return 0,
        Reset::Late => return act::END,
        Reset::Refused => AuthKind::Refused,
        Reset::BeforeData => AuthKind::ResetBeforeData,
    };
    act::END | act::FAIL | (failed as u64) << act::NUMBER_SHIFT
}

/// Replaces what was answered; false when another CPU was quicker.
#[inline(always)]
fn answer(entry: *mut Flow, before: Answered, after: Answered) -> bool {
    // SAFETY: a whole entry, as the verifier checks.
    replace(unsafe { &raw mut (*entry).answered }, before.0, after.0)
}

#[inline(always)]
fn hear_datagram(entry: *mut Flow, id: u32, answered: Answered) -> u64 {
    let (after, hears) = answered.udp(id, load_asked(entry));
    if matches!(hears, Hears::Answer) && answer(entry, answered, after) { act::RESPOND } else { 0 }
}

#[inline(always)]
fn hear_segment(
    entry: *mut Flow,
    segment: &Segment,
    sent: Sent,
    answered: Answered,
    statuses: Statuses,
) -> u64 {
    let asked = load_asked(entry);
    let (after, hears) = answered.tcp(segment, asked, statuses.has_heard());
    // What fills a gap is nothing new, and may hold the status line all the same.
    let status = if reads_status(sent, statuses) && asked.is_acknowledged(segment) {
        status_at(statuses, segment, entry, answered)
    } else {
        0
    };
    if matches!(hears, Hears::Nothing) || !answer(entry, answered, after) {
        return status;
    }
    let answers = matches!(hears, Hears::Answer);
    let look = if sent.is_read() && !statuses.is_tunnel() { look(entry, sent, answers, asked) } else { 0 };
    status | look | if answers { act::RESPOND } else { 0 }
}

/// What else new payload is looked at for.
#[inline(always)]
fn look(entry: *const Flow, sent: Sent, answers: bool, asked: Asked) -> u64 {
    match sent.spoken() {
        Language::Http1 => 0,
        Language::Tls if answers && asked.count() <= TLS_HANDSHAKE && !sent.is_midway() => {
            // SAFETY: a whole entry, as the verifier checks.
            let second = load(unsafe { &raw const (*entry).responses }) == 1;
            act::ALERT | (second as u64) << act::NUMBER_SHIFT
        }
        Language::Tls => 0,
        Language::Http2 if load_samples(entry) < SAMPLES_HTTP2 => act::HEADERS,
        Language::Http2 => 0,
        _ if answers && load_samples(entry) < SAMPLES_OTHER => act::SAMPLE,
        _ => 0,
    }
}

/// Whether a status line may come. What is not HTTP by the agent's words may be by the remote's: its first answers tell.
#[inline(always)]
fn reads_status(sent: Sent, statuses: Statuses) -> bool {
    sent.is_read()
        && !statuses.is_tunnel()
        && match sent.spoken() {
            Language::Http1 => true,
            Language::Tls | Language::Http2 | Language::Dns => false,
            Language::Unknown | Language::Other => {
                statuses.latest() != 0 || (statuses.count() as u64) < SAMPLES_OTHER
            }
        }
}

#[inline(always)]
fn load_samples(entry: *const Flow) -> u64 {
    // SAFETY: a whole entry, as the verifier checks.
    load(unsafe { &raw const (*entry).samples })
}

#[inline(always)]
fn status_at(statuses: Statuses, segment: &Segment, entry: *const Flow, answered: Answered) -> u64 {
    match statuses.place(segment, load_requests(entry), answered.heard()) {
        Some(offset) => act::STATUS | (offset as u64) << act::NUMBER_SHIFT,
        None => 0,
    }
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
