//! Telling the daemon at once. What does not fit is counted, and nothing waits.

use agentsec_common::notice::{Notice, NoticeKind, spend};

use crate::case::Case;
use crate::maps::{LEDGER, NOTICES};
use crate::words::{add, load, replace};

/// A notice that counts against the agent's budget.
#[inline(always)]
pub fn budgeted(case: &Case, kind: NoticeKind) {
    budgeted_with(case, kind, 0);
}

/// The same with a detail.
#[inline(always)]
pub fn budgeted_with(case: &Case, kind: NoticeKind, detail: u8) {
    let Some(ledger) = LEDGER.get_ptr_mut(case.slot) else { return };
    // SAFETY: a live map value.
    let budget = unsafe { &raw mut (*ledger).notices };
    let found = load(budget);
    match spend(found, case.now_ns) {
        // A lost race is another notice of this agent at this very moment: one of the two is enough to lose.
        Some(spent) if replace(budget, found, spent) => {
            agentsec_emit(case, kind as u32 | (detail as u32) << DETAIL_SHIFT);
        }
        _ => lost(case),
    }
}

/// Where the detail is beside the kind.
const DETAIL_SHIFT: u32 = 8;

/// A notice that is bounded otherwise: a trip, or one drop a second. Checked by the verifier once, by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_emit(case: *const Case, kind: u32) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 1 };
    let Some(mut entry) = NOTICES.reserve(0) else {
        lost(case);
        return 1;
    };
    let remote = case.headers.remote(case.direction());
    entry.write(Notice {
        at_ns: case.now_ns,
        slot: case.slot,
        epoch: case.epoch,
        remote: remote.address,
        packet_bytes: case.bytes as u32,
        local_port: remote.local_port,
        remote_port: remote.port,
        kind: kind as u8,
        protocol: case.headers.protocol,
        direction: case.inbound,
        endpoint_kind: case.endpoint_kind,
        class: case.headers.class as u8,
        detail: (kind >> DETAIL_SHIFT) as u8,
        reserved: 0,
    });
    entry.submit(0);
    0
}

#[inline(always)]
fn lost(case: &Case) {
    if let Some(ledger) = LEDGER.get_ptr_mut(case.slot) {
        // SAFETY: a live map value.
        add(unsafe { &raw mut (*ledger).notices_lost }, 1);
    }
}
