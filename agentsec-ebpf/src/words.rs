//! Atomic access to the words of maps, and the sliding window over them.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use agentsec_common::agent::Slot;
use agentsec_common::policy::Control;
use agentsec_common::window::{BUCKETS, Moment, Stamp, Step};

use crate::maps::POLICY;

/// Tries of a compare-exchange before giving up: a program must end.
const TRIES: usize = 4;

/// Loads an aligned word of a map.
#[inline(always)]
pub fn load(word: *const u64) -> u64 {
    // SAFETY: callers pass words of live map values; the verifier checks the bounds of every one.
    unsafe { word.read_volatile() }
}

/// Stores an aligned word of a map.
#[inline(always)]
pub fn store(word: *mut u64, value: u64) {
    // SAFETY: as in `load`.
    unsafe { word.write_volatile(value) }
}

/// Adds to a word; other CPUs may add as well.
#[inline(always)]
pub fn add(word: *mut u64, amount: u64) {
    // SAFETY: as in `load`.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, amount) };
}

/// Takes the next number of a word that counts; other CPUs may do so as well.
#[inline(always)]
pub fn take_number(word: *mut u64) -> u64 {
    // SAFETY: as in `load`.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, 1) }
}

/// Replaces `expected` by `new`; tells whether it did.
#[inline(always)]
pub fn replace(word: *mut u64, expected: u64, new: u64) -> bool {
    // SAFETY: as in `load`.
    let (found, _) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, expected, new)
    };
    found == expected
}

/// The agent's epoch changed while its packet was being counted.
pub struct Stale;

/// Counts `amount` in a window of the agent of `slot` at `now`.
#[inline(always)]
pub fn count(window: *mut [u64; BUCKETS], now: Moment, amount: u64, slot: Slot) -> Result<(), Stale> {
    let word = bucket(window, now);
    match now.step(load(word), amount) {
        Step::Full => Ok(()),
        Step::Add => {
            add(word, amount);
            Ok(())
        }
        // Once a bucket: not worth room on everybody's way.
        Step::Restart(_) => match agentsec_restart(word, now.bucket, now.epoch, amount, slot) {
            0 => Ok(()),
            _ => Err(Stale),
        },
    }
}

/// Restarts an old word of a window with `amount`. One, when the epoch is not the agent's any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_restart(word: *mut u64, bucket: u64, epoch: u32, amount: u64, slot: Slot) -> i32 {
    if word.is_null() {
        return 1;
    }
    let now = Moment { bucket, epoch };
    for _ in 0..TRIES {
        let found = load(word);
        match now.step(found, amount) {
            Step::Full => return 0,
            Step::Add => break,
            Step::Restart(fresh) => {
                // A word of another epoch may be a newer one's: it is restarted only by who is up to date.
                if !is_current(slot, epoch) {
                    return 1;
                }
                if replace(word, found, fresh) {
                    return 0;
                }
            }
        }
    }
    // After lost races the word is another CPU's restart of it: current, or ahead of us.
    add(word, amount);
    0
}

/// Stamps a word with `now`, unless the agent's epoch has changed. Before what it stands for is counted.
#[inline(always)]
pub fn stamp(word: *mut u64, now: Moment, slot: Slot) {
    let fresh = Stamp::at(now).to_word();
    for _ in 0..TRIES {
        let found = load(word);
        // Another CPU's is as good, unless it is of an epoch that has ended.
        if found == fresh || !is_current(slot, now.epoch) || replace(word, found, fresh) {
            return;
        }
    }
}

/// Takes one away from the bucket of `then`, if that bucket still holds it.
#[inline(always)]
pub fn take_one(window: *mut [u64; BUCKETS], then: Moment) {
    let word = bucket(window, then);
    for _ in 0..TRIES {
        let found = load(word);
        let Some(less) = then.take_one(found) else { return };
        if replace(word, found, less) {
            return;
        }
    }
}

/// Sum of a window at `now`.
#[inline(always)]
pub fn sum(window: *const [u64; BUCKETS], now: Moment) -> u64 {
    agentsec_sum(window, now.bucket, now.epoch)
}

/// A function of its own because it wants all registers for itself; inlined, everything around it goes to the
/// stack and back.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_sum(window: *const [u64; BUCKETS], bucket: u64, epoch: u32) -> u64 {
    if window.is_null() {
        return 0;
    }
    let now = Moment { bucket, epoch };
    let mut sum = 0;
    for index in 0..BUCKETS {
        // SAFETY: the index is within the array.
        sum += now.live(load(unsafe { window.cast::<u64>().add(index) }), index);
    }
    sum
}

#[inline(always)]
fn bucket(window: *mut [u64; BUCKETS], moment: Moment) -> *mut u64 {
    // SAFETY: `Moment::index` is below BUCKETS.
    unsafe { window.cast::<u64>().add(moment.index()) }
}

#[inline(always)]
fn is_current(slot: Slot, epoch: u32) -> bool {
    let Some(policy) = POLICY.get_ptr(slot) else { return false };
    // SAFETY: a live map value.
    let control = load(unsafe { &raw const (*policy).control });
    Control::from_word(control).is_some_and(|control| control.epoch == epoch)
}
