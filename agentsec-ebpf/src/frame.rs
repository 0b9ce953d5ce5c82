//! The packet: its bytes, its headers, its size on the wire.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_pull_data;

use agentsec_common::packet::{Class, Frame, Headers, parse_into, wire_size};

use crate::case::Case;

/// Bytes that are made linear when headers turn out to lie in fragments of the buffer.
const PULL_BYTES: u32 = 256;
const VLAN_BYTES: u32 = 4;

/// The linear part of a packet.
struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Self {
        // Volatile, because the compiler would otherwise load the two words in a caller and pass them on as
        // numbers; the verifier knows them as packet pointers only where they are loaded.
        // SAFETY: the context pointer that the kernel passed.
        let (start, end) = unsafe {
            ((&raw const (*skb).data).read_volatile(), (&raw const (*skb).data_end).read_volatile())
        };
        Self { start: start as usize, end: end as usize }
    }

    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> Option<T> {
        let at = self.start + offset;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: within the packet, as just checked, and `T` is an array of integers. Headers need not be
        // aligned: the verifier refuses the program on hosts where that matters.
        Some(unsafe { *(at as *const T) })
    }
}

impl Frame for Linear {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.read(offset)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        self.read(offset)
    }
}

/// Reads the headers into `headers`.
///
/// A function with global linkage: the verifier checks it once by itself and forgets its paths at the call.
/// Inlined, every path through the parser is followed by every path through the rest (measured: 560,000
/// instructions visited instead of a few thousand).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_parse(skb: *mut __sk_buff, headers: *mut Headers) -> i32 {
    // SAFETY: the verifier checks that callers pass whole headers.
    let Some(headers) = (unsafe { headers.as_mut() }) else { return 1 };
    parse_into(&Linear::of(skb), headers);
    0
}

/// Reads the packet's headers, made linear first where they are not, and its size.
#[inline(always)]
pub fn read(skb: *mut __sk_buff, case: &mut Case) {
    agentsec_parse(skb, &raw mut case.headers);
    if matches!(case.headers.class, Class::Malformed) && has_more(skb) {
        // SAFETY: the context pointer that the kernel passed.
        unsafe { bpf_skb_pull_data(skb, (*skb).len.min(PULL_BYTES)) };
        agentsec_parse(skb, &raw mut case.headers);
    }
    (case.bytes, case.packets) = size(skb, case.headers.header_bytes);
}

/// Whether bytes lie beyond the linear part.
#[inline(always)]
fn has_more(skb: *mut __sk_buff) -> bool {
    let linear = Linear::of(skb);
    // SAFETY: the context pointer that the kernel passed.
    linear.start + PULL_BYTES as usize > linear.end
        && unsafe { (*skb).len } > (linear.end - linear.start) as u32
}

/// Whether the packet becomes several on the wire.
#[inline(always)]
pub fn is_super(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context pointer that the kernel passed.
    unsafe { (*skb).gso_size != 0 }
}

/// The packet's bytes and packets on the wire, with `header_bytes` in each: a VLAN tag that the stack holds beside
/// the packet is four bytes more.
#[inline(always)]
pub fn size(skb: *mut __sk_buff, header_bytes: u16) -> (u64, u64) {
    // SAFETY: the context pointer that the kernel passed.
    let (length, tagged, gso_size, segments) =
        unsafe { ((*skb).len, (*skb).vlan_present != 0, (*skb).gso_size, (*skb).gso_segs) };
    let tag = if tagged { VLAN_BYTES } else { 0 };
    wire_size(length + tag, header_bytes.wrapping_add(tag as u16), gso_size, segments)
}
