//! AgentSec's kernel programs: entry points only.
//!
//! ```text
//! packet ─▶ identify ─▶ account ─▶ judge ─▶ verdict
//! ```
//!
//! Who may write which word is said in `agentsec-common`. Everything that decides is pure and lives there; this
//! crate holds what only the kernel has: the packet, the maps and the atomics.
#![no_std]
#![no_main]
#![expect(internal_features, reason = "atomics that return the old value exist for BPF only as intrinsics")]
#![expect(missing_docs, reason = "the classifier macro makes an entry point without them")]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key by value is copied once more, on a stack of 512 bytes"
)]
#![feature(core_intrinsics)]

mod account;
mod case;
mod emit;
mod frame;
mod identify;
mod judge;
mod maps;
mod verdict;
mod words;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use agentsec_common::agent::Direction;

/// TCX_NEXT: the packet goes on to the programs behind us. A verdict that ends the chain would switch them off.
const NEXT: i32 = -1;
/// TC_ACT_SHOT.
const SHOT: i32 = 2;

/// What the agent sends: ingress of its host-side interface.
#[classifier]
pub fn agentsec_out(ctx: TcContext) -> i32 {
    if verdict::passes(ctx.skb.skb, Direction::Outbound) { NEXT } else { SHOT }
}

/// What is sent to the agent: egress of its host-side interface.
#[classifier]
pub fn agentsec_in(ctx: TcContext) -> i32 {
    if verdict::passes(ctx.skb.skb, Direction::Inbound) { NEXT } else { SHOT }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a reachable loop without end, so an object that loads cannot panic.
    loop {}
}
