//! The list of connections: finding, making, settling, ending.

use aya_ebpf::bindings::BPF_NOEXIST;

use agentsec_common::endpoint::{Endpoint, EndpointKey, EndpointKind};
use agentsec_common::flow::{Answered, Flow, FlowKey, Sent, Settled, Statuses};
use agentsec_common::packet::{Class, protocol, tcp};
use agentsec_common::profile::{FOLLOW_FLOWS, Profile};

use super::entry::{is_opened, kind};
use super::record::tell_end;
use super::{is_tcp, key_of, opens};
use crate::account::Seen;
use crate::case::Case;
use crate::maps::{ENDPOINTS, FLOWS, LEDGER, NO_FLOW, POLICY, PROFILES};
use crate::words::{add, load, replace, store};

/// The packet's connection, if connections are followed and it is known; null otherwise. What opens one is looked at
/// more closely.
#[inline(always)]
pub fn find(case: &Case, profile: &Profile) -> *mut Flow {
    let headers = &case.headers;
    let followed = profile.flags & FOLLOW_FLOWS != 0
        && matches!(headers.class, Class::Ipv4 | Class::Ipv6)
        && (matches!(headers.protocol, protocol::UDP) || is_tcp(case) && headers.tcp_flags & tcp::SYN == 0);
    if !followed {
        return core::ptr::null_mut();
    }
    FLOWS.get_ptr_mut(&key_of(case)).unwrap_or(core::ptr::null_mut())
}

/// Whether a connection speaks for its endpoint: see [`Settled`].
#[inline(always)]
pub fn is_settled(entry: *const Flow, case: &Case) -> bool {
    // SAFETY: a live map value.
    load(unsafe { &raw const (*entry).settled }) == Settled::to_word(case.profile_tag, case.now_ns)
}

/// Tells a connection's endpoint of it, and lets it speak for the endpoint if that is typical.
#[inline(always)]
pub fn settle(entry: *mut Flow, case: &Case, seen: &Seen) {
    if seen.entry.is_null() || kind(entry) != case.endpoint_kind {
        return;
    }
    tell(entry, seen.entry, case.now_ns);
    if seen.typical {
        // SAFETY: a live map value.
        store(unsafe { &raw mut (*entry).settled }, Settled::to_word(case.profile_tag, case.now_ns));
    }
}

/// Tells an endpoint what has passed on a connection since it was last told.
#[inline(always)]
fn tell(entry: *mut Flow, endpoint: *mut Endpoint, now_ns: u64) {
    for direction in 0..2 {
        // SAFETY: live map values, and the direction is zero or one.
        unsafe {
            tell_one(
                (&raw const (*entry).bytes).cast::<u64>().add(direction),
                (&raw mut (*entry).told_bytes).cast::<u64>().add(direction),
                (&raw mut (*endpoint).bytes).cast::<u64>().add(direction),
            );
            tell_one(
                (&raw const (*entry).packets).cast::<u64>().add(direction),
                (&raw mut (*entry).told_packets).cast::<u64>().add(direction),
                (&raw mut (*endpoint).packets).cast::<u64>().add(direction),
            );
        }
    }
    // SAFETY: a live map value.
    store(unsafe { &raw mut (*endpoint).last_seen_ns }, now_ns);
}

/// Only who moves what was told adds the difference.
#[inline(always)]
fn tell_one(passed: *const u64, told: *mut u64, total: *mut u64) {
    let (passed, before) = (load(passed), load(told));
    if passed != before && replace(told, before, passed) {
        add(total, passed.wrapping_sub(before));
    }
}

/// Counts a packet that passes.
#[inline(always)]
pub fn passed(entry: *mut Flow, case: &Case) {
    let direction = (case.inbound & 1) as usize;
    // SAFETY: a live map value, and the direction is zero or one.
    unsafe {
        add((&raw mut (*entry).bytes).cast::<u64>().add(direction), case.bytes);
        add((&raw mut (*entry).packets).cast::<u64>().add(direction), case.packets);
        store(&raw mut (*entry).last_seen_ns, case.now_ns);
    }
}

/// Counts a packet on its connection that counts on its endpoint as well: what opens one, and the first of a conversation.
/// The endpoint needs not be told of it.
#[inline(always)]
pub fn count_beside(entry: *mut Flow, case: &Case) {
    let direction = (case.inbound & 1) as usize;
    // SAFETY: a whole entry, as the verifier checks, and the direction is zero or one.
    unsafe {
        add((&raw mut (*entry).told_bytes).cast::<u64>().add(direction), case.bytes);
        add((&raw mut (*entry).bytes).cast::<u64>().add(direction), case.bytes);
        add((&raw mut (*entry).told_packets).cast::<u64>().add(direction), case.packets);
        add((&raw mut (*entry).packets).cast::<u64>().add(direction), case.packets);
    }
}

/// Removes a connection that has ended, of which its endpoint and the daemon are told.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_end(case: *const Case) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let key = key_of(case);
    let (Some(entry), Some(ledger)) = (FLOWS.get_ptr_mut(&key), LEDGER.get_ptr_mut(case.slot)) else {
        return 0;
    };
    let opened = is_opened(entry);
    let endpoint = EndpointKey {
        slot: case.slot,
        port: if opened { key.remote_port } else { key.local_port },
        protocol: case.headers.protocol,
        kind: if opened { EndpointKind::Opened as u8 } else { EndpointKind::Accepted as u8 },
        remote: key.remote,
    };
    if let Some(endpoint) = ENDPOINTS.get_ptr_mut(&endpoint) {
        tell(entry, endpoint, case.now_ns);
    }
    if tell_end(case, &key, entry, ledger, || FLOWS.remove(&key).is_ok()) {
        // SAFETY: a live map value.
        add(unsafe { &raw mut (*ledger).flows_ended }, 1);
    }
    0
}

/// Makes an entry for a connection, if the agent has room for it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_new_flow(case: *const Case, key: *const FlowKey) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case and key.
    let (Some(case), Some(key)) = (unsafe { (case.as_ref(), key.as_ref()) }) else { return 0 };
    let (Some(policy), Some(ledger), Some(profile), Some(fresh)) =
        (POLICY.get_ptr(case.slot), LEDGER.get_ptr_mut(case.slot), PROFILES.get(case.row), NO_FLOW.get(0))
    else {
        return 0;
    };
    // SAFETY: live map values.
    let (inserted, ended, removed, overflow) = unsafe {
        (
            &raw mut (*ledger).flows_inserted,
            &raw const (*ledger).flows_ended,
            &raw const (*policy).flows_removed,
            &raw mut (*ledger).flow_overflow,
        )
    };
    let live = load(inserted).wrapping_sub(load(ended)).wrapping_sub(load(removed));
    // A key of this function's own: kernels before 6.2 take none that lies in a caller's memory.
    // SAFETY: a whole key, as above.
    let own = unsafe { core::ptr::from_ref(key).read_volatile() };
    let has_room = live < profile.flow_cap as u64;
    match has_room.then(|| FLOWS.insert(&own, fresh, BPF_NOEXIST as u64)) {
        Some(Ok(())) => add(inserted, 1),
        Some(Err(EXISTS)) => return 0,
        _ => {
            add(overflow, 1);
            return 0;
        }
    }
    if let Some(entry) = FLOWS.get_ptr_mut(&own) {
        let opened = case.endpoint_kind == EndpointKind::Opened as u8;
        begin(entry, case, profile.reads_port(if opened { own.remote_port } else { own.local_port }));
    }
    0
}

/// -EEXIST: another CPU has made the entry.
const EXISTS: i32 = -17;

/// Sets the words of a new connection. A packet of it on another CPU may find them unset at this very moment: then it
/// is one that nobody has said anything on, which is what it is.
#[inline(always)]
fn begin(entry: *mut Flow, case: &Case, read: bool) {
    // Without its begin, it is taken up where it is.
    let midway = is_tcp(case) && !opens(case);
    let (statuses, heard) = match (midway, case.inbound != 0) {
        (true, true) => (Statuses::default().hearing(), case.headers.sequence),
        (true, false) => (Statuses::default().hearing(), case.headers.acknowledgment),
        (false, _) => (Statuses::default(), 0),
    };
    // SAFETY: a live map value.
    unsafe {
        store(&raw mut (*entry).kind, case.endpoint_kind as u64);
        store(&raw mut (*entry).first_seen_ns, case.now_ns);
        store(&raw mut (*entry).last_seen_ns, case.now_ns);
        (&raw mut (*entry).local).write(if case.inbound != 0 {
            case.headers.destination
        } else {
            case.headers.source
        });
        store(&raw mut (*entry).answered, Answered::new(0, heard).0);
        store(&raw mut (*entry).statuses, statuses.0);
        store(&raw mut (*entry).sent, Sent::new(read, midway).0);
    }
}
