//! AF_XDP sockets: frames out of memory shared with the kernel, past the sender's stack and its traffic control.
//!
//! In copy mode, which any interface has, and for sending only.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;

use crate::netns::Namespace;

/// Frames that a socket can send in its life: what is sent is never reclaimed, which spares a ring.
pub const FRAMES: u32 = 256;
/// Bytes of the longest.
const FRAME_BYTES: usize = 2048;

/// A socket on the first queue of one interface.
#[derive(Debug)]
pub struct XskSocket {
    fd: OwnedFd,
    frames: Mapping,
    ring: Mapping,
    producer: usize,
    descriptors: usize,
    sent: u32,
}

impl XskSocket {
    /// Opens one for sending.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let (fd, index) = namespace.run(|| -> Result<_> {
            let index = if_nametoindex(interface).with_context(|| format!("there is no {interface}"))?;
            Ok((socket().context("opening an AF_XDP socket (the kernel needs XDP_SOCKETS)")?, index))
        })?;
        let frames = Mapping::new(FRAMES as usize * FRAME_BYTES, None)?;
        let memory = libc::xdp_umem_reg {
            addr: frames.at.expose_provenance() as u64,
            len: frames.bytes as u64,
            chunk_size: FRAME_BYTES as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&fd, libc::XDP_UMEM_REG, &memory).context("sharing memory with the kernel")?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_TX_RING] {
            set(&fd, ring, &FRAMES).context("making a ring")?;
        }
        let offsets = offsets(&fd).context("asking for the layout of the rings")?.tx;
        let bytes = offsets.desc as usize + FRAMES as usize * size_of::<libc::xdp_desc>();
        let ring = Mapping::new(bytes, Some((&fd, libc::XDP_PGOFF_TX_RING)))?;
        bind(&fd, index).with_context(|| format!("binding to {interface}"))?;
        let (producer, descriptors) = (offsets.producer as usize, offsets.desc as usize);
        Ok(Self { fd, frames, ring, producer, descriptors, sent: 0 })
    }

    /// Sends one whole frame, beginning with the receiver's Ethernet address.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        ensure!(self.sent < FRAMES, "this socket has sent its {FRAMES} frames");
        ensure!(frame.len() <= FRAME_BYTES, "{} bytes are more than {FRAME_BYTES}", frame.len());
        let slot = self.sent as usize;
        let at = slot * FRAME_BYTES;
        let descriptor = libc::xdp_desc { addr: at as u64, len: frame.len() as u32, options: 0 };
        // SAFETY: the slot is below FRAMES, for which both mappings have room; they live as long as `self`, and the
        // kernel reads a slot only once the producer has passed it.
        unsafe {
            self.frames.at.add(at).copy_from_nonoverlapping(frame.as_ptr(), frame.len());
            let descriptors = self.ring.at.add(self.descriptors).cast::<libc::xdp_desc>();
            descriptors.add(slot).write_unaligned(descriptor);
            let producer = AtomicU32::from_ptr(self.ring.at.add(self.producer).cast());
            producer.store(self.sent + 1, Ordering::Release);
        }
        self.sent += 1;
        // SAFETY: no memory is handed over; the call tells the kernel to look at the ring.
        let woken = unsafe {
            libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        check(woken as i32).context("sending from an AF_XDP socket")?;
        Ok(())
    }
}

/// Memory of our own, or a ring of a socket's.
#[derive(Debug)]
struct Mapping {
    at: *mut u8,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize, of: Option<(&OwnedFd, libc::off_t)>) -> Result<Self> {
        let (flags, fd, offset) = match of {
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
            Some((fd, offset)) => (libc::MAP_SHARED, fd.as_raw_fd(), offset),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses, touches nothing that is there.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, access, flags | libc::MAP_POPULATE, fd, offset)
        };
        ensure!(at != libc::MAP_FAILED, "mapping {bytes} bytes: {}", io::Error::last_os_error());
        Ok(Self { at: at.cast(), bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new` with this length, and nobody holds a pointer into it any more.
        unsafe { libc::munmap(self.at.cast(), self.bytes) };
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: a plain system call.
    let fd = check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the kernel has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let bytes = size_of::<T>() as libc::socklen_t;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the value is a structure of the kernel's of the given size that lives through the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, value, bytes) })?;
    Ok(())
}

fn offsets(fd: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    let mut offsets = std::mem::MaybeUninit::<libc::xdp_mmap_offsets>::zeroed();
    let mut bytes = size_of::<libc::xdp_mmap_offsets>() as libc::socklen_t;
    let to = offsets.as_mut_ptr().cast();
    // SAFETY: there is room for as many bytes as we say.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, to, &raw mut bytes)
    })?;
    // SAFETY: integers only, and zeros are some.
    Ok(unsafe { offsets.assume_init() })
}

fn bind(fd: &OwnedFd, ifindex: u32) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: 0,
        sxdp_shared_umem_fd: 0,
    };
    let bytes = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address has the given size and lives through the call, which copies it.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), bytes) })?;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
