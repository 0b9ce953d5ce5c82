//! The packet: its bytes, its headers, its size on the wire.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::bpf_skb_pull_data;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;

use agentsec_common::packet::{Class, Frame, Headers, parse_into, parse_packet_into, wire_size};
use agentsec_common::recorder::Link;

use agentsec_common::agent::{Direction, Slot};

use crate::case::Case;
use crate::verdict::{agentsec_drop_read, agentsec_drop_read_packet};

/// Bytes that are made linear when headers turn out to lie in fragments of the buffer.
const PULL_BYTES: u32 = 256;
const VLAN_BYTES: u32 = 4;

/// The linear part of a packet.
pub struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    #[inline(always)]
    pub fn of(skb: *mut __sk_buff) -> Self {
        // Volatile, because the compiler would otherwise load the two words in a caller and pass them on as
        // numbers; the verifier knows them as packet pointers only where they are loaded.
        // SAFETY: the context pointer that the kernel passed.
        let (start, end) = unsafe {
            ((&raw const (*skb).data).read_volatile(), (&raw const (*skb).data_end).read_volatile())
        };
        Self { start: start as usize, end: end as usize }
    }

    /// The same of a frame that no socket buffer was made for yet: its first part, when it has several.
    #[inline(always)]
    pub fn of_xdp(frame: *mut xdp_md) -> Self {
        // SAFETY: the context pointer that the kernel passed. Volatile as in `of`.
        let (start, end) = unsafe {
            ((&raw const (*frame).data).read_volatile(), (&raw const (*frame).data_end).read_volatile())
        };
        Self { start: start as usize, end: end as usize }
    }

    #[inline(always)]
    pub fn read<T: Copy>(&self, offset: usize) -> Option<T> {
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

/// The same for what has no link layer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_parse_packet(skb: *mut __sk_buff, headers: *mut Headers) -> i32 {
    // SAFETY: the verifier checks that callers pass whole headers.
    let Some(headers) = (unsafe { headers.as_mut() }) else { return 1 };
    parse_packet_into(&Linear::of(skb), headers);
    0
}

/// The same for a frame that no socket buffer was made for yet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_parse_xdp(frame: *mut xdp_md, headers: *mut Headers) -> i32 {
    // SAFETY: the verifier checks that callers pass whole headers.
    let Some(headers) = (unsafe { headers.as_mut() }) else { return 1 };
    parse_into(&Linear::of_xdp(frame), headers);
    0
}

/// Bytes of a frame that no socket buffer was made for yet, which its IP header says to end at `end`. One in several
/// parts (jumbo) says more than its first part has; only then is it worth asking.
#[inline(always)]
pub fn xdp_bytes(frame: *mut xdp_md, end: usize) -> u64 {
    let linear = Linear::of_xdp(frame);
    let bytes = linear.end - linear.start;
    if end <= bytes {
        return bytes as u64;
    }
    // SAFETY: the context pointer that the kernel passed.
    unsafe { bpf_xdp_get_buff_len(frame) }
}

/// What a hook shows of a packet.
pub trait Layer {
    /// What the packet's bytes begin with.
    const LINK: Link;
    /// Reads the packet's headers and its size.
    fn read(skb: *mut __sk_buff, case: &mut Case);
    /// The packet's bytes and packets, with `header_bytes` in each.
    fn size(skb: *mut __sk_buff, header_bytes: u16) -> (u64, u64);
    /// Reads a packet of an OPEN agent, drops it and gives notice of it.
    fn drop_read(skb: *mut __sk_buff, slot: Slot, direction: Direction);
}

/// Interfaces show Ethernet frames, and let them be made linear where headers are not.
pub struct Frames;

impl Layer for Frames {
    const LINK: Link = Link::Ethernet;

    #[inline(always)]
    fn read(skb: *mut __sk_buff, case: &mut Case) {
        agentsec_parse(skb, &raw mut case.headers);
        if matches!(case.headers.class, Class::Malformed) && has_more(skb) {
            pull(skb);
            agentsec_parse(skb, &raw mut case.headers);
        }
        (case.bytes, case.packets) = Self::size(skb, case.headers.header_bytes);
    }

    /// A VLAN tag that the stack holds beside the packet is four bytes more.
    #[inline(always)]
    fn size(skb: *mut __sk_buff, header_bytes: u16) -> (u64, u64) {
        // SAFETY: the context pointer that the kernel passed.
        let tag = if unsafe { (*skb).vlan_present } != 0 { VLAN_BYTES } else { 0 };
        sized(skb, tag, header_bytes)
    }

    #[inline(always)]
    fn drop_read(skb: *mut __sk_buff, slot: Slot, direction: Direction) {
        agentsec_drop_read(skb, slot, direction as u32);
    }
}

/// Cgroups show IP packets, whose headers are linear: the stack itself has made or pulled them.
pub struct Packets;

impl Layer for Packets {
    const LINK: Link = Link::Ip;

    #[inline(always)]
    fn read(skb: *mut __sk_buff, case: &mut Case) {
        agentsec_parse_packet(skb, &raw mut case.headers);
        (case.bytes, case.packets) = Self::size(skb, case.headers.header_bytes);
    }

    #[inline(always)]
    fn size(skb: *mut __sk_buff, header_bytes: u16) -> (u64, u64) {
        sized(skb, 0, header_bytes)
    }

    #[inline(always)]
    fn drop_read(skb: *mut __sk_buff, slot: Slot, direction: Direction) {
        agentsec_drop_read_packet(skb, slot, direction as u32);
    }
}

/// Makes the headers linear.
#[inline(always)]
pub fn pull(skb: *mut __sk_buff) {
    // SAFETY: the context pointer that the kernel passed.
    unsafe { bpf_skb_pull_data(skb, (*skb).len.min(PULL_BYTES)) };
}

/// Whether bytes lie beyond the linear part.
#[inline(always)]
pub fn has_more(skb: *mut __sk_buff) -> bool {
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

#[inline(always)]
fn sized(skb: *mut __sk_buff, tag: u32, header_bytes: u16) -> (u64, u64) {
    // SAFETY: the context pointer that the kernel passed.
    let (length, gso_size, segments) = unsafe { ((*skb).len, (*skb).gso_size, (*skb).gso_segs) };
    wire_size(length + tag, header_bytes.wrapping_add(tag as u16), gso_size, segments)
}
