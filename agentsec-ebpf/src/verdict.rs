//! The way of a packet: identify, account, judge, verdict.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;

use agentsec_common::agent::{Direction, Slot};
use agentsec_common::counters::Counters;
use agentsec_common::gate::{Verdict, state_in_force, verdict};
use agentsec_common::ledger::Ledger;
use agentsec_common::notice::NoticeKind;
use agentsec_common::packet::Role;
use agentsec_common::policy::{Control, Mode, Policy, State};
use agentsec_common::profile::{FOLLOW_FLOWS, PRESENT};
use agentsec_common::risk::Cause;

use crate::account::{self, Seen};
use crate::case::{Case, marks};
use crate::frame::{Frames, Layer, Packets};
use crate::identify::Sender;
use crate::judge::Words;
use crate::maps::{COUNTERS, LEDGER, POLICY, PROFILES, STRAYS};
use crate::words::{load, replace};
use crate::{emit, flow, frame, identify, judge, probe, recorder, signals};

/// Whether a frame on an agent's interface passes. One that no agent owns is dropped.
#[inline(always)]
pub fn on_interface(skb: *mut __sk_buff, direction: Direction) -> bool {
    match identify::by_interface(skb) {
        Some(slot) => passes::<Frames>(skb, slot, direction),
        None => stray(false),
    }
}

/// Whether a frame on a shared link passes. What is no agent's is none of our business.
#[inline(always)]
pub fn on_link(skb: *mut __sk_buff, direction: Direction) -> bool {
    match identify::by_address(skb, direction) {
        Some(slot) => passes::<Frames>(skb, slot, direction),
        None => true,
    }
}

/// Whether a packet of a socket passes. What is no agent's is none of our business.
#[inline(always)]
pub fn in_cgroup(skb: *mut __sk_buff, direction: Direction) -> bool {
    match identify::by_cgroup(skb) {
        Some(slot) => passes::<Packets>(skb, slot, direction),
        None => true,
    }
}

#[inline(always)]
fn passes<L: Layer>(skb: *mut __sk_buff, slot: Slot, direction: Direction) -> bool {
    let (Some(policy), Some(ledger), Some(counters)) =
        (POLICY.get_ptr(slot), LEDGER.get_ptr_mut(slot), COUNTERS.get_ptr_mut(slot))
    else {
        return stray(true);
    };
    let rests = Rests::on(policy, ledger);
    let Some((control, state)) = rests.in_force() else {
        return stray(true);
    };
    if matches!(state, State::Open) && matches!(control.mode, Mode::Enforce) {
        return drop_unread::<L>(skb, slot, direction, ledger, counters);
    }
    touch(ledger, counters);
    let Some(profile) = PROFILES.get(control.row as u32) else {
        return stray(true);
    };
    if profile.flags & PRESENT == 0 {
        return stray(true);
    }
    let mut room = MaybeUninit::uninit();
    let case = opened(&mut room, slot, direction, control);
    case.profile_tag = profile.tag(control.row);
    case.marks = marks::of(control, state) | recorder::mark(policy);
    L::read(skb, case);
    let passes = match settle(skb, case, rests, control, state, Words { policy, ledger, profile }, counters) {
        Verdict::Drop => {
            account::dropped(counters, case.inbound, case.bytes, case.packets);
            false
        }
        _ => true,
    };
    recorder::keep::<L>(skb, case, passes);
    passes
}

/// Loads a word of each cache line that will be written, so that they all come at once while the packet is read;
/// with many agents they are not in the cache.
#[inline(always)]
fn touch(ledger: *const Ledger, counters: *const Counters) {
    // SAFETY: live map values.
    unsafe {
        load((&raw const (*ledger).volume).cast());
        load((&raw const (*counters).classes).cast());
    }
}

/// A case as it is before the packet is read.
#[inline(always)]
fn opened(room: &mut MaybeUninit<Case>, slot: Slot, direction: Direction, control: Control) -> &mut Case {
    let case = Case::blank(room);
    case.now_ns = now();
    case.slot = slot;
    case.epoch = control.epoch;
    case.acked_trip = control.acked_trip;
    case.row = control.row as u32;
    case.inbound = direction as u8;
    case
}

/// Accounts and judges a packet of an agent that is not dropping everything, and counts it as passed if it
/// does.
#[inline(always)]
fn settle(
    skb: *mut __sk_buff,
    case: &mut Case,
    rests: Rests,
    control: Control,
    state: State,
    words: Words<'_>,
    counters: *mut Counters,
) -> Verdict {
    account::classified(counters, case);
    let seen = match case.headers.role {
        Role::Endpoint => account::seen(case, words.profile),
        _ => Seen::NONE,
    };
    let first = verdict(state, control.mode, is_allowed_on_probation(case, &seen));
    if !matches!(first, Verdict::Pass) {
        if matches!(state, State::HalfOpen) && is_violation(case) {
            violate(case, words);
        }
        if matches!(first, Verdict::Drop) {
            return Verdict::Drop;
        }
    }
    // What is allowed passes as far as the bucket reaches; being too quick is no violation.
    let first = match (state, first) {
        (State::HalfOpen, Verdict::Pass) => verdict(state, control.mode, probe::agentsec_has_room(case) != 0),
        _ => first,
    };
    if matches!(first, Verdict::Drop) {
        return Verdict::Drop;
    }
    if account::counts_as_unusual(case, &seen) {
        account::agentsec_unusual(case, seen.entry);
    }
    let mut is_over = false;
    if flow::concerns(case, words.profile) {
        case.typical = seen.typical as u8;
        is_over = flow::agentsec_follow(skb, case, seen.flow) != 0;
    }
    let judged = !matches!(control.mode, Mode::Exempt) && !matches!(state, State::Open);
    let crossed = judge::weigh(case, words, judged);
    let again = Rests::on(words.policy, words.ledger);
    match (recheck(rests, control.epoch, crossed, again), first) {
        (Verdict::Drop, _) => return Verdict::Drop,
        (Verdict::WouldDrop, _) | (_, Verdict::WouldDrop) => {
            case.marks |= marks::WOULD_DROP;
            account::would_drop(counters, case);
        }
        _ => {}
    }
    account::passed(counters, case, &seen);
    if is_over {
        flow::agentsec_end(case);
    }
    Verdict::Pass
}

/// The agent reached for what is not typical while it is on probation.
#[inline(always)]
fn violate(case: &mut Case, words: Words<'_>) {
    if words.profile.flags & FOLLOW_FLOWS != 0 {
        signals::agentsec_anomalous(case, 1);
    }
    if judge::agentsec_violated(case) != 0 {
        judge::trip(case, words, Cause::ProbeViolation);
    }
}

/// The words that a state in force rests on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rests {
    control: u64,
    trip_seq: u64,
}

impl Rests {
    #[inline(always)]
    fn on(policy: *const Policy, ledger: *const Ledger) -> Self {
        // SAFETY: live map values.
        unsafe {
            Self {
                control: load(&raw const (*policy).control),
                trip_seq: load(&raw const (*ledger).trip_seq),
            }
        }
    }

    /// The policy's control word and the state in force; `None` when there is no policy.
    #[inline(always)]
    fn in_force(self) -> Option<(Control, State)> {
        let control = Control::from_word(self.control)?;
        Some((control, state_in_force(control, self.trip_seq)))
    }
}

/// Reads the state again after accounting: what another CPU or the daemon has decided meanwhile holds for this
/// packet too. A packet that was counted in an epoch that has ended is dropped, since no window holds it.
#[inline(always)]
fn recheck(before: Rests, epoch: u32, crossed: bool, now: Rests) -> Verdict {
    if now == before && !crossed {
        return Verdict::Pass;
    }
    let Some((control, state)) = now.in_force() else {
        return Verdict::Drop;
    };
    if crossed || matches!(state, State::Open) || control.epoch != epoch {
        return verdict(State::Open, control.mode, false);
    }
    Verdict::Pass
}

/// What an agent on probation may send and receive: traffic with typical endpoints, what its link needs, and
/// errors about its own packets.
#[inline(always)]
fn is_allowed_on_probation(case: &Case, seen: &Seen) -> bool {
    match case.headers.role {
        Role::Endpoint => seen.typical,
        Role::LinkControl => true,
        Role::IcmpAnswer => case.inbound != 0,
        Role::Opaque => false,
    }
}

/// A dropped packet is a violation if the agent itself reached out: others must not be able to fail its probe.
#[inline(always)]
fn is_violation(case: &Case) -> bool {
    case.inbound == 0 && !matches!(case.headers.role, Role::IcmpAnswer)
}

/// Drops a packet of an OPEN agent, whatever it is: parsed only when its size depends on it, or once a second
/// for the notice.
#[inline(always)]
fn drop_unread<L: Layer>(
    skb: *mut __sk_buff,
    slot: Slot,
    direction: Direction,
    ledger: *const Ledger,
    counters: *mut Counters,
) -> bool {
    // SAFETY: a live map value.
    let noticed = load(unsafe { &raw const (*ledger).drop_noticed });
    if noticed != second(now()) || frame::is_super(skb) {
        L::drop_read(skb, slot, direction);
        return false;
    }
    let (bytes, packets) = L::size(skb, 0);
    account::dropped(counters, direction as u8, bytes, packets);
    false
}

/// Reads and drops a packet of an OPEN agent, and gives notice of it once a second. A function of its own, so
/// that the way of most packets needs no room for what they are.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_drop_read(skb: *mut __sk_buff, slot: Slot, inbound: u32) -> i32 {
    drop_read(slot, inbound, |case| Frames::read(skb, case))
}

/// The same for what has no link layer.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_drop_read_packet(skb: *mut __sk_buff, slot: Slot, inbound: u32) -> i32 {
    drop_read(slot, inbound, |case| Packets::read(skb, case))
}

/// The same for a frame that no socket buffer was made for yet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn agentsec_drop_read_xdp(frame: *mut xdp_md, slot: Slot) -> i32 {
    drop_read(slot, Direction::Outbound as u32, |case| {
        frame::agentsec_parse_xdp(frame, &raw mut case.headers);
        (case.bytes, case.packets) = (frame::xdp_bytes(frame, usize::MAX), 1);
    })
}

#[inline(always)]
fn drop_read(slot: Slot, inbound: u32, read: impl Fn(&mut Case)) -> i32 {
    let (Some(policy), Some(ledger), Some(counters)) =
        (POLICY.get_ptr(slot), LEDGER.get_ptr_mut(slot), COUNTERS.get_ptr_mut(slot))
    else {
        return 1;
    };
    // SAFETY: a live map value.
    let Some(control) = Control::from_word(load(unsafe { &raw const (*policy).control })) else { return 1 };
    let direction = if inbound != 0 { Direction::Inbound } else { Direction::Outbound };
    let mut room = MaybeUninit::uninit();
    let case = opened(&mut room, slot, direction, control);
    read(case);
    // SAFETY: a live map value.
    let noticed = unsafe { &raw mut (*ledger).drop_noticed };
    let (before, second) = (load(noticed), second(case.now_ns));
    if before != second && replace(noticed, before, second) {
        emit::agentsec_emit(case, NoticeKind::Drop as u32);
    }
    account::dropped(counters, case.inbound, case.bytes, case.packets);
    0
}

/// Whether a frame passes on, that arrives on a shared link before the stack has seen it. Only what is dropped
/// counts here; the link's other program counts the rest.
#[inline(always)]
pub fn before_stack(frame: *mut xdp_md) -> bool {
    let Some(Sender { slot, end }) = identify::by_source(frame) else { return true };
    let (Some(policy), Some(ledger), Some(counters)) =
        (POLICY.get_ptr(slot), LEDGER.get_ptr_mut(slot), COUNTERS.get_ptr_mut(slot))
    else {
        return true;
    };
    match Rests::on(policy, ledger).in_force() {
        Some((Control { mode: Mode::Enforce, .. }, State::Open)) => {}
        _ => return true,
    }
    // SAFETY: a live map value.
    if load(unsafe { &raw const (*ledger).drop_noticed }) != second(now()) {
        agentsec_drop_read_xdp(frame, slot);
    } else {
        account::dropped(counters, Direction::Outbound as u8, frame::xdp_bytes(frame, end), 1);
    }
    false
}

/// The unit of the notices of drops.
#[inline(always)]
fn second(now_ns: u64) -> u64 {
    now_ns >> 30
}

/// Drops and counts a packet that no agent owns: of an interface without identity, or of a slot without policy.
#[inline(always)]
fn stray(known: bool) -> bool {
    if let Some(strays) = STRAYS.get_ptr_mut(0) {
        // SAFETY: a live map value, this CPU's own.
        unsafe {
            if known {
                (*strays).unpoliced_packets += 1;
            } else {
                (*strays).unidentified_packets += 1;
            }
        }
    }
    false
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}
