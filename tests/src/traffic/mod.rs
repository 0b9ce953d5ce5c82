//! Real traffic between lab namespaces.
//!
//! Everything runs on threads of its own inside a given namespace, ends by itself (a number of bytes, packets
//! or requests *and* a time), and hands over what it sent or received when it is asked to stop. Nothing here
//! asks the daemon: [`capture`] and the receivers say what really crossed.

pub mod alone;
pub mod capture;
pub mod frames;
pub mod http;
mod http_message;
pub mod icmp;
pub mod packet;
pub mod sweep;
pub mod task;
pub mod tcp;
pub mod udp;
pub mod xsk;

/// How often a blocked thread looks whether it shall stop.
pub(crate) const TICK: std::time::Duration = std::time::Duration::from_millis(20);

/// Whether a socket call only ran into its timeout.
pub(crate) fn timed_out(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
