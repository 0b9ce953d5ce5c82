//! ICMP echo.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::timed_out;
use crate::netns::Namespace;

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// How long each answer took, in the order of the requests that were answered.
    pub round_trips: Vec<Duration>,
}

impl PingReport {
    /// Whether every request was answered.
    #[must_use]
    pub fn all_answered(&self) -> bool {
        self.round_trips.len() == self.sent as usize
    }
}

/// Sends `count` echo requests with `payload_bytes` each, one after the other, and waits up to `timeout` for
/// each answer.
pub fn ping(
    namespace: &Namespace,
    to: IpAddr,
    count: u16,
    payload_bytes: usize,
    timeout: Duration,
) -> Result<PingReport> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    // Other pings see our answers as well; the identifier tells them apart.
    let identifier = NEXT.fetch_add(1, Ordering::Relaxed) ^ std::process::id() as u16;
    let mut socket = namespace.run(|| open(to)).with_context(|| format!("a raw socket to ping {to}"))?;
    socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1)))).context("setting a timeout")?;
    let mut report = PingReport::default();
    for number in 0..count {
        let start = Instant::now();
        report.sent += 1;
        if socket.send(&request(to, identifier, number, payload_bytes)).is_err() {
            continue;
        }
        if answered(&mut socket, to, identifier, number, start + timeout) {
            report.round_trips.push(start.elapsed());
        }
    }
    Ok(report)
}

fn open(to: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) =
        if to.is_ipv4() { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    Ok(socket)
}

fn request(to: IpAddr, identifier: u16, number: u16, payload_bytes: usize) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.resize(8 + payload_bytes, 0x5a);
    if to.is_ipv4() {
        // For IPv6 the kernel does it, since the sum covers addresses that it chooses.
        let sum = super::frames::checksum(&[&packet]);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn answered(socket: &mut Socket, to: IpAddr, identifier: u16, number: u16, deadline: Instant) -> bool {
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        let bytes = match socket.read(&mut buffer) {
            Ok(bytes) => &buffer[..bytes],
            Err(error) if timed_out(&error) => return false,
            Err(_) => continue,
        };
        // A raw IPv4 socket shows the IP header as well.
        let header =
            if to.is_ipv4() { usize::from(bytes.first().map_or(0, |byte| byte & 15)) * 4 } else { 0 };
        let kind = if to.is_ipv4() { 0 } else { 129 };
        let [id_high, id_low] = identifier.to_be_bytes();
        let [number_high, number_low] = number.to_be_bytes();
        if let Some(&[k, _, _, _, a, b, c, d, ..]) = bytes.get(header..)
            && (k, a, b, c, d) == (kind, id_high, id_low, number_high, number_low)
        {
            return true;
        }
    }
    false
}
