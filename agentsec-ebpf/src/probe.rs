//! Probation: how much an agent on it may say.

use crate::case::Case;
use crate::maps::{LEDGER, PROFILES};
use crate::words::{load, replace};

/// Tries of a compare-exchange before the packet is dropped.
const TRIES: usize = 4;

/// Whether a packet fits into the probe's byte bucket, which it then has left. A function of its own, because
/// only agents on probation need it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_has_room(case: *const Case) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let (Some(ledger), Some(profile)) = (LEDGER.get_ptr_mut(case.slot), PROFILES.get(case.row)) else {
        return 0;
    };
    // SAFETY: a live map value.
    let word = unsafe { &raw mut (*ledger).probe_bucket };
    for _ in 0..TRIES {
        let found = load(word);
        let Some(spent) = profile.probe.spend(found, case.now_ns, case.bytes, case.packets) else { return 0 };
        if replace(word, found, spent) {
            return 1;
        }
    }
    0
}
