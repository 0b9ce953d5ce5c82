//! Judging: when the numbers cross a line, this packet trips the circuit.

use agentsec_common::gate::next_trip;
use agentsec_common::ledger::{Ledger, TripRecord, one_more_violation, violations_in};
use agentsec_common::notice::NoticeKind;
use agentsec_common::policy::{Policy, SlowSignals};
use agentsec_common::profile::{COUNT_INBOUND, COUNT_OUTBOUND, JUDGE_REQUESTS, Profile};
use agentsec_common::risk::{Cause, Signals, judge, score};
use agentsec_common::window::{Moment, Stamp};

use crate::case::{Case, marks};
use crate::emit;
use crate::maps::{LEDGER, POLICY, PROFILES};
use crate::signals::{self, Counted, fresh_gauge, gauge};
use crate::words::{self, load, replace, store, sum};

/// An agent's words.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    /// What the daemon says.
    pub policy: *const Policy,
    /// What the kernel knows.
    pub ledger: *mut Ledger,
    /// What is expected.
    pub profile: &'a Profile,
}

/// The words of the case's agent, for a function that the verifier checks by itself.
#[inline(always)]
fn words_of(case: &Case) -> Option<Words<'static>> {
    Some(Words {
        policy: POLICY.get_ptr(case.slot)?,
        ledger: LEDGER.get_ptr_mut(case.slot)?,
        profile: PROFILES.get(case.row)?,
    })
}

/// Counts the packet's bytes in the agent's window and, if `judged`, judges all its signals. True, when the
/// packet crosses a line or cannot be counted.
#[inline(always)]
pub fn weigh(case: &mut Case, words: Words<'_>, judged: bool) -> bool {
    let now = words.profile.bucket_clock().moment(case.now_ns, case.epoch);
    let counts = if case.inbound != 0 { COUNT_INBOUND } else { COUNT_OUTBOUND };
    if words.profile.flags & counts != 0 {
        // SAFETY: a live map value.
        let window = unsafe { &raw mut (*words.ledger).volume };
        if words::count(window, now, case.bytes, case.slot).is_err() {
            return true;
        }
    }
    if !judged {
        return false;
    }
    let requests = words.profile.flags & JUDGE_REQUESTS != 0;
    match judge(&signals(&words, case, now, requests), words.profile) {
        Some(cause) => {
            trip(case, words, cause);
            true
        }
        None => false,
    }
}

/// The agent's signals at `now`; requests only where they matter.
#[inline(always)]
fn signals(words: &Words<'_>, case: &Case, now: Moment, requests: bool) -> Signals {
    let gauge = |counted| gauge(words.ledger, counted, case.slot, now);
    let [auth, deviation] = [gauge(Counted::Auth), gauge(Counted::Deviation)];
    let of_requests = if requests { [gauge(Counted::Requests), gauge(Counted::Anomalous)] } else { [0, 0] };
    joined(words, case, now, [auth, deviation], of_requests)
}

/// The kernel's own signals and the daemon's slow ones.
#[inline(always)]
fn joined(words: &Words<'_>, case: &Case, now: Moment, answers: [u32; 2], requests: [u32; 2]) -> Signals {
    // SAFETY: live map values.
    let (volume, latest, slow) = unsafe {
        (
            sum(&raw const (*words.ledger).volume, now),
            load(&raw const (*words.ledger).unusual_latest),
            SlowSignals::from_word(load(&raw const (*words.policy).signals), case.now_ns),
        )
    };
    let unusual = if Stamp::may_matter(latest, now) {
        // SAFETY: a live map value.
        sum(unsafe { &raw const (*words.ledger).unusual }, now)
    } else {
        0
    };
    let ([auth, deviation], reported) = (answers, slow.deviation_100us as u32);
    Signals {
        volume,
        unusual_endpoints: if unusual > u32::MAX as u64 { u32::MAX } else { unusual as u32 },
        // What is reported is what the kernel cannot see, so it comes on top.
        auth_failures_centi: auth + slow.auth_failures as u32 * 100,
        deviation_100us: if deviation > reported { deviation } else { reported },
        requests: requests[0],
        anomalous_requests: requests[1],
        extra_milli: slow.extra_milli,
    }
}

/// Counts a violation of probation. One, when it is one too many and the caller has to trip: called from here, the trip
/// would be one frame deeper, and 6.1 has no stack for that (it rounds every frame up to 32 bytes).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_violated(case: *const Case) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let Some(words) = words_of(case) else { return 0 };
    // SAFETY: a live map value.
    let word = unsafe { &raw mut (*words.ledger).violations };
    let found = load(word);
    let more = one_more_violation(found, case.epoch);
    // A lost race is another violation at this very moment: that one counts.
    replace(word, found, more);
    emit::budgeted(case, NoticeKind::Violation);
    (violations_in(more, case.epoch) >= words.profile.probe_violations) as i32
}

/// Trips the circuit and gives notice of it.
#[inline(always)]
pub fn trip(case: &mut Case, words: Words<'_>, cause: Cause) {
    signals::refresh(case, words.profile);
    // The notice from here: from within, it would be one frame deeper, for which 6.1 has no stack.
    if agentsec_trip(case, cause as u32) == 0 {
        case.marks |= marks::TRIPPED;
        emit::agentsec_emit(case, NoticeKind::Trip as u32);
    }
}

/// Trips the circuit: from the acknowledged trip to the next, so that of all CPUs that see the crossing one
/// wins, and only it writes the record. Zero for the winner.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_trip(case: *const Case, cause: u32) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 1 };
    let Some(words) = words_of(case) else { return 1 };
    let now = words.profile.bucket_clock().moment(case.now_ns, case.epoch);
    let fresh = |counted| fresh_gauge(words.ledger, counted, now);
    let answers = [fresh(Counted::Auth), fresh(Counted::Deviation)];
    let found = joined(&words, case, now, answers, [fresh(Counted::Requests), fresh(Counted::Anomalous)]);
    // SAFETY: live map values.
    unsafe {
        let seq = next_trip(case.acked_trip);
        if !replace(&raw mut (*words.ledger).trip_seq, case.acked_trip as u64, seq) {
            return 1;
        }
        let record = &raw mut (*words.ledger).trip;
        store(&raw mut (*record).seq, u64::MAX);
        describe(record, case, words.profile, &found, cause);
        // Last: a record is complete when it names the ledger's trip.
        store(&raw mut (*record).seq, seq);
    }
    0
}

/// Fills in the record of a trip, field by field: on the stack there is no room for another.
///
/// # Safety
///
/// `record` is a live map value's.
#[inline(always)]
unsafe fn describe(record: *mut TripRecord, case: &Case, profile: &Profile, signals: &Signals, cause: u32) {
    let terms = score(signals, profile);
    let remote = case.headers.remote(case.direction());
    macro_rules! fill {
        ($($field:ident: $value:expr),+ $(,)?) => {
            // SAFETY: as said above; `seq` is none of these.
            unsafe { $((&raw mut (*record).$field).write($value);)+ }
        };
    }
    fill! {
        at_ns: case.now_ns,
        volume: signals.volume,
        unusual_endpoints: signals.unusual_endpoints,
        auth_failures_centi: signals.auth_failures_centi,
        deviation_100us: signals.deviation_100us,
        requests: signals.requests,
        anomalous_requests: signals.anomalous_requests,
        epoch: case.epoch,
        row: case.row,
        packet_bytes: case.bytes as u32,
        remote: remote.address,
        local_port: remote.local_port,
        remote_port: remote.port,
        protocol: case.headers.protocol,
        cause: cause as u8,
        direction: case.inbound,
        class: case.headers.class as u8,
        terms: [
            terms.auth,
            terms.volume,
            terms.endpoints,
            terms.deviation,
            terms.requests,
            terms.anomalous,
            terms.extra,
            terms.total(),
        ],
    }
}
