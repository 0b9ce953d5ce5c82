//! Whose packet it is: said by where it was seen, not by what it claims.

use aya_ebpf::bindings::__sk_buff;

use agentsec_common::agent::{Identity, Slot};
use agentsec_common::maps::IDENTITY_NEAR_CAPACITY;

use crate::maps::{IDENTITY_FAR, IDENTITY_NEAR};
use crate::words::load;

/// The agent behind the interface that the packet crosses.
#[inline(always)]
pub fn by_interface(skb: *mut __sk_buff) -> Option<Slot> {
    // SAFETY: the context pointer that the kernel passed.
    let index = unsafe { (*skb).ifindex };
    let word = if index < IDENTITY_NEAR_CAPACITY {
        IDENTITY_NEAR.get_ptr(index)?
    } else {
        IDENTITY_FAR.get_ptr(&index)?
    };
    Identity::from_word(load(word)).slot()
}
