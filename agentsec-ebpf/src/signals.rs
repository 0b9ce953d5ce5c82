//! What answers and refusals count as: failed authentications, response times, requests.

use aya_ebpf::bindings::BPF_NOEXIST;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use agentsec_common::agent::Slot;
use agentsec_common::auth::{AUTH_ROOM, AuthKind};
use agentsec_common::endpoint::{EndpointKey, EndpointKind};
use agentsec_common::ledger::Ledger;
use agentsec_common::notice::NoticeKind;
use agentsec_common::profile::Profile;
use agentsec_common::risk::deviation_100us;
use agentsec_common::sample::Responses;
use agentsec_common::times::{COARSE_BUCKETS, COARSE_SHIFT, TIME_BUCKETS, time_bucket};
use agentsec_common::window::{BUCKETS, Gauge, Moment};

use crate::case::Case;
use crate::emit;
use crate::maps::{LEDGER, NO_RESPONSES, PROFILES, RESPONSES, TIMES};
use crate::words::{self, add, load, store};

/// Unit of response times in windows and thresholds, nanoseconds.
const TICK_NS: u64 = 100_000;

/// What is counted over the window and read through a gauge.
#[repr(u32)]
#[derive(Clone, Copy)]
pub enum Counted {
    /// Failed authentications.
    Auth = 0,
    /// The deviation of response times.
    Deviation = 1,
    /// Requests.
    Requests = 2,
    /// Anomalous requests.
    Anomalous = 3,
}

/// The gauge of what is counted, worked out again if it is of an earlier bucket.
#[inline(always)]
pub fn gauge(ledger: *const Ledger, counted: Counted, slot: Slot, now: Moment) -> u32 {
    match Gauge::read(word_of(ledger, counted), now) {
        Some(value) => value,
        None => agentsec_gauge(slot, counted as u32, now.bucket, now.epoch) as u32,
    }
}

/// Works every gauge out again, so that the record of a trip finds them fresh.
#[inline(always)]
pub fn refresh(case: &Case, profile: &Profile) {
    let now = profile.bucket_clock().moment(case.now_ns, case.epoch);
    for counted in [Counted::Auth, Counted::Deviation, Counted::Requests, Counted::Anomalous] {
        agentsec_gauge(case.slot, counted as u32, now.bucket, now.epoch);
    }
}

/// The gauge of what is counted, for who has just seen to it that it is of this bucket.
#[inline(always)]
pub fn fresh_gauge(ledger: *const Ledger, counted: Counted, now: Moment) -> u32 {
    Gauge::read(word_of(ledger, counted), now).unwrap_or(0)
}

#[inline(always)]
fn word_of(ledger: *const Ledger, counted: Counted) -> u64 {
    // SAFETY: a live map value.
    load(unsafe {
        match counted {
            Counted::Auth => &raw const (*ledger).auth_gauge,
            Counted::Deviation => &raw const (*ledger).deviation_gauge,
            Counted::Requests => &raw const (*ledger).requests_gauge,
            Counted::Anomalous => &raw const (*ledger).anomalous_gauge,
        }
    })
}

/// Works a gauge out from its windows and stores it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_gauge(slot: Slot, counted: u32, bucket: u64, epoch: u32) -> u64 {
    let Some(ledger) = LEDGER.get_ptr_mut(slot) else { return 0 };
    let now = Moment { bucket, epoch };
    // SAFETY: live map values.
    let (gauge, window) = unsafe {
        match counted {
            0 => (&raw mut (*ledger).auth_gauge, &raw const (*ledger).auth),
            1 => (&raw mut (*ledger).deviation_gauge, &raw const (*ledger).deviation),
            2 => (&raw mut (*ledger).requests_gauge, &raw const (*ledger).requests),
            _ => (&raw mut (*ledger).anomalous_gauge, &raw const (*ledger).anomalous),
        }
    };
    let mut value = words::sum(window, now);
    if counted == Counted::Deviation as u32 {
        // SAFETY: a live map value.
        value = deviation_100us(value, words::sum(unsafe { &raw const (*ledger).responses }, now));
    }
    let word = Gauge::to_word(now, value);
    store(gauge, word);
    Gauge::read(word, now).unwrap_or(0) as u64
}

/// Counts in a window of the case's agent and works its gauge out again. A stale epoch is noticed when the state is
/// read again.
#[inline(always)]
fn count(case: &Case, window: *mut [u64; BUCKETS], counted: Counted, amount: u64, now: Moment) {
    let _ = words::count(window, now, amount, case.slot);
    agentsec_gauge(case.slot, counted as u32, now.bucket, now.epoch);
}

/// Counts a failed authentication of a kind.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_auth_failed(case: *const Case, kind: u32) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let (Some(ledger), Some(profile)) = (LEDGER.get_ptr_mut(case.slot), PROFILES.get(case.row)) else {
        return 0;
    };
    let index = (kind as usize) & (AUTH_ROOM - 1);
    let now = profile.bucket_clock().moment(case.now_ns, case.epoch);
    // SAFETY: live map values, and the index is within both arrays.
    unsafe {
        add((&raw mut (*ledger).auth_total).cast::<u64>().add(index), 1);
        let weight = (&raw const profile.auth_weights_centi).cast::<u16>().add(index).read_volatile();
        if weight != 0 {
            count(case, &raw mut (*ledger).auth, Counted::Auth, weight as u64, now);
        }
    }
    // Where the endpoint is not typical, the request was anomalous when it was made.
    if kind != AuthKind::ResetBeforeData as u32 && case.typical != 0 {
        agentsec_anomalous(case, 1);
    }
    emit::budgeted_with(case, NoticeKind::AuthFailure, kind as u8);
    0
}

/// Counts requests, which are anomalous if their endpoint is not typical.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_requested(case: *const Case, requests: u32) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let (Some(ledger), Some(profile)) = (LEDGER.get_ptr_mut(case.slot), PROFILES.get(case.row)) else {
        return 0;
    };
    let now = profile.bucket_clock().moment(case.now_ns, case.epoch);
    // SAFETY: live map values.
    unsafe {
        add(&raw mut (*ledger).requests_total, requests as u64);
        count(case, &raw mut (*ledger).requests, Counted::Requests, requests as u64, now);
    }
    if case.typical == 0 {
        agentsec_anomalous(case, requests);
    }
    0
}

/// Counts requests as anomalous.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_anomalous(case: *const Case, requests: u32) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let (Some(ledger), Some(profile)) = (LEDGER.get_ptr_mut(case.slot), PROFILES.get(case.row)) else {
        return 0;
    };
    let now = profile.bucket_clock().moment(case.now_ns, case.epoch);
    // SAFETY: live map values.
    unsafe {
        add(&raw mut (*ledger).anomalous_total, requests as u64);
        count(case, &raw mut (*ledger).anomalous, Counted::Anomalous, requests as u64, now);
    }
    0
}

/// Counts a response time of the case's agent and endpoint.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_responded(case: *const Case, time_ns: u64) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let (Some(ledger), Some(profile), Some(times)) =
        (LEDGER.get_ptr_mut(case.slot), PROFILES.get(case.row), TIMES.get_ptr_mut(case.slot))
    else {
        return 0;
    };
    let bucket = masked(time_bucket(time_ns), TIME_BUCKETS);
    let ticks = time_ns / TICK_NS;
    let normal = profile.normal_response_100us as u64;
    let deviation = ticks.abs_diff(normal);
    let deviation = if deviation > u32::MAX as u64 { u32::MAX as u64 } else { deviation };
    let now = profile.bucket_clock().moment(case.now_ns, case.epoch);
    // SAFETY: live map values, and the bucket is within the histogram.
    unsafe {
        add_one(times.cast::<u32>().add(bucket));
        add(&raw mut (*ledger).responses_total, 1);
        // The sum first: with a count that is ahead of it, the deviation would look smaller than it is.
        let _ = words::count(&raw mut (*ledger).deviation, now, deviation, case.slot);
        count(case, &raw mut (*ledger).responses, Counted::Deviation, 1, now);
    }
    agentsec_endpoint_responded(case, bucket as u32, deviation);
    0
}

/// Counts a response time of the case's endpoint.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_endpoint_responded(case: *const Case, bucket: u32, deviation: u64) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let remote = case.headers.remote(case.direction());
    let key = EndpointKey {
        slot: case.slot,
        port: remote.port,
        protocol: case.headers.protocol,
        kind: EndpointKind::Opened as u8,
        remote: remote.address,
    };
    let entry = match RESPONSES.get_ptr_mut(&key) {
        Some(entry) => entry,
        None => {
            let Some(fresh) = NO_RESPONSES.get(0) else { return 0 };
            // Lost to another CPU's insertion, or to a full map; the next look-up tells.
            let _ = RESPONSES.insert(&key, fresh, BPF_NOEXIST as u64);
            match RESPONSES.get_ptr_mut(&key) {
                Some(entry) => entry,
                None => {
                    if let Some(ledger) = LEDGER.get_ptr_mut(case.slot) {
                        // SAFETY: a live map value.
                        add(unsafe { &raw mut (*ledger).responses_overflow }, 1);
                    }
                    return 0;
                }
            }
        }
    };
    count_in(entry, bucket as usize >> COARSE_SHIFT, deviation);
    0
}

#[inline(always)]
fn count_in(entry: *mut Responses, bucket: usize, deviation: u64) {
    // SAFETY: a live map value, and the bucket is within the histogram.
    unsafe {
        add(&raw mut (*entry).count, 1);
        add(&raw mut (*entry).deviation_100us, deviation);
        add_one((&raw mut (*entry).times).cast::<u32>().add(masked(bucket, COARSE_BUCKETS)));
    }
}

/// An index below `length`, a power of two. The compiler may know that it is; the verifier wants to see the mask.
#[inline(always)]
fn masked(index: usize, length: usize) -> usize {
    core::hint::black_box(index) & (length - 1)
}

/// Adds one to a half word; other CPUs may add as well.
#[inline(always)]
fn add_one(word: *mut u32) {
    // SAFETY: callers pass parts of live map values; the verifier checks the bounds of every one.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::SeqCst }>(word, 1) };
}
