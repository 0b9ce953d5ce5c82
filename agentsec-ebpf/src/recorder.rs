//! Recording: a packet's first bytes and what became of it, into the agent's own round of entries.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_skb_load_bytes};

use agentsec_common::packet::Class;
use agentsec_common::policy::{Control, Policy, State};
use agentsec_common::recorder::{DATA_BYTES, Entry, Fate, Link, ON, Orders, is_busy, is_sampled, written, writing};

use crate::case::{Case, TRIPPED, WOULD_DROP};
use crate::frame::Layer;
use crate::maps::{LEDGER, POLICY, RECORDS};
use crate::payload::at_most;
use crate::words::{add, load, replace, take_number};

/// Bytes of an ARP packet for IPv4, which has no payload to hide.
const ARP_BYTES: u32 = 28;

/// Records a packet about which all is decided, if anything is recorded of its agent.
#[inline(always)]
pub fn keep<L: Layer>(
    skb: *mut __sk_buff,
    case: &Case,
    policy: *const Policy,
    control: Control,
    state: State,
    passes: bool,
) {
    // SAFETY: a live map value.
    if load(unsafe { &raw const (*policy).recorder }) & ON == 0 {
        return;
    }
    let how = How { passes, state: state as u8, mode: control.mode as u8, link: L::LINK as u8 };
    agentsec_record(skb, case, how.pack());
}

/// What the recorder is told beside the case, in one argument.
struct How {
    passes: bool,
    state: u8,
    mode: u8,
    link: u8,
}

impl How {
    #[inline(always)]
    fn pack(self) -> u32 {
        self.passes as u32 | (self.state as u32) << 8 | (self.mode as u32) << 16 | (self.link as u32) << 24
    }

    #[inline(always)]
    fn unpack(how: u32) -> Self {
        Self { passes: how & 1 != 0, state: (how >> 8) as u8, mode: (how >> 16) as u8, link: (how >> 24) as u8 }
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
    let (Some(policy), Some(ledger)) = (POLICY.get_ptr(case.slot), LEDGER.get_ptr_mut(case.slot)) else { return 0 };
    let how = How::unpack(how);
    // SAFETY: a live map value.
    let Some(orders) = Orders::from_word(load(unsafe { &raw const (*policy).recorder })) else { return 0 };
    let is_due = !how.passes || case.marks & TRIPPED != 0 || orders.one_in <= 1;
    // SAFETY: a helper without arguments.
    if !is_due && !is_sampled(orders.one_in, unsafe { bpf_get_prandom_u32() } as u32) {
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
        describe(entry, case, orders, &how);
        copy(skb, entry, case, orders, &how);
    }
    // Ordered after all that was written: a reader that finds it finds the rest.
    replace(word, writing(sequence), written(sequence));
    0
}

/// Fills in what is said of the packet.
///
/// # Safety
///
/// `entry` is a live map value.
#[inline(always)]
unsafe fn describe(entry: *mut Entry, case: &Case, orders: Orders, how: &How) {
    let fate = match (how.passes, case.marks & WOULD_DROP != 0) {
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
        // SAFETY: a helper without arguments. Not the case's time, which is that of the last tick.
        at_ns: unsafe { bpf_ktime_get_ns() },
        wire_bytes: case.bytes,
        slot: case.slot,
        epoch: case.epoch,
        generation: orders.generation,
        packets: packets,
        one_in: orders.one_in,
        direction: case.inbound,
        fate: fate as u8,
        state: how.state,
        mode: how.mode,
        link: how.link,
        tripped: case.marks & TRIPPED,
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
        if captured != 0 {
            captured = at_most(captured, DATA_BYTES as u32);
            if bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*entry).data).cast(), captured) != 0 {
                captured = 0;
            }
        }
        (&raw mut (*entry).captured).write(captured as u16);
    }
}
