//! Recording: a packet's first bytes and what became of it, into the agent's own round of entries.

use core::hint::black_box;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes};

use agentsec_common::agent::Slot;
use agentsec_common::ledger::Ledger;
use agentsec_common::packet::Class;
use agentsec_common::policy::Policy;
use agentsec_common::recorder::{
    DATA_BYTES, Entry, Fate, Link, ON, Orders, is_busy, is_sampled, writing, written,
};

use crate::case::{Case, marks};
use crate::frame::{Layer, Linear};
use crate::maps::{COUNTERS, LEDGER, POLICY, RECORDS};
use crate::payload::at_most;
use crate::words::{add, load, replace, store, take_number};

/// Bytes of an ARP packet for IPv4, which has no payload to hide.
const ARP_BYTES: u32 = 28;

/// The mark of a case, of which the recorder is told when all is decided.
#[inline(always)]
pub fn mark(policy: *const Policy) -> u8 {
    // SAFETY: a live map value.
    if load(unsafe { &raw const (*policy).recorder }) & ON != 0 { marks::RECORDED } else { 0 }
}

/// Records a packet about which all is decided, if anything is recorded of its agent.
#[inline(always)]
pub fn keep<L: Layer>(skb: *mut __sk_buff, case: &Case, passes: bool) {
    if case.marks & marks::RECORDED != 0 {
        agentsec_record(skb, case, How { passes, link: L::LINK as u8 }.pack());
    }
}

/// What the recorder is told beside the case, in one argument.
struct How {
    passes: bool,
    link: u8,
}

impl How {
    #[inline(always)]
    fn pack(self) -> u32 {
        self.passes as u32 | (self.link as u32) << 8
    }

    #[inline(always)]
    fn unpack(how: u32) -> Self {
        Self { passes: how & 1 != 0, link: (how >> 8) as u8 }
    }
}

/// Records a packet. What is dropped or trips the circuit always is, the rest as often as ordered.
///
/// An entry belongs to the CPU that has moved its word from whole to busy, so that no two write to it: with the ring
/// gone once round while one writes, the later packet is not recorded, and counted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_record(skb: *mut __sk_buff, case: *const Case, how: u32) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let (Some(policy), Some(ledger)) = (POLICY.get_ptr(case.slot), LEDGER.get_ptr_mut(case.slot)) else {
        return 0;
    };
    let how = How::unpack(how);
    // SAFETY: live map values.
    let (word, salt) =
        unsafe { (load(&raw const (*policy).recorder), load(&raw const (*policy).recorder_salt)) };
    let Some(orders) = Orders::from_word(word) else { return 0 };
    let is_due = !how.passes || case.marks & marks::TRIPPED != 0 || orders.one_in <= 1;
    if !is_due && !is_sampled(orders.one_in, count(case.slot), salt) {
        return 0;
    }
    // SAFETY: live map values.
    let (recorded, lost) = unsafe { (&raw mut (*ledger).recorded, &raw mut (*ledger).recorder_lost) };
    let sequence = take_number(recorded) + 1;
    let Some(entry) = RECORDS.get_ptr_mut(orders.index(sequence)) else { return 0 };
    // SAFETY: a live map value.
    let word = unsafe { &raw mut (*entry).word };
    let found = load(word);
    if is_busy(found) || !replace(word, found, writing(sequence)) {
        add(lost, 1);
        return 0;
    }
    // SAFETY: a live map value, this CPU's own as long as its word is busy.
    unsafe {
        describe(entry, case, orders, &how, time(ledger, case));
        copy(skb, entry, case, orders, &how);
    }
    // Ordered after all that was written: a reader that finds it finds the rest.
    replace(word, writing(sequence), written(sequence));
    0
}

/// A number that no two packets of the agent on this CPU have in common: each is counted by now.
#[inline(always)]
fn count(slot: Slot) -> u64 {
    let Some(counters) = COUNTERS.get_ptr(slot) else { return 0 };
    // SAFETY: a live map value, this CPU's own.
    let [outbound, inbound] = unsafe { &(*counters).traffic };
    outbound.bytes + inbound.bytes
}

/// When a packet came.
struct Time {
    at_ns: u64,
    is_exact: bool,
}

/// The exact time for the first packet of the agent in a tick of the coarse clock and for the one that trips, and that same time
/// for those that follow: it never runs backwards, and at most as many are asked for as there are ticks.
#[inline(always)]
fn time(ledger: *mut Ledger, case: &Case) -> Time {
    // SAFETY: a live map value.
    let latest = unsafe { &raw mut (*ledger).recorder_time };
    let asked = load(latest);
    if case.now_ns < asked && case.marks & marks::TRIPPED == 0 {
        return Time { at_ns: asked, is_exact: false };
    }
    // SAFETY: a helper without arguments.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    store(latest, at_ns);
    Time { at_ns, is_exact: true }
}

/// Fills in what is said of the packet.
///
/// # Safety
///
/// `entry` is a live map value.
#[inline(always)]
unsafe fn describe(entry: *mut Entry, case: &Case, orders: Orders, how: &How, time: Time) {
    let fate = match (how.passes, case.marks & marks::WOULD_DROP != 0) {
        (false, _) => Fate::Dropped,
        (true, true) => Fate::WouldDrop,
        (true, false) => Fate::Passed,
    };
    let packets = if case.packets > u16::MAX as u64 { u16::MAX } else { case.packets as u16 };
    macro_rules! fill {
        ($($field:ident: $value:expr),+ $(,)?) => {
            // SAFETY: as said above.
            unsafe { $((&raw mut (*entry).$field).write($value);)+ }
        };
    }
    fill! {
        at_ns: time.at_ns,
        exact: time.is_exact as u8,
        wire_bytes: case.bytes,
        slot: case.slot,
        epoch: case.epoch,
        generation: orders.generation,
        packets: packets,
        one_in: orders.one_in,
        direction: case.inbound,
        fate: fate as u8,
        state: marks::state(case.marks),
        mode: marks::mode(case.marks),
        link: how.link,
        tripped: case.marks & marks::TRIPPED,
    }
}

/// Copies the packet's first bytes: headers, or as many as are wanted.
///
/// # Safety
///
/// `entry` is a live map value.
#[inline(always)]
unsafe fn copy(skb: *mut __sk_buff, entry: *mut Entry, case: &Case, orders: Orders, how: &How) {
    let is_arp = matches!(case.headers.class, Class::Arp);
    let headers = case.headers.header_bytes as u32 + if is_arp { ARP_BYTES } else { 0 };
    // SAFETY: the context pointer that the kernel passed, and a live map value.
    unsafe {
        let length = (*skb).len;
        (&raw mut (*entry).length).write(length);
        let (mut tci, mut protocol) = (0, 0);
        if how.link == Link::Ethernet as u8 && (*skb).vlan_present != 0 {
            (tci, protocol) = ((*skb).vlan_tci as u16, u16::from_be((*skb).vlan_proto as u16));
        }
        (&raw mut (*entry).vlan_tci).write(tci);
        (&raw mut (*entry).vlan_protocol).write(protocol);
        let mut captured = orders.wanted(length, headers);
        if !copy_linear(skb, &raw mut (*entry).data, captured) && captured != 0 {
            captured = at_most(captured, DATA_BYTES as u32);
            if bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*entry).data).cast(), captured) != 0 {
                captured = 0;
            }
        }
        (&raw mut (*entry).captured).write(captured as u16);
    }
}

/// Copies `length` bytes word by word, the last word over the one before it; false, when they are not all in the linear part or
/// fewer than a word. Half the time of the helper.
///
/// # Safety
///
/// `data` is a live map value's.
#[inline(always)]
unsafe fn copy_linear(skb: *mut __sk_buff, data: *mut [u8; DATA_BYTES], length: u32) -> bool {
    const WORD: usize = 8;
    let linear = Linear::of(skb);
    let length = length as usize;
    if !(WORD..=DATA_BYTES).contains(&length) {
        return false;
    }
    for index in 0..DATA_BYTES / WORD {
        let at = index * WORD;
        if at + WORD > length {
            break;
        }
        let Some(word) = linear.read::<u64>(at) else { return false };
        // SAFETY: within the entry's data.
        unsafe { data.cast::<u8>().add(at).cast::<u64>().write(word) };
    }
    // Hidden, so that the packet's end is compared with the very pointer that is read by, as the verifier wants it.
    let last = black_box(length - WORD);
    if last > DATA_BYTES - WORD {
        return false;
    }
    let Some(word) = linear.read::<u64>(last) else { return false };
    // SAFETY: within the entry's data; not aligned, which the verifier checks that the host allows.
    unsafe { data.cast::<u8>().add(last).cast::<u64>().write_unaligned(word) };
    true
}
