//! A packet's payload, as far as it is looked at.

use core::hint::black_box;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;

use agentsec_common::flow::Language;
use agentsec_common::notice;
use agentsec_common::payload::is_http2_preface;
use agentsec_common::sample::{SAMPLE_BYTES, SAMPLES_PER_SECOND};

use crate::case::Case;
use crate::flow::key_of;
use crate::maps::{LEDGER, SAMPLES};
use crate::words::{add, load, replace};

/// The first bytes that are looked at, and how many of them there are.
pub struct First {
    /// The bytes; zero where there are none.
    pub bytes: [u8; 16],
    /// How many there are, at most sixteen.
    pub length: u32,
}

/// The bytes at `offset` of the payload.
#[inline(always)]
pub fn first(skb: *mut __sk_buff, case: &Case, offset: u32) -> Option<First> {
    let available = case.headers.payload_bytes.saturating_sub(offset);
    if available == 0 {
        return None;
    }
    let length = at_most(available, 16);
    // Words, which are cleared without a loop.
    let mut words = [0u64; 2];
    let at = case.headers.header_bytes as u32 + offset;
    // SAFETY: the context pointer that the kernel passed, and room for as many bytes as are asked for.
    let failed = unsafe { bpf_skb_load_bytes(skb.cast(), at, words.as_mut_ptr().cast(), length) };
    if failed != 0 {
        return None;
    }
    let [low, high] = words.map(u64::to_ne_bytes);
    let mut bytes = [0; 16];
    let (first, last) = bytes.split_at_mut(8);
    first.copy_from_slice(&low);
    last.copy_from_slice(&high);
    Some(First { bytes, length })
}

/// The smaller of a number that is not zero and a power of two, so that the verifier sees that it is neither zero nor
/// greater: before 6.8 it learns nothing from a comparison with zero.
#[inline(always)]
pub fn at_most(number: u32, most: u32) -> u32 {
    let less = if number > most { most - 1 } else { number.wrapping_sub(1) };
    (black_box(less) & (most - 1)) + 1
}

/// A frame of HTTP/2: nine bytes of header and so many of payload.
const HTTP2_HEADER: u32 = 9;
const HTTP2_HEADERS: u8 = 1;
/// Bytes of the preface that a client sends first.
const HTTP2_PREFACE: u32 = 24;
/// Frames of a segment that are looked at.
const HTTP2_FRAMES: u32 = 8;

/// HEADERS frames of a segment that begins with a frame or the preface: how many there are (upper half), and the offset of the first.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_http2(skb: *mut __sk_buff, case: *const Case) -> u64 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let (mut offset, mut count, mut found) = (0u32, 0u32, 0u32);
    for _ in 0..HTTP2_FRAMES {
        let Some(First { bytes, length }) = first(skb, case, offset) else { break };
        if length < HTTP2_HEADER {
            break;
        }
        if offset == 0 && is_http2_preface(&bytes, length) {
            offset = HTTP2_PREFACE;
            continue;
        }
        if bytes[3] == HTTP2_HEADERS {
            if count == 0 {
                found = offset;
            }
            count += 1;
        }
        let payload = (bytes[0] as u32) << 16 | (bytes[1] as u32) << 8 | bytes[2] as u32;
        offset += HTTP2_HEADER + payload;
        if offset >= case.headers.payload_bytes {
            break;
        }
    }
    (count as u64) << 32 | found as u64
}

/// Sends the payload from `offset` on to the daemon, as far as it fits, as the `ordinal`-th sample of its connection.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_sample(skb: *mut __sk_buff, case: *const Case, offset: u32, how: u32) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let Some(ledger) = LEDGER.get_ptr_mut(case.slot) else { return 0 };
    // SAFETY: live map values.
    let (budget, lost) = unsafe { (&raw mut (*ledger).samples, &raw mut (*ledger).samples_lost) };
    let spent = load(budget);
    match notice::spend_of(spent, case.now_ns, SAMPLES_PER_SECOND) {
        Some(more) if replace(budget, spent, more) => {}
        _ => {
            add(lost, 1);
            return 0;
        }
    }
    let total = case.headers.payload_bytes.saturating_sub(offset);
    if total == 0 {
        return 0;
    }
    let length = at_most(total, SAMPLE_BYTES as u32);
    let Some(mut entry) = SAMPLES.reserve(0) else {
        add(lost, 1);
        return 0;
    };
    let sample = entry.as_mut_ptr();
    let (language, ordinal) = unpack(how);
    // SAFETY: room of a whole sample, of which the length is checked above.
    let failed = unsafe {
        (&raw mut (*sample).at_ns).write(case.now_ns);
        (&raw mut (*sample).flow).write(key_of(case));
        (&raw mut (*sample).epoch).write(case.epoch);
        (&raw mut (*sample).total).write(total);
        (&raw mut (*sample).length).write(length as u16);
        (&raw mut (*sample).ordinal).write(ordinal);
        (&raw mut (*sample).language).write(language);
        let at = case.headers.header_bytes as u32 + offset;
        bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*sample).bytes).cast(), length)
    };
    if failed == 0 {
        entry.submit(0);
    } else {
        entry.discard(0);
        add(lost, 1);
    }
    0
}

/// A language and an ordinal in one argument.
#[inline(always)]
pub fn pack(language: Language, ordinal: u64) -> u32 {
    (language as u32) << 16 | ordinal as u32 & 0xffff
}

#[inline(always)]
fn unpack(how: u32) -> (u8, u16) {
    ((how >> 16) as u8, how as u16)
}
