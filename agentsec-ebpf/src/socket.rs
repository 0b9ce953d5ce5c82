//! Sockets that an agent known by its cgroup must not have, because a cgroup's programs never see their packets.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_ktime_get_ns;

use agentsec_common::notice::NoticeKind;
use agentsec_common::policy::{Control, Mode};

use crate::case::Case;
use crate::maps::{LEDGER, POLICY};
use crate::words::{add, load};
use crate::{emit, identify};

/// -EPERM.
pub const EPERM: i32 = -1;

/// AF_PACKET: frames past the IP stack.
const PACKET: i32 = 17;
/// AF_XDP: frames past everything.
const XDP: i32 = 44;

/// Whether the current process may make a socket of an address family.
#[inline(always)]
pub fn is_allowed(family: i32) -> bool {
    if family != PACKET && family != XDP {
        return true;
    }
    let Some(slot) = identify::by_process() else { return true };
    let (Some(policy), Some(ledger)) = (POLICY.get_ptr(slot), LEDGER.get_ptr_mut(slot)) else { return false };
    // SAFETY: a live map value.
    let Some(control) = Control::from_word(load(unsafe { &raw const (*policy).control })) else {
        return false;
    };
    if matches!(control.mode, Mode::Exempt) {
        return true;
    }
    // SAFETY: a live map value.
    add(unsafe { &raw mut (*ledger).sockets_denied }, 1);
    let mut room = MaybeUninit::uninit();
    let case = Case::blank(&mut room);
    // SAFETY: a helper without arguments; the coarse clock is not for programs of security modules.
    case.now_ns = unsafe { bpf_ktime_get_ns() };
    (case.slot, case.epoch) = (slot, control.epoch);
    case.headers.protocol = family as u8;
    emit::budgeted(case, NoticeKind::SocketDenied);
    matches!(control.mode, Mode::Shadow)
}
