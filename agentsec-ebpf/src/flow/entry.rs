//! The words of an entry, each loaded whole.

use agentsec_common::endpoint::EndpointKind;
use agentsec_common::flow::{Answered, Asked, Flow, Requests, Sent, Statuses};

use super::segment_of;
use crate::case::Case;
use crate::words::load;

/// Who opened a connection.
#[inline(always)]
pub fn kind(entry: *const Flow) -> u8 {
    // SAFETY: a live map value.
    load(unsafe { &raw const (*entry).kind }) as u8
}

#[inline(always)]
pub(super) fn load_sent(entry: *const Flow) -> Sent {
    // SAFETY: a whole entry, as the verifier checks.
    Sent(load(unsafe { &raw const (*entry).sent }))
}

#[inline(always)]
pub(super) fn load_asked(entry: *const Flow) -> Asked {
    // SAFETY: a whole entry, as the verifier checks.
    Asked(load(unsafe { &raw const (*entry).asked }))
}

#[inline(always)]
pub(super) fn load_answered(entry: *const Flow) -> Answered {
    // SAFETY: a whole entry, as the verifier checks.
    Answered(load(unsafe { &raw const (*entry).answered }))
}

#[inline(always)]
pub(super) fn load_statuses(entry: *const Flow) -> Statuses {
    // SAFETY: a whole entry, as the verifier checks.
    Statuses(load(unsafe { &raw const (*entry).statuses }))
}

#[inline(always)]
pub(super) fn load_requests(entry: *const Flow) -> Requests {
    // SAFETY: a whole entry, as the verifier checks.
    Requests(load(unsafe { &raw const (*entry).requests }))
}

#[inline(always)]
pub(super) fn load_responses(entry: *const Flow) -> u64 {
    // SAFETY: a whole entry, as the verifier checks.
    load(unsafe { &raw const (*entry).responses })
}

/// Whether the agent opened the connection.
#[inline(always)]
pub(super) fn is_opened(entry: *const Flow) -> bool {
    // SAFETY: a whole entry, as the verifier checks.
    load(unsafe { &raw const (*entry).kind }) == EndpointKind::Opened as u64
}

/// Whether a SYN is not the one that began the entry's connection.
#[inline(always)]
pub(super) fn is_another(entry: *const Flow, case: &Case) -> bool {
    let by_agent = case.inbound == 0;
    // A SYN that is sent again ends where the first one did; what others send again does no harm.
    is_opened(entry) != by_agent || by_agent && load_sent(entry).end() != segment_of(case).end()
}

#[inline(always)]
pub(super) fn load_samples(entry: *const Flow) -> u64 {
    // SAFETY: a whole entry, as the verifier checks.
    load(unsafe { &raw const (*entry).samples })
}
