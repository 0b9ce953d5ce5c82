//! Offloads, without which a super-packet of 64 KiB crosses a veth as one frame.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use nix::ioctl_readwrite_bad;

use crate::netns::Namespace;

/// An offload that `ethtool -K` can switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Offload {
    /// `rx`: trust the sender's checksums.
    ReceiveChecksum = 0x15,
    /// `tx`: leave checksums to the device (veth: to nobody). Off means that TSO is off as well.
    TransmitChecksum = 0x17,
    /// `tso`: TCP segmentation by the device.
    Tso = 0x1f,
    /// `gso`: segmentation as late as possible.
    Gso = 0x24,
    /// `gro`: merge received segments. On a veth it also brings NAPI.
    Gro = 0x2c,
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

ioctl_readwrite_bad!(ethtool, 0x8946, libc::ifreq);

/// Switches one offload of one interface.
pub fn set_offload(namespace: &Namespace, interface: &str, offload: Offload, on: bool) -> Result<()> {
    namespace
        .run(|| ask(interface, EthtoolValue { command: offload as u32, data: u32::from(on) }))
        .with_context(|| format!("switching {offload:?} of {interface} to {on}"))
}

/// Switches everything that makes super-packets (`tso`, `gso`, `gro`). When off, every frame is on the link as
/// it would be on a wire, and interface counters count those.
pub fn set_offloads(namespace: &Namespace, interface: &str, on: bool) -> Result<()> {
    for offload in [Offload::Tso, Offload::Gso, Offload::Gro] {
        set_offload(namespace, interface, offload, on)?;
    }
    Ok(())
}

fn ask(interface: &str, mut value: EthtoolValue) -> Result<()> {
    let socket =
        std::net::UdpSocket::bind("127.0.0.1:0").or_else(|_| std::net::UdpSocket::bind("[::1]:0"))?;
    // SAFETY: every field of the structure is a plain integer, array or pointer, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        bail!("the name is too long");
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request is initialised and points to a value that outlives the call.
    unsafe { ethtool(socket.as_raw_fd(), &raw mut request) }?;
    Ok(())
}
