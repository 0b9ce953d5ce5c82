//! Whose packet it is: said by where it was seen. Only behind a shared link is what the packet says believed.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie, bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id,
};

use agentsec_common::agent::{
    CGROUP_LEVELS, Direction, Identity, LINK_BITS, LinkAddress, LinkIpv4, Recent, Slot,
};
use agentsec_common::endpoint::{Address, MAPPED};
use agentsec_common::maps::IDENTITY_NEAR_CAPACITY;
use agentsec_common::packet::{Frame, IpVersion, find_ip};

use crate::frame::{self, Linear};
use crate::maps::{
    COVERED, IDENTITY_CGROUP, IDENTITY_FAR, IDENTITY_IPV4, IDENTITY_IPV6, IDENTITY_NEAR, IDENTITY_PREFIX,
    RECENT, SCOPE,
};
use crate::words::{load, store};

/// Whether this kernel tells a packet's network namespace to cgroup programs. Set before loading, so that the
/// verifier removes the question where there is no answer.
#[unsafe(no_mangle)]
static TELLS_NAMESPACE: u8 = 0;

/// The agent behind the interface that the packet crosses.
#[inline(always)]
pub fn by_interface(skb: *mut __sk_buff) -> Option<Slot> {
    // SAFETY: the context pointer that the kernel passed.
    behind(unsafe { (*skb).ifindex })
}

#[inline(always)]
fn behind(ifindex: u32) -> Option<Slot> {
    let word = if ifindex < IDENTITY_NEAR_CAPACITY {
        IDENTITY_NEAR.get_ptr(ifindex)?
    } else {
        IDENTITY_FAR.get_ptr(&ifindex)?
    };
    slot(word)
}

#[inline(always)]
fn slot(word: *const u64) -> Option<Slot> {
    Identity::from_word(load(word)).slot()
}

/// The agent in whose cgroup, or below it, the packet's socket was made.
///
/// The outermost agent's, so that an agent that may make cgroups of its own cannot make itself another. A packet
/// of a namespace that is behind an agent's interface is counted there, and is nobody's here.
#[inline(always)]
pub fn by_cgroup(skb: *mut __sk_buff) -> Option<Slot> {
    let slot = around(skb)?;
    // SAFETY: a constant of this program; volatile, because the loader changes it.
    if unsafe { (&raw const TELLS_NAMESPACE).read_volatile() } != 0 && some_are_covered() {
        // SAFETY: the context pointer that the kernel passed.
        let cookie = unsafe { bpf_get_netns_cookie(skb.cast()) };
        if COVERED.get_ptr(&cookie).is_some() {
            return None;
        }
    }
    Some(slot)
}

/// The agent around a packet's cgroup. Packets come in bursts, so the latest answer is asked first.
#[inline(always)]
fn around(skb: *mut __sk_buff) -> Option<Slot> {
    // SAFETY: the context pointer that the kernel passed.
    let cgroup = unsafe { bpf_skb_cgroup_id(skb) };
    let (Some(scope), Some(recent)) = (SCOPE.get_ptr(0), RECENT.get_ptr_mut(0)) else { return None };
    // SAFETY: live map values. Before the look-up: an answer from before a change is then never taken after it.
    let (generation, found) = unsafe {
        let found = Recent {
            cgroup: load(&raw const (*recent).cgroup),
            word: load(&raw const (*recent).word),
            check: load(&raw const (*recent).check),
        };
        (load(&raw const (*scope).generation), found)
    };
    if let Some(word) = found.answer(cgroup, generation) {
        return Identity::from_word(word).slot();
    }
    // SAFETY: the context pointer that the kernel passed.
    let slot = outermost(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) });
    let word = slot.map_or(Identity::NONE, Identity::of).to_word();
    let fresh = Recent::of(cgroup, word, generation);
    // SAFETY: live map values.
    unsafe {
        store(&raw mut (*recent).cgroup, fresh.cgroup);
        store(&raw mut (*recent).word, fresh.word);
        store(&raw mut (*recent).check, fresh.check);
    }
    slot
}

#[inline(always)]
fn some_are_covered() -> bool {
    let Some(scope) = SCOPE.get_ptr(0) else { return false };
    // SAFETY: a live map value.
    load(unsafe { &raw const (*scope).covered }) != 0
}

/// The agent in whose cgroup, or below it, the current process is.
#[inline(always)]
pub fn by_process() -> Option<Slot> {
    // SAFETY: a helper that takes a number.
    outermost(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// The outermost of a cgroup's ancestors that is an agent's: one look-up for each level that has agents.
#[inline(always)]
fn outermost(ancestor: impl Fn(i32) -> u64) -> Option<Slot> {
    let scope = SCOPE.get_ptr(0)?;
    // SAFETY: a live map value.
    let levels = load(unsafe { &raw const (*scope).cgroup_levels });
    for level in 1..=CGROUP_LEVELS {
        // Agents' cgroups are mostly near the root; this is what everybody else's packets take.
        if levels >> level == 0 {
            return None;
        }
        if levels & (1 << level) == 0 {
            continue;
        }
        let id = ancestor(level as i32);
        if id == 0 {
            return None;
        }
        if let Some(word) = IDENTITY_CGROUP.get_ptr(&id) {
            return slot(word);
        }
    }
    None
}

/// The agent behind a shared link: what it sends has its address as the source, what it is sent as the destination.
/// None on an interface that is an agent's as a whole, which has precedence.
#[inline(always)]
pub fn by_address(skb: *mut __sk_buff, direction: Direction) -> Option<Slot> {
    // SAFETY: the context pointer that the kernel passed.
    let ifindex = unsafe { (*skb).ifindex };
    let found = match find(&Linear::of(skb), ifindex, direction) {
        Found::Unreadable if frame::has_more(skb) => {
            frame::pull(skb);
            find(&Linear::of(skb), ifindex, direction)
        }
        found => found,
    };
    match found {
        Found::Agent(slot) if behind(ifindex).is_none() => Some(slot),
        _ => None,
    }
}

/// The sender of a frame that no socket buffer was made for yet.
pub struct Sender {
    /// The agent.
    pub slot: Slot,
    /// Where the frame ends, as its IP header says.
    pub end: usize,
}

/// The agent behind a shared link that has sent a frame.
#[inline(always)]
pub fn by_source(frame: *mut xdp_md) -> Option<Sender> {
    // SAFETY: the context pointer that the kernel passed.
    let ifindex = unsafe { (*frame).ingress_ifindex };
    let linear = Linear::of_xdp(frame);
    let Found::Agent(slot) = find(&linear, ifindex, Direction::Outbound) else { return None };
    let (version, at) = find_ip(&linear)?;
    let (length, rest) = match version {
        IpVersion::V4 => (at + 2, 0),
        IpVersion::V6 => (at + 4, 40),
    };
    Some(Sender { slot, end: at + rest + u16::from_be_bytes(linear.bytes(length)?) as usize })
}

/// Whose address a frame carries.
enum Found {
    /// An agent's.
    Agent(Slot),
    /// Nobody's.
    Nobody,
    /// The frame ends before it.
    Unreadable,
}

#[inline(always)]
fn find(frame: &Linear, ifindex: u32, direction: Direction) -> Found {
    let outbound = matches!(direction, Direction::Outbound);
    let address = match find_ip(frame) {
        Some((IpVersion::V4, at)) => frame
            .words(at + if outbound { 12 } else { 16 })
            .map(|[word]: [u32; 1]| (by_ipv4(ifindex, word), [0, 0, MAPPED, word])),
        Some((IpVersion::V6, at)) => frame
            .words(at + if outbound { 8 } else { 24 })
            .map(|address: Address| (IDENTITY_IPV6.get_ptr(&LinkAddress { ifindex, address }), address)),
        None => return Found::Unreadable,
    };
    let Some((exact, address)) = address else { return Found::Unreadable };
    let word = match exact {
        Some(word) => load(word),
        None => by_prefix(ifindex, address),
    };
    match Identity::from_word(word).slot() {
        Some(slot) => Found::Agent(slot),
        None => Found::Nobody,
    }
}

#[inline(always)]
fn by_ipv4(ifindex: u32, address: u32) -> Option<*const u64> {
    IDENTITY_IPV4.get_ptr(&LinkIpv4 { ifindex, address })
}

/// The trie takes several times as long as a hash, so it is asked only when it can know something.
#[inline(always)]
fn by_prefix(ifindex: u32, address: Address) -> u64 {
    let Some(scope) = SCOPE.get_ptr(0) else { return 0 };
    // SAFETY: a live map value.
    if load(unsafe { &raw const (*scope).prefixes }) == 0 {
        return 0;
    }
    let bits = LINK_BITS + 8 * size_of::<Address>() as u32;
    let key = Key::new(bits, LinkAddress { ifindex: ifindex.to_be(), address });
    IDENTITY_PREFIX.get(&key).map_or(0, |word| *word as u64)
}
