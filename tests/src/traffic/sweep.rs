//! A sweep: knocking on many doors.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::ops::AddAssign;
use std::time::Duration;

use anyhow::Result;

use super::task::{Stop, Task};
use super::timed_out;
use crate::netns::Namespace;

/// How to knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// Connect, wait this long at most, close.
    Tcp(Duration),
    /// Send one datagram with this many bytes.
    Udp(usize),
}

/// What happened to the knocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Connected (TCP), or handed to the kernel (UDP).
    pub through: u64,
    /// The other side said no.
    pub refused: u64,
    /// Nobody said anything.
    pub silent: u64,
    /// Anything else, such as no route.
    pub failed: u64,
}

impl AddAssign for SweepReport {
    fn add_assign(&mut self, other: Self) {
        self.through += other.through;
        self.refused += other.refused;
        self.silent += other.silent;
        self.failed += other.failed;
    }
}

/// Every address with every port, address by address.
#[must_use]
pub fn targets(addresses: impl IntoIterator<Item = IpAddr>, ports: &[u16]) -> Vec<SocketAddr> {
    let doors = |address| ports.iter().map(move |&port| SocketAddr::new(address, port));
    addresses.into_iter().flat_map(doors).collect()
}

/// Knocks on each target once, in order, `workers` at a time, for at most `longest`.
pub fn sweep(
    namespace: &Namespace,
    targets: Vec<SocketAddr>,
    knock: Knock,
    workers: usize,
    longest: Duration,
) -> Result<Task<SweepReport>> {
    let workers = workers.clamp(1, 64);
    Task::start(namespace, "sweep", longest, move |stop| {
        let targets = &targets;
        std::thread::scope(|scope| {
            let worker =
                |first| scope.spawn(move || some(targets.iter().skip(first).step_by(workers), knock, stop));
            let workers: Vec<_> = (0..workers).map(worker).collect();
            let mut report = SweepReport::default();
            workers.into_iter().filter_map(|worker| worker.join().ok()).for_each(|part| report += part);
            report
        })
    })
}

fn some<'a>(targets: impl Iterator<Item = &'a SocketAddr>, knock: Knock, stop: &Stop) -> SweepReport {
    let mut report = SweepReport::default();
    for &target in targets {
        if stop.now() {
            break;
        }
        let result = match knock {
            Knock::Tcp(timeout) => TcpStream::connect_timeout(&target, timeout).map(drop),
            Knock::Udp(bytes) => send(target, bytes),
        };
        match result {
            Ok(()) => report.through += 1,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => report.refused += 1,
            Err(error) if timed_out(&error) => report.silent += 1,
            Err(_) => report.failed += 1,
        }
    }
    report
}

fn send(target: SocketAddr, bytes: usize) -> std::io::Result<()> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))?.send_to(&vec![0x5a; bytes], target).map(drop)
}
