//! Deciding about what the agent is sent.

use agentsec_common::auth::AuthKind;
use agentsec_common::flow::{Answered, Asked, Flow, Hears, Language, Reset, Segment, Sent, Statuses, reset};
use agentsec_common::packet::tcp;
use agentsec_common::sample::{SAMPLES_HTTP2, SAMPLES_OTHER};

use super::entry::{
    is_opened, load_answered, load_asked, load_requests, load_responses, load_samples, load_sent,
    load_statuses,
};
use super::read::is_request;
use super::{act, is_tcp, segment_of};
use crate::case::Case;
use crate::words::{replace, store};

/// Messages of the agent within which a TLS handshake is over: hello, a second one if the first did not do, and the
/// certificate, key exchange, change of cipher, and finish, each of which may be written by itself.
const TLS_HANDSHAKE: u32 = 8;

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
        } else if !statuses.has_heard() && read != 0 {
            // The first words of who opened it.
            statuses = statuses.speaking(Language::from_byte(read as u8));
            todo = if is_request(read) { act::OPENING } else { 0 };
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
            let second = load_responses(entry) == 1;
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
pub(super) fn status_at(
    statuses: Statuses,
    segment: &Segment,
    entry: *const Flow,
    answered: Answered,
) -> u64 {
    match statuses.place(segment, load_requests(entry), answered.heard()) {
        Some(offset) => act::STATUS | (offset as u64) << act::NUMBER_SHIFT,
        None => 0,
    }
}
