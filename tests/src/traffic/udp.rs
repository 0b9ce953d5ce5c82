//! UDP: floods, and numbered datagrams of which the receiver knows which arrived.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use super::task::{Stop, Task};
use super::{TICK, timed_out};
use crate::netns::Namespace;

/// A socket inside `namespace`, connected to `to`.
pub fn connected(namespace: &Namespace, to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    namespace.run(|| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(to)?;
        Ok(socket)
    })
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct UdpPlan {
    /// Datagrams, at most.
    pub datagrams: u64,
    /// Payload bytes in each; numbered datagrams have at least 8.
    pub payload_bytes: usize,
    /// How long after one datagram the next one follows; zero is as fast as possible.
    pub interval: Duration,
    /// How long all of it may take.
    pub longest: Duration,
}

/// What a sender handed to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpSent {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Sends that failed, mostly because the receiver's host said "port unreachable" before.
    pub errors: u64,
}

/// Sends equal datagrams by `sendmmsg`, 64 at a time; the interval applies to such a batch.
pub fn flood(namespace: &Namespace, to: SocketAddr, plan: UdpPlan) -> Result<Task<UdpSent>> {
    let socket = connected(namespace, to).with_context(|| format!("connecting to {to}"))?;
    Task::start(namespace, "udp-flood", plan.longest, move |stop| send_batches(&socket, plan, stop))
}

fn send_batches(socket: &UdpSocket, plan: UdpPlan, stop: &Stop) -> UdpSent {
    const BATCH: u64 = 64;
    let payload = vec![0x5a; plan.payload_bytes];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH as usize, None);
    let mut sent = UdpSent::default();
    while sent.datagrams < plan.datagrams && !stop.now() {
        let batch = (plan.datagrams - sent.datagrams).min(BATCH) as usize;
        let slices: Vec<_> = (0..batch).map(|_| [IoSlice::new(&payload)]).collect();
        let addresses = vec![None::<SockaddrStorage>; batch];
        let result = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &addresses, [], MsgFlags::empty());
        match result.map(Iterator::count) {
            Ok(count) => sent.datagrams += count as u64,
            Err(_) => sent.errors += 1,
        }
        stop.sleep(plan.interval);
    }
    sent.payload_bytes = sent.datagrams * plan.payload_bytes as u64;
    sent
}

/// Sends datagrams that begin with their number (big endian, from 0). A number whose sending failed is used up.
pub fn numbered(namespace: &Namespace, to: SocketAddr, plan: UdpPlan) -> Result<Task<UdpSent>> {
    let socket = connected(namespace, to).with_context(|| format!("connecting to {to}"))?;
    Task::start(namespace, "udp-numbered", plan.longest, move |stop| {
        let mut payload = vec![0; plan.payload_bytes.max(8)];
        let mut sent = UdpSent::default();
        for number in 0..plan.datagrams {
            if stop.now() {
                break;
            }
            payload[..8].copy_from_slice(&number.to_be_bytes());
            match socket.send(&payload) {
                Ok(bytes) => {
                    sent.datagrams += 1;
                    sent.payload_bytes += bytes as u64;
                }
                Err(_) => sent.errors += 1,
            }
            stop.sleep(plan.interval);
        }
        sent
    })
}

/// What a receiver got.
#[derive(Clone, Debug, Default)]
pub struct UdpReceived {
    /// Datagrams, numbered or not.
    pub datagrams: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// The numbers that arrived.
    pub numbers: BTreeSet<u64>,
    /// Datagrams whose number had arrived before.
    pub repeated: u64,
    /// Datagrams with a lower number than the one before.
    pub reordered: u64,
    /// Who sent them.
    pub senders: BTreeSet<SocketAddr>,
}

impl UdpReceived {
    /// The numbers in `range` that did not arrive.
    #[must_use]
    pub fn missing(&self, range: Range<u64>) -> Vec<u64> {
        range.filter(|number| !self.numbers.contains(number)).collect()
    }
}

/// Receives and remembers; see [`numbered`].
#[derive(Debug)]
pub struct UdpReceiver {
    address: SocketAddr,
    datagrams: Arc<AtomicU64>,
    task: Task<UdpReceived>,
}

impl UdpReceiver {
    /// Starts one with a large buffer; port 0 takes any. It receives when this returns.
    pub fn start(namespace: &Namespace, address: impl Into<SocketAddr>, longest: Duration) -> Result<Self> {
        let address = address.into();
        let socket = namespace.run(|| UdpSocket::bind(address));
        let socket = socket.with_context(|| format!("receiving on {address}"))?;
        socket.set_read_timeout(Some(TICK))?;
        // Every datagram that the kernel delivers shall be counted, also when this thread has to wait for a CPU.
        enlarge_buffer(&socket)?;
        let address = socket.local_addr()?;
        let datagrams = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&datagrams);
        let task =
            Task::start(namespace, "udp-receiver", longest, move |stop| receive(&socket, stop, &counter))?;
        Ok(Self { address, datagrams, task })
    }

    /// Where it receives.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams received so far.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Ordering::Relaxed)
    }

    /// Ends it, after what has arrived already.
    pub fn stop(self) -> UdpReceived {
        self.task.stop()
    }
}

/// A stopped receiver empties its socket first, so that nothing that arrived in time is missed; the buffer
/// cannot hold more than this.
const AFTER_STOP: u64 = 100_000;

fn receive(socket: &UdpSocket, stop: &Stop, datagrams: &AtomicU64) -> UdpReceived {
    let mut received = UdpReceived::default();
    let mut buffer = vec![0; 64 << 10];
    let mut highest = None;
    let mut left_after_stop = AFTER_STOP;
    while left_after_stop > 0 {
        left_after_stop -= u64::from(stop.now());
        let (bytes, sender) = match socket.recv_from(&mut buffer) {
            Ok(got) => got,
            Err(error) if timed_out(&error) && stop.now() => break,
            Err(_) => continue,
        };
        received.datagrams += 1;
        received.payload_bytes += bytes as u64;
        received.senders.insert(sender);
        if let Some(number) = buffer[..bytes].first_chunk() {
            let number = u64::from_be_bytes(*number);
            received.repeated += u64::from(!received.numbers.insert(number));
            received.reordered += u64::from(highest.is_some_and(|last| number < last));
            highest = Some(number);
        }
        datagrams.store(received.datagrams, Ordering::Relaxed);
    }
    received
}

/// Asks for 32 MiB, beyond what the machine allows unprivileged programs.
pub(super) fn enlarge_buffer(socket: &impl std::os::fd::AsFd) -> Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &(32 << 20))
        .context("enlarging a receive buffer")
}

/// How many bytes a datagram with this payload has on an Ethernet link.
#[must_use]
pub fn wire_bytes(to: IpAddr, payload_bytes: usize) -> u64 {
    let ip = if to.is_ipv4() { 20 } else { 40 };
    (14 + ip + 8 + payload_bytes) as u64
}
