//! Deciding about what the agent sends.

use aya_ebpf::helpers::bpf_ktime_get_ns;

use agentsec_common::flow::{Asking, Flow, Language, Requests, Says, Start, Statuses};
use agentsec_common::packet::tcp;

use super::entry::{
    is_opened, load_answered, load_asked, load_requests, load_responses, load_sent, load_statuses,
};
use super::read::is_request;
use super::{act, is_tcp, segment_of};
use crate::case::Case;
use crate::words::store;

/// Answers within which a TLS handshake is over: the server's hello, and what it thinks of the agent's certificate.
const HANDSHAKE: u64 = 2;

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
        // Within the handshake each message waits for its own answer.
        0 if matches!(sent.language(), Language::Tls) => {
            (sent, if load_responses(entry) >= HANDSHAKE { Start::Shared } else { Start::Handshake })
        }
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
        if asking.asked.count() == 1 && matches!(says, Says::Asks) && is_request(read) {
            todo |= act::OPENING;
        }
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
