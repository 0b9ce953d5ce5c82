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
mod flow;
mod frame;
mod identify;
mod judge;
mod maps;
mod payload;
mod probe;
mod recorder;
mod signals;
mod socket;
mod verdict;
mod words;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{cgroup_skb, classifier, lsm, xdp};
use aya_ebpf::programs::{LsmContext, SkBuffContext, TcContext, XdpContext};

use agentsec_common::agent::Direction;

/// TCX_NEXT: the packet goes on to the programs behind us. A verdict that ends the chain would switch them off.
const NEXT: i32 = -1;
/// TC_ACT_SHOT.
const SHOT: i32 = 2;

/// What the agent sends: ingress of its host-side interface.
#[classifier]
pub fn agentsec_out(ctx: TcContext) -> i32 {
    if verdict::on_interface(ctx.skb.skb, Direction::Outbound) { NEXT } else { SHOT }
}

/// What is sent to the agent: egress of its host-side interface.
#[classifier]
pub fn agentsec_in(ctx: TcContext) -> i32 {
    if verdict::on_interface(ctx.skb.skb, Direction::Inbound) { NEXT } else { SHOT }
}

/// What agents behind a shared link send: the link's ingress.
#[classifier]
pub fn agentsec_link_out(ctx: TcContext) -> i32 {
    if verdict::on_link(ctx.skb.skb, Direction::Outbound) { NEXT } else { SHOT }
}

/// What agents behind a shared link are sent: the link's egress.
#[classifier]
pub fn agentsec_link_in(ctx: TcContext) -> i32 {
    if verdict::on_link(ctx.skb.skb, Direction::Inbound) { NEXT } else { SHOT }
}

/// What agents behind a shared link send while OPEN, before the stack has made a buffer for it.
#[xdp(frags)]
pub fn agentsec_link_xdp(ctx: XdpContext) -> u32 {
    if verdict::before_stack(ctx.ctx) { XDP_PASS } else { XDP_DROP }
}

/// What the processes of cgroups send. A drop here is an EPERM there.
#[cgroup_skb]
pub fn agentsec_cgroup_out(ctx: SkBuffContext) -> i32 {
    verdict::in_cgroup(ctx.skb.skb, Direction::Outbound) as i32
}

/// What the processes of cgroups are sent.
#[cgroup_skb]
pub fn agentsec_cgroup_in(ctx: SkBuffContext) -> i32 {
    verdict::in_cgroup(ctx.skb.skb, Direction::Inbound) as i32
}

/// What sockets the processes of agents may make: none that bypass the cgroup's programs.
#[lsm(hook = "socket_create")]
pub fn agentsec_socket(ctx: LsmContext) -> i32 {
    let (family, by_kernel, earlier): (i32, i32, i32) = (ctx.arg(0), ctx.arg(3), ctx.arg(4));
    if earlier != 0 {
        return earlier;
    }
    if by_kernel != 0 || socket::is_allowed(family) { 0 } else { socket::EPERM }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a reachable loop without end, so an object that loads cannot panic.
    loop {}
}
