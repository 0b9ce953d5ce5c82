//! Counting, and on request keeping, the frames that really are on an interface.
//!
//! Where a capture sits decides what it proves. The kernel shows an arriving frame to packet sockets *before* TCX
//! ingress and a departing one *after* TCX egress. So on the host's end of an agent's link a capture sees what the
//! agent sent before AgentSec judges it, and what AgentSec let through to the agent. What AgentSec let out is
//! seen one interface further: at the world, or on the host's end of its link.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{ReceiveTimeout, ReceiveTimestampns};
use nix::sys::time::TimeVal;

use super::packet::{bound, set_option};
use super::task::{Stop, Task};
use super::udp::enlarge_buffer;
use super::{TICK, timed_out};
use crate::netns::Namespace;
use crate::wait;

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames; a GSO super-packet is one.
    pub frames: u64,
    /// Bytes from the Ethernet header to the end, VLAN tags included.
    pub bytes: u64,
}

/// One kept frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When the kernel saw it.
    pub at: SystemTime,
    /// It left through this interface; else it arrived.
    pub departing: bool,
    /// Its whole length, with any VLAN tag.
    pub length: usize,
    /// The tag that the kernel took out of the frame, if any: it is not among `bytes`.
    pub vlan_tci: Option<u16>,
    /// Its first bytes, as many as were asked for.
    pub bytes: Vec<u8>,
}

/// What a capture saw.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    /// Frames that came in through the interface.
    pub arriving: Tally,
    /// Frames that went out through it.
    pub departing: Tally,
    /// Frames that the kernel could not hand over because this program was too slow. Unless 0, nothing above is exact.
    pub lost: u64,
    /// The frames themselves, if they were asked for.
    pub frames: Vec<Frame>,
}

impl Captured {
    fn add(&mut self, frame: Frame, most: usize) {
        let tally = if frame.departing { &mut self.departing } else { &mut self.arriving };
        tally.frames += 1;
        tally.bytes += frame.length as u64;
        if self.frames.len() < most {
            self.frames.push(frame);
        }
    }

    /// The kept frames as a pcap file, for programs of others to read.
    #[must_use]
    pub fn to_pcap(&self) -> Vec<u8> {
        // Version 2.4 with nanoseconds, nothing cut, Ethernet.
        let mut file: Vec<u8> = [0xa1b2_3c4d, 0x0004_0002, 0, 0, 1 << 18, 1].map(u32::to_ne_bytes).concat();
        for frame in &self.frames {
            let at = frame.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let lengths = [frame.bytes.len() as u32, frame.length as u32];
            let header = [at.as_secs() as u32, at.subsec_nanos(), lengths[0], lengths[1]];
            file.extend(header.map(u32::to_ne_bytes).concat());
            file.extend(&frame.bytes);
        }
        file
    }
}

/// How much of each frame to keep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Frames, at most; later ones are only counted.
    pub frames: usize,
    /// Bytes of each.
    pub bytes: usize,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    arriving: Arc<AtomicU64>,
    task: Task<io::Result<Captured>>,
}

impl Capture {
    /// Starts counting; whatever is on the interface after this returns is counted.
    pub fn start(namespace: &Namespace, interface: &str, longest: Duration, keep: Keep) -> Result<Self> {
        let socket = namespace.run(|| open(interface))?;
        let name = format!("capture-{interface}");
        let arriving = Arc::<AtomicU64>::default();
        let count = Arc::clone(&arriving);
        let task = Task::start(namespace, &name, longest, move |stop| receive(&socket, stop, keep, &count))?;
        Ok(Self { arriving, task })
    }

    /// Waits until this many frames have arrived since it was started: a frame that was sent is not there at once.
    pub fn wait_for_arriving(&self, frames: u64, timeout: Duration) -> Result<()> {
        wait::until(&format!("{frames} arriving frames"), timeout, || {
            (self.arriving.load(Ordering::Relaxed) >= frames).then_some(())
        })
    }

    /// Ends it, after all that was on the interface already.
    pub fn stop(self) -> Result<Captured> {
        self.task.stop().context("capturing")
    }
}

fn open(interface: &str) -> Result<OwnedFd> {
    let socket = bound(interface, libc::ETH_P_ALL as u16)?;
    enlarge_buffer(&socket)?;
    setsockopt(&socket, ReceiveTimestampns, &true).context("asking for timestamps")?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(0, TICK.as_micros() as i64))
        .context("setting a timeout")?;
    // A tag that the kernel moved out of the frame is told beside it.
    set_option(&socket, libc::PACKET_AUXDATA, 1).context("asking for VLAN tags")?;
    Ok(socket)
}

fn receive(socket: &OwnedFd, stop: &Stop, keep: Keep, arriving: &AtomicU64) -> io::Result<Captured> {
    let mut captured = Captured::default();
    let mut buffer = vec![0; keep.bytes.max(1)];
    let (mut seen, mut all) = (0, None);
    while all.is_none_or(|all| seen < all) {
        match receive_one(socket, &mut buffer) {
            Ok(frame) => {
                seen += 1;
                captured.add(frame, keep.frames);
                arriving.store(captured.arriving.frames, Ordering::Relaxed);
            }
            Err(error) if timed_out(&error) && all.is_some() => break,
            Err(error) if timed_out(&error) => {}
            Err(error) => return Err(error),
        }
        if all.is_none() && stop.now() {
            // What a sender has handed over may still be on its way through another CPU's backlog.
            std::thread::sleep(TICK);
            let (queued, lost) = statistics(socket)?;
            (captured.lost, all) = (lost, Some(queued));
        }
    }
    Ok(captured)
}

/// Control messages of one frame: a timestamp and a `tpacket_auxdata`, aligned as the kernel wants them.
#[repr(C, align(8))]
struct Control([u8; 256]);

fn receive_one(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Frame> {
    let mut control = Control([0; 256]);
    let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: every field of the structure is a plain integer or pointer, for which zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = address.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: all pointers are to buffers of the given lengths that outlive the call.
    let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_TRUNC) };
    let length = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: zero is valid for every field, and the kernel has written over it.
    let address = unsafe { address.assume_init() };
    // SAFETY: the kernel has filled in `message`, and the buffers it points to are still there.
    let (at, vlan_tci) = unsafe { read_control(&message) };
    Ok(Frame {
        at,
        departing: address.sll_pkttype == libc::PACKET_OUTGOING,
        length: length + if vlan_tci.is_some() { 4 } else { 0 },
        vlan_tci,
        bytes: buffer[..length.min(buffer.len())].to_vec(),
    })
}

/// The kernel's timestamp and the VLAN tag that it took out of the frame.
///
/// # Safety
/// `message` has been filled in by `recvmsg`, and its control buffer is alive.
unsafe fn read_control(message: &libc::msghdr) -> (SystemTime, Option<u16>) {
    let (mut at, mut vlan_tci) = (SystemTime::UNIX_EPOCH, None);
    // SAFETY: the caller vouches for `message`; the macros stay within its control buffer, and each kind of
    // message carries the structure that is read from it, wherever it is aligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(current) = header.as_ref() {
            match (current.cmsg_level, current.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time: libc::timespec =
                        libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                    at += Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    let told = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                    let valid = told.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
                    vlan_tci = valid.then_some(told.tp_vlan_tci);
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    (at, vlan_tci)
}

/// How many frames the kernel has put into the socket, and how many it could not put there.
fn statistics(socket: &OwnedFd) -> io::Result<(u64, u64)> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut bytes = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the structure has the given size and lives through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel adds the drops to the packets before it tells.
    let queued = statistics.tp_packets - statistics.tp_drops;
    Ok((u64::from(queued), u64::from(statistics.tp_drops)))
}
