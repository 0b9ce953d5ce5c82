//! Packet sockets: any frame whatever, past the sender's own network stack.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, SockaddrLike, bind, socket,
};

use super::task::Task;
use crate::netns::Namespace;

/// Which way a frame takes out of the sender's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the sender's traffic control, where a program on its own interface would see it.
    TrafficControl,
    /// `PACKET_QDISC_BYPASS`: straight to the device. Only the peer's side can still hold it.
    Bypass,
}

/// A raw socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    namespace: Namespace,
    /// What the kernel wants before each frame.
    prefix: Vec<u8>,
}

impl PacketSocket {
    /// Opens one for sending.
    pub fn open(namespace: &Namespace, interface: &str, way: Way) -> Result<Self> {
        let fd = namespace.run(|| bound(interface, 0))?;
        if way == Way::Bypass {
            set_option(&fd, libc::PACKET_QDISC_BYPASS, 1).context("bypassing traffic control")?;
        }
        Ok(Self { fd, namespace: namespace.clone(), prefix: Vec::new() })
    }

    /// Opens one whose frames, if they are longer than a page, have only the Ethernet header in one piece: everything
    /// from the network header on lies in fragments of the kernel's buffer.
    pub fn scattering(namespace: &Namespace, interface: &str) -> Result<Self> {
        let fd = namespace.run(|| bound(interface, 0))?;
        set_option(&fd, libc::PACKET_VNET_HDR, 1).context("describing frames to the kernel")?;
        // struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
        let mut prefix = vec![0; 10];
        prefix[2..4].copy_from_slice(&14u16.to_ne_bytes());
        Ok(Self { fd, namespace: namespace.clone(), prefix })
    }

    /// Sends one whole frame, beginning with the receiver's Ethernet address; the shortest has 14 bytes.
    pub fn send(&self, frame: &[u8]) -> io::Result<usize> {
        let whole = [&self.prefix, frame].concat();
        Ok(nix::sys::socket::send(self.fd.as_raw_fd(), &whole, nix::sys::socket::MsgFlags::empty())?)
    }

    /// Starts sending the same frame up to `count` times, as fast as it goes; returns how many the kernel took.
    pub fn flood(self, frame: Vec<u8>, count: u64, longest: Duration) -> Result<Task<u64>> {
        let namespace = self.namespace.clone();
        Task::start(&namespace, "packet-flood", longest, move |stop| {
            let mut sent = 0;
            while sent < count && !stop.now() {
                sent += u64::from(self.send(&frame).is_ok());
            }
            sent
        })
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A packet socket bound to an interface of the calling thread's namespace; protocol 0 receives nothing.
pub(crate) fn bound(interface: &str, protocol: u16) -> Result<OwnedFd> {
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)
        .context("opening a packet socket")?;
    let index = if_nametoindex(interface).with_context(|| format!("there is no {interface}"))?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index.try_into()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let bytes = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer is to a whole sockaddr_ll of that size, which lives through the call and is copied.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(bytes)) };
    bind(fd.as_raw_fd(), &address.context("an address of a packet socket")?)
        .with_context(|| format!("binding to {interface}"))?;
    Ok(fd)
}

/// Sets an integer option of the level `SOL_PACKET`.
pub(super) fn set_option(fd: &OwnedFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let bytes = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is an integer of the given size that lives through the call.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, option, (&raw const value).cast(), bytes)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
