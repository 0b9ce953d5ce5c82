//! Telling the daemon what connections were. Nobody is woken for a record: the daemon reads them with its ticks, and is
//! called only when they fill half of the ring.

use aya_ebpf::bindings::{
    __sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::helpers::generated::{bpf_ringbuf_query, bpf_skb_load_bytes};

use agentsec_common::flow::{Flow, FlowKey, FlowRecord, OPENING_BYTES, OPENINGS_PER_SECOND, OpeningRecord};
use agentsec_common::ledger::Ledger;
use agentsec_common::notice;
use agentsec_common::profile::TELL_FLOWS;

use super::key_of;
use crate::case::Case;
use crate::maps::{FLOW_RECORDS, LEDGER, PROFILES};
use crate::payload::at_most;
use crate::words::{add, load, replace};

/// Whether the daemon wants to know of the agent's connections.
#[inline(always)]
fn is_told(case: &Case) -> bool {
    PROFILES.get(case.row).is_some_and(|profile| profile.flags & TELL_FLOWS != 0)
}

/// How a record is submitted: calls the daemon once the ring is half full.
#[inline(always)]
fn wakeup() -> u64 {
    let ring = (&raw const FLOW_RECORDS).cast_mut().cast();
    // SAFETY: a ring's address, which the loader puts in.
    let (waiting, size) = unsafe {
        (bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA as u64), bpf_ringbuf_query(ring, BPF_RB_RING_SIZE as u64))
    };
    (if waiting >= size >> 1 { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }) as u64
}

/// Tells what a connection was, if `remove` removes it: of two CPUs that end it, one tells. Whether it was removed.
#[inline(always)]
pub(super) fn tell_end(
    case: &Case,
    key: &FlowKey,
    flow: *const Flow,
    ledger: *mut Ledger,
    remove: impl Fn() -> bool,
) -> bool {
    if !is_told(case) {
        return remove();
    }
    let Some(mut entry) = FLOW_RECORDS.reserve(0) else {
        let removed = remove();
        if removed {
            // SAFETY: a live map value, as the verifier checks.
            add(unsafe { &raw mut (*ledger).flow_records_lost }, 1);
        }
        return removed;
    };
    // Before it is removed: its memory may be another connection's at once.
    copy(entry.as_mut_ptr(), key, flow);
    let removed = remove();
    if removed {
        entry.submit(wakeup());
    } else {
        entry.discard(BPF_RB_NO_WAKEUP as u64);
    }
    removed
}

/// Word by word, straight from one map into the other.
#[inline(always)]
fn copy(record: *mut FlowRecord, key: &FlowKey, flow: *const Flow) {
    // SAFETY: room of a whole record, and a live map value.
    unsafe {
        copy_words((&raw mut (*record).key).cast(), (&raw const *key).cast(), size_of::<FlowKey>() / 4);
        copy_words((&raw mut (*record).local).cast(), (&raw const (*flow).local).cast(), 4);
        (&raw mut (*record).kind).write(load(&raw const (*flow).kind));
        (&raw mut (*record).first_seen_ns).write(load(&raw const (*flow).first_seen_ns));
        (&raw mut (*record).last_seen_ns).write(load(&raw const (*flow).last_seen_ns));
        for direction in 0..2 {
            let at = |words: *const [u64; 2]| load(words.cast::<u64>().add(direction));
            let bytes = (&raw mut (*record).bytes).cast::<u64>().add(direction);
            bytes.write(at(&raw const (*flow).bytes));
            let packets = (&raw mut (*record).packets).cast::<u64>().add(direction);
            packets.write(at(&raw const (*flow).packets));
        }
        (&raw mut (*record).sent).write(load(&raw const (*flow).sent));
        (&raw mut (*record).asked).write(load(&raw const (*flow).asked));
        (&raw mut (*record).statuses).write(load(&raw const (*flow).statuses));
        (&raw mut (*record).response_ns).write(load(&raw const (*flow).response_ns));
        (&raw mut (*record).responses).write(load(&raw const (*flow).responses));
    }
}

/// Copies so many words, without the function that the compiler would call for it.
///
/// # Safety
///
/// Both are as long as that, and aligned to words.
#[inline(always)]
unsafe fn copy_words(to: *mut u32, from: *const u32, count: usize) {
    for index in 0..count {
        // SAFETY: within both, as the caller promises.
        unsafe { to.add(index).write_volatile(from.add(index).read_volatile()) };
    }
}

/// Tells a connection's first request, as far as it fits and the agent's budget reaches.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_opening(skb: *mut __sk_buff, case: *const Case, entry: *const Flow) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case and entry.
    let (Some(case), false) = (unsafe { case.as_ref() }, entry.is_null()) else { return 0 };
    let total = case.headers.payload_bytes;
    if !is_told(case) || total == 0 {
        return 0;
    }
    let Some(ledger) = LEDGER.get_ptr_mut(case.slot) else { return 0 };
    // SAFETY: live map values.
    let (budget, lost) = unsafe { (&raw mut (*ledger).openings, &raw mut (*ledger).openings_lost) };
    let spent = load(budget);
    match notice::spend_of(spent, case.now_ns, OPENINGS_PER_SECOND) {
        Some(more) if replace(budget, spent, more) => {}
        _ => {
            add(lost, 1);
            return 0;
        }
    }
    let length = at_most(total, OPENING_BYTES as u32);
    let Some(mut room) = FLOW_RECORDS.reserve_untyped::<OpeningRecord>(0) else {
        add(lost, 1);
        return 0;
    };
    let record = room.as_mut_ptr();
    // SAFETY: room of a whole record, of which the length is bounded above, and a live map value.
    let failed = unsafe {
        (&raw mut (*record).key).write(key_of(case));
        (&raw mut (*record).first_seen_ns).write(load(&raw const (*entry).first_seen_ns));
        (&raw mut (*record).total).write(total);
        (&raw mut (*record).length).write(length);
        let at = case.headers.header_bytes as u32;
        bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*record).bytes).cast(), length)
    };
    if failed == 0 {
        room.submit(wakeup());
    } else {
        room.discard(BPF_RB_NO_WAKEUP as u64);
        add(lost, 1);
    }
    0
}
