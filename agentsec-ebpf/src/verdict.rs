//! The way of a packet: identify, account, judge, verdict.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;

use agentsec_common::agent::Direction;
use agentsec_common::counters::Counters;
use agentsec_common::gate::{Verdict, state_in_force, verdict};
use agentsec_common::ledger::Ledger;
use agentsec_common::notice::NoticeKind;
use agentsec_common::packet::{Headers, Role};
use agentsec_common::policy::{Control, Mode, Policy, State};
use agentsec_common::profile::PRESENT;

use crate::account::{self, Seen};
use crate::case::Case;
use crate::maps::{COUNTERS, LEDGER, POLICY, PROFILES, STRAYS};
use crate::words::{load, replace};
use crate::{emit, frame, identify, judge};

/// Whether a packet passes.
#[inline(always)]
pub fn passes(skb: *mut __sk_buff, direction: Direction) -> bool {
    let Some(slot) = identify::by_interface(skb) else {
        return stray(false);
    };
    let (Some(policy), Some(ledger), Some(counters)) =
        (POLICY.get_ptr(slot), LEDGER.get_ptr_mut(slot), COUNTERS.get_ptr_mut(slot))
    else {
        return stray(true);
    };
    let Some((control, state)) = in_force(policy, ledger) else {
        return stray(true);
    };
    let mut case = Case {
        now_ns: now(),
        bytes: 0,
        packets: 0,
        slot,
        epoch: control.epoch,
        acked_trip: control.acked_trip,
        row: control.row as u32,
        profile_tag: 0,
        inbound: direction as u8,
        endpoint_kind: 0,
        reserved: 0,
        headers: Headers::NONE,
    };
    if matches!(state, State::Open) && matches!(control.mode, Mode::Enforce) {
        return drop_unread(skb, &mut case, ledger, counters);
    }
    let Some(profile) = PROFILES.get(control.row as u32) else {
        return stray(true);
    };
    if profile.flags & PRESENT == 0 {
        return stray(true);
    }
    case.profile_tag = profile.tag(control.row);
    frame::read(skb, &mut case);
    match settle(&mut case, state, control, policy, ledger, counters) {
        Verdict::Drop => {
            account::dropped(counters, &case);
            false
        }
        _ => true,
    }
}

/// Accounts and judges a packet of an agent that is not dropping everything, and counts it as passed if it
/// does.
#[inline(always)]
fn settle(
    case: &mut Case,
    state: State,
    control: Control,
    policy: *const Policy,
    ledger: *const Ledger,
    counters: *mut Counters,
) -> Verdict {
    account::classified(counters, case);
    let seen = match case.headers.role {
        Role::Endpoint => account::endpoint(case),
        _ => Seen::NONE,
    };
    let first = verdict(state, control.mode, is_allowed_on_probation(case, &seen));
    if !matches!(first, Verdict::Pass) {
        if matches!(state, State::HalfOpen) && is_violation(case) {
            judge::agentsec_violated(case);
        }
        if matches!(first, Verdict::Drop) {
            return Verdict::Drop;
        }
    }
    if account::counts_as_unusual(case, &seen) {
        account::agentsec_unusual(case, seen.entry);
    }
    let judged = !matches!(control.mode, Mode::Exempt) && !matches!(state, State::Open);
    let crossed = judge::agentsec_weigh(case, judged as u32) != 0;
    match (recheck(control, crossed, policy, ledger), first) {
        (Verdict::Drop, _) => return Verdict::Drop,
        (Verdict::WouldDrop, _) | (_, Verdict::WouldDrop) => account::would_drop(counters, case),
        _ => {}
    }
    account::passed(counters, case, seen.entry);
    Verdict::Pass
}

/// The policy's control word and the state in force.
#[inline(always)]
fn in_force(policy: *const Policy, ledger: *const Ledger) -> Option<(Control, State)> {
    // SAFETY: live map values.
    let (control, trip_seq) =
        unsafe { (load(&raw const (*policy).control), load(&raw const (*ledger).trip_seq)) };
    let control = Control::from_word(control)?;
    Some((control, state_in_force(control, trip_seq)))
}

/// Reads the state again after accounting: what another CPU or the daemon has decided meanwhile holds for this
/// packet too. A packet that was counted in an epoch that has ended is dropped, since no window holds it.
#[inline(always)]
fn recheck(before: Control, crossed: bool, policy: *const Policy, ledger: *const Ledger) -> Verdict {
    let Some((control, state)) = in_force(policy, ledger) else {
        return Verdict::Drop;
    };
    if crossed || matches!(state, State::Open) || control.epoch != before.epoch {
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
fn drop_unread(skb: *mut __sk_buff, case: &mut Case, ledger: *mut Ledger, counters: *mut Counters) -> bool {
    // SAFETY: a live map value.
    let noticed = unsafe { &raw mut (*ledger).drop_noticed };
    let second = case.now_ns >> 30;
    let before = load(noticed);
    if before == second && !frame::is_super(skb) {
        frame::size(skb, case);
    } else {
        frame::read(skb, case);
        if before != second && replace(noticed, before, second) {
            emit::agentsec_emit(case, NoticeKind::Drop as u32);
        }
    }
    account::dropped(counters, case);
    false
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
