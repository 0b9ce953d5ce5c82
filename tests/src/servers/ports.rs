//! Ports that turn clients away, and a client that counts how.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::service::Service;
use super::stream::Peer;
use crate::netns::Namespace;

/// A port on which nothing listens, and on which nothing can while this lives. Everybody who connects is refused.
#[derive(Debug)]
pub struct RefusingPort {
    _bound: Socket,
    address: SocketAddr,
}

impl RefusingPort {
    /// Takes a port (0 takes any) without listening on it.
    pub fn take(namespace: &Namespace, address: impl Into<SocketAddr>) -> Result<Self> {
        let address = address.into();
        let take = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let bound = namespace.run(take).with_context(|| format!("taking {address}"))?;
        let address = bound.local_addr()?.as_socket().context("an address with a port")?;
        Ok(Self { _bound: bound, address })
    }

    /// Where nobody listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// When a resetting server resets a connection.
#[derive(Clone, Debug)]
pub enum ResetAfter {
    /// As soon as it is there.
    Accepting,
    /// Once the client has said something; it is not answered.
    Request,
    /// Once the client has said something and has got these bytes.
    Data(Vec<u8>),
}

/// Starts a server that resets every connection.
pub fn resetting(
    namespace: &Namespace,
    address: impl Into<SocketAddr>,
    longest: Duration,
    after: ResetAfter,
) -> Result<Service> {
    Service::start(namespace, address, longest, move |mut peer| {
        if !matches!(after, ResetAfter::Accepting) && peer.read(&mut [0; 4096])? == 0 {
            return Ok(());
        }
        if let ResetAfter::Data(bytes) = &after {
            peer.write_segment(bytes)?;
            peer.wait_until_acknowledged()?;
        }
        peer.reset()
    })
}

/// How a client was received, connection by connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receptions {
    /// Nothing listens there.
    pub refused: u64,
    /// Connected, and reset before any byte came.
    pub reset_before_data: u64,
    /// Connected, got bytes, and was reset then.
    pub reset_after_data: u64,
    /// Connected, got bytes, and was closed in order.
    pub answered: u64,
    /// Connected, and closed in order without a byte.
    pub closed: u64,
    /// Neither connected nor refused, or connected and left waiting, until the time was over.
    pub silent: u64,
    /// Anything else.
    pub failed: u64,
}

/// Connects `count` times, one after the other, says `request` and waits for the end each time, `timeout` at most.
#[must_use]
pub fn visit(
    namespace: &Namespace,
    to: SocketAddr,
    count: usize,
    request: &[u8],
    timeout: Duration,
) -> Receptions {
    let mut receptions = Receptions::default();
    for _ in 0..count {
        let (received, end) = match Peer::connect(namespace, to, timeout) {
            Ok(peer) => converse(peer, request),
            Err(error) => (0, Err(error)),
        };
        *receptions.of(received, end.map_err(|error| error.kind())) += 1;
    }
    receptions
}

impl Receptions {
    fn of(&mut self, received: usize, end: Result<(), ErrorKind>) -> &mut u64 {
        match (end, received) {
            (Err(ErrorKind::ConnectionRefused), _) => &mut self.refused,
            (Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), 0) => &mut self.reset_before_data,
            (Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), _) => &mut self.reset_after_data,
            (Err(ErrorKind::TimedOut), _) => &mut self.silent,
            (Err(_), _) => &mut self.failed,
            (Ok(()), 0) => &mut self.closed,
            (Ok(()), _) => &mut self.answered,
        }
    }
}

/// Bytes that came, and how the connection ended.
fn converse(mut peer: Peer, request: &[u8]) -> (usize, io::Result<()>) {
    let mut received = 0;
    let mut talk = || {
        peer.write_all(request)?;
        let mut buffer = [0; 4096];
        loop {
            match peer.read(&mut buffer)? {
                0 => return Ok(()),
                count => received += count,
            }
        }
    };
    let end = talk();
    (received, end)
}
