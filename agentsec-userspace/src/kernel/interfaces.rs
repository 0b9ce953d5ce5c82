//! The interfaces of the daemon's network namespace, and a bell that rings when they change.

mod link;

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context, Result};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

pub(super) use link::links_of;
pub use link::{Link, links};

/// RTMGRP_LINK: creation, deletion, renaming and moves of interfaces; RTMGRP_TC: changes of their qdiscs and filters, one
/// of which may be that ours is taken off.
const GROUPS: u32 = 1 | 1 << 3;

/// The interfaces by index, with their names.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn list() -> Result<BTreeMap<u32, String>> {
    Ok(links()?.into_iter().map(|link| (link.ifindex, link.name)).collect())
}

/// Rings when interfaces have changed. What has changed is found by listing them again, so a lost message
/// means nothing.
pub struct Bell {
    socket: TokioSocket,
    buffer: bytes::BytesMut,
}

impl Bell {
    /// Listens. Interfaces that appear from now on ring.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the socket.
    pub fn new() -> Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
        socket
            .socket_mut()
            .bind(&SocketAddr::new(0, GROUPS))
            .context("subscribing to changes of interfaces")?;
        Ok(Self { socket, buffer: bytes::BytesMut::with_capacity(64 * 1024) })
    }

    /// Waits for a change, and takes all that have been told.
    ///
    /// # Errors
    ///
    /// When the socket fails for good.
    pub async fn ring(&mut self) -> Result<()> {
        self.buffer.clear();
        match self.socket.recv_from(&mut self.buffer).await {
            Ok(_) => {}
            // More changes than the socket holds are changes too.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error).context("listening for changes of interfaces"),
        }
        self.drain();
        Ok(())
    }

    fn drain(&mut self) {
        let socket = self.socket.socket_mut();
        loop {
            self.buffer.clear();
            match socket.recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}
