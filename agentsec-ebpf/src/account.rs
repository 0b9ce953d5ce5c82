//! Counting: whom the agent talks to, how much, and what of it is unusual.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::lpm_trie::Key;

use agentsec_common::agent::Direction;
use agentsec_common::counters::{Counters, Traffic};
use agentsec_common::endpoint::{Address, Endpoint, EndpointKey, EndpointKind, Typical};
use agentsec_common::flow::Flow;
use agentsec_common::notice::NoticeKind;
use agentsec_common::packet::tcp;
use agentsec_common::profile::Profile;
use agentsec_common::typical::{ROW_BITS, TypicalKey};
use agentsec_common::window::Stamp;

use crate::case::Case;
use crate::maps::{ENDPOINTS, LEDGER, POLICY, PROFILES, TYPICAL};
use crate::words::{self, add, load, replace, store};
use crate::{emit, flow};

/// The endpoint of a packet.
pub struct Seen {
    /// Its entry; null when there is none, or when it need not be looked at.
    pub entry: *mut Endpoint,
    /// The packet's connection, on which it counts; null when there is none.
    pub flow: *mut Flow,
    /// Whether the profile expects it.
    pub typical: bool,
}

impl Seen {
    /// Of a packet that has no endpoint.
    pub const NONE: Self = Self { entry: core::ptr::null_mut(), flow: core::ptr::null_mut(), typical: true };
}

/// Finds the packet's connection and endpoint, or makes the endpoint's entry. As long as a connection is settled, it speaks
/// for its endpoint, which is then not looked at.
#[inline(always)]
pub fn seen(case: &mut Case, profile: &Profile) -> Seen {
    let flow = flow::find(case, profile);
    if !flow.is_null() && flow::is_settled(flow, case) {
        case.endpoint_kind = flow::kind(flow);
        return Seen { entry: core::ptr::null_mut(), flow, typical: true };
    }
    let seen = endpoint(case);
    if !flow.is_null() {
        flow::settle(flow, case, &seen);
    }
    Seen { flow, ..seen }
}

/// Finds the packet's endpoint, or makes its entry.
#[inline(always)]
fn endpoint(case: &mut Case) -> Seen {
    let direction = case.direction();
    let remote = case.headers.remote(direction);
    let opener = case.headers.opener(direction);
    let mut key = EndpointKey {
        slot: case.slot,
        port: remote.port,
        protocol: case.headers.protocol,
        kind: EndpointKind::Opened as u8,
        remote: remote.address,
    };
    if !matches!(opener, Some(EndpointKind::Accepted))
        && let Some(entry) = ENDPOINTS.get_ptr_mut(&key)
    {
        return known(case, &key, entry);
    }
    key.kind = EndpointKind::Accepted as u8;
    key.port = remote.local_port;
    if !matches!(opener, Some(EndpointKind::Opened))
        && let Some(entry) = ENDPOINTS.get_ptr_mut(&key)
    {
        return known(case, &key, entry);
    }
    // A SYN tells who opens; without one, who speaks first does.
    let opened = match opener {
        Some(kind) => matches!(kind, EndpointKind::Opened),
        None => matches!(direction, Direction::Outbound),
    };
    if opened {
        key.kind = EndpointKind::Opened as u8;
        key.port = remote.port;
    }
    case.endpoint_kind = key.kind;
    let typical = agentsec_new_endpoint(case, &key) != 0;
    // Looked up again, because another CPU may have made it meanwhile; null when there was no room.
    Seen { entry: ENDPOINTS.get_ptr_mut(&key).unwrap_or(core::ptr::null_mut()), typical, ..Seen::NONE }
}

#[inline(always)]
fn known(case: &mut Case, key: &EndpointKey, entry: *mut Endpoint) -> Seen {
    case.endpoint_kind = key.kind;
    // SAFETY: a live map value.
    let cache = unsafe { &raw mut (*entry).typical };
    let typical = match Typical::cached(load(cache), case.profile_tag) {
        Some(typical) => typical,
        None => {
            let typical = agentsec_is_typical(key, case.row) != 0;
            store(cache, Typical::to_word(case.profile_tag, typical));
            typical
        }
    };
    Seen { entry, typical, ..Seen::NONE }
}

/// Makes an entry for an endpoint that has none, if the agent has room for it. One, when it is typical.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_new_endpoint(case: *const Case, key: *const EndpointKey) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case and key.
    let (Some(case), Some(key)) = (unsafe { (case.as_ref(), key.as_ref()) }) else { return 0 };
    let (Some(policy), Some(ledger), Some(profile)) =
        (POLICY.get_ptr(case.slot), LEDGER.get_ptr_mut(case.slot), PROFILES.get(case.row))
    else {
        return 0;
    };
    let typical = agentsec_is_typical(key, case.row) != 0;
    let fresh = Endpoint {
        typical: Typical::to_word(case.profile_tag, typical),
        first_seen_ns: case.now_ns,
        last_seen_ns: case.now_ns,
        ..Endpoint::default()
    };
    let kind = (key.kind & 1) as usize;
    // SAFETY: live map values, and `kind` is zero or one.
    let (inserted, removed, overflow) = unsafe {
        (
            (&raw mut (*ledger).endpoints_inserted).cast::<u64>().add(kind),
            (&raw const (*policy).endpoints_removed).cast::<u64>().add(kind),
            &raw mut (*ledger).endpoint_overflow,
        )
    };
    let has_room = load(inserted).wrapping_sub(load(removed)) < profile.endpoint_cap as u64;
    // A key of this function's own: kernels before 6.2 take none that lies in a caller's memory.
    // SAFETY: a whole key, as above.
    let own = unsafe { core::ptr::from_ref(key).read_volatile() };
    match has_room.then(|| ENDPOINTS.insert(&own, fresh, BPF_NOEXIST as u64)) {
        Some(Ok(())) => add(inserted, 1),
        Some(Err(EXISTS)) => {}
        _ => add(overflow, 1),
    }
    typical as i32
}

/// -EEXIST: another CPU has made the entry.
const EXISTS: i32 = -17;

/// Asks the trie; the answer is cached in the endpoint's entry.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_is_typical(key: *const EndpointKey, row: u32) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole key.
    let Some(key) = (unsafe { key.as_ref() }) else { return 0 };
    let data = TypicalKey { row: row.to_be(), remote: key.remote };
    let prefix = Key::new(ROW_BITS + 8 * size_of::<Address>() as u32, data);
    TYPICAL.get(&prefix).is_some_and(|rules| rules.admit(key.protocol, key.kind, key.port)) as i32
}

/// Whether the packet makes its endpoint count as unusual.
///
/// What an agent accepts counts once it has answered with data, so that nobody can trip it by knocking; and so
/// does a reset, which its kernel sends by itself to whoever speaks of a connection that is over.
#[inline(always)]
pub fn counts_as_unusual(case: &Case, seen: &Seen) -> bool {
    let accepted = case.endpoint_kind == EndpointKind::Accepted as u8;
    let answers = accepted || case.headers.tcp_flags & tcp::RST != 0;
    !seen.typical && case.inbound == 0 && (!answers || case.headers.has_payload)
}

/// Counts the packet's endpoint as unusual, once while it stays in the window: when it is used again in a later
/// bucket, its count moves there.
///
/// An endpoint without an entry counts with every packet: there is nothing to remember it by, and whoever has
/// filled the list cannot hide behind that.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_unusual(case: *const Case, entry: *mut Endpoint) -> i32 {
    // SAFETY: the verifier checks that callers pass a whole case.
    let Some(case) = (unsafe { case.as_ref() }) else { return 0 };
    let (Some(ledger), Some(profile)) = (LEDGER.get_ptr_mut(case.slot), PROFILES.get(case.row)) else {
        return 0;
    };
    let now = profile.bucket_clock().moment(case.now_ns, case.epoch);
    // SAFETY: a live map value.
    let window = unsafe { &raw mut (*ledger).unusual };
    // SAFETY: a live map value.
    let latest = unsafe { &raw mut (*ledger).unusual_latest };
    if entry.is_null() {
        words::stamp(latest, now, case.slot);
        // A stale epoch is noticed when the state is read again.
        let _ = words::count(window, now, 1, case.slot);
        return 0;
    }
    // SAFETY: a whole entry, as the verifier checks.
    let counted = unsafe { &raw mut (*entry).counted };
    let stamp = load(counted);
    let fresh = Stamp::at(now).to_word();
    if stamp == fresh {
        return 0;
    }
    // The ledger is stamped before the count and the entry after it: who finds the entry's stamp also finds that
    // the window is to be read, and the count in it.
    words::stamp(latest, now, case.slot);
    if words::count(window, now, 1, case.slot).is_err() {
        return 0;
    }
    if !replace(counted, stamp, fresh) {
        // Another CPU counts it at this very moment; one of the two counts is enough.
        words::take_one(window, now);
        return 0;
    }
    if stamp == 0 {
        emit::budgeted(case, NoticeKind::NewEndpoint);
    }
    if let Some(then) = Stamp::counted(stamp, now) {
        words::take_one(window, then);
    }
    0
}

/// Counts a packet that passes: on its connection if it has one, else on its endpoint.
#[inline(always)]
pub fn passed(counters: *mut Counters, case: &Case, seen: &Seen) {
    let entry = seen.entry;
    let direction = (case.inbound & 1) as usize;
    // SAFETY: live map values; the counters are this CPU's own, and `direction` is zero or one.
    unsafe {
        let traffic = (&raw mut (*counters).traffic).cast::<Traffic>().add(direction);
        (*traffic).bytes += case.bytes;
        (*traffic).packets += case.packets;
        if !seen.flow.is_null() {
            flow::passed(seen.flow, case);
        } else if !entry.is_null() {
            add((&raw mut (*entry).bytes).cast::<u64>().add(direction), case.bytes);
            add((&raw mut (*entry).packets).cast::<u64>().add(direction), case.packets);
            store(&raw mut (*entry).last_seen_ns, case.now_ns);
        }
    }
}

/// Counts a packet, or the packets it becomes, as dropped.
#[inline(always)]
pub fn dropped(counters: *mut Counters, inbound: u8, bytes: u64, packets: u64) {
    // SAFETY: a live map value, this CPU's own.
    unsafe {
        let traffic = (&raw mut (*counters).traffic).cast::<Traffic>().add((inbound & 1) as usize);
        (*traffic).dropped_bytes += bytes;
        (*traffic).dropped_packets += packets;
    }
}

/// Counts what a frame is.
#[inline(always)]
pub fn classified(counters: *mut Counters, case: &Case) {
    // SAFETY: a live map value, this CPU's own. The class is read as a number, because the verifier wants to see
    // the mask that the compiler would optimize away; six and seven fall on the line's last two words, and no
    // class has them.
    unsafe {
        let class = (&raw const case.headers.class).cast::<u8>().read_volatile() & 7;
        let word = (&raw mut (*counters).classes).cast::<u64>().add(class as usize);
        *word += 1;
    }
}

/// Counts what shadow mode lets pass.
#[inline(always)]
pub fn would_drop(counters: *mut Counters, case: &Case) {
    // SAFETY: a live map value, this CPU's own.
    unsafe {
        (*counters).would_drop_packets += case.packets;
        (*counters).would_drop_bytes += case.bytes;
    }
}
