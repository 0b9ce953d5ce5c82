//! What the kernel's programs know a network namespace by.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result, ensure};

use crate::kernel::netlink::Route;

/// The cookie of the calling thread's network namespace (`bpf_get_netns_cookie`).
///
/// # Errors
///
/// When the kernel is older than 5.14.
pub fn cookie_of_this_namespace() -> Result<u64> {
    of(Route::open()?.as_fd())
}

/// The cookie of the namespace that a socket belongs to.
pub(super) fn of(socket: BorrowedFd<'_>) -> Result<u64> {
    let mut cookie = 0_u64;
    let mut bytes = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` into the number, which has that size and lives through the call.
    let result = unsafe {
        let value = (&raw mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, &raw mut bytes)
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("asking for a network namespace's cookie");
    }
    ensure!(bytes as usize == size_of_val(&cookie), "a network namespace's cookie has {bytes} bytes, not 8");
    Ok(cookie)
}
