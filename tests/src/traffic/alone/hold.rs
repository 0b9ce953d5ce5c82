//! A socket that is made now and used later.

use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Protocol, connected, say};

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Socket {
    fn open(protocol: Protocol, to: SocketAddr, longest: Duration) -> io::Result<Self> {
        match protocol {
            Protocol::Tcp => {
                let stream = TcpStream::connect_timeout(&to, longest)?;
                stream.set_write_timeout(Some(longest))?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Protocol::Udp => connected(to).map(Self::Udp),
        }
    }

    fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }

    fn send(&mut self, payload: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(payload),
            Self::Udp(socket) => socket.send(payload),
        }
    }
}

/// Sends once for each line; each is answered with `{"sent_bytes": N, "error": TEXT or null}`.
pub(super) fn run(protocol: Protocol, to: SocketAddr, bytes: usize, longest: Duration) -> Result<()> {
    // Reading a line has no time limit of its own, so the process has: this signal ends it.
    nix::unistd::alarm::set(u32::try_from(longest.as_secs()).unwrap_or(u32::MAX).max(1));
    let mut socket = Socket::open(protocol, to, longest).with_context(|| format!("connecting to {to}"))?;
    say(&json!({ "ready": socket.local()?.to_string() }))?;
    let payload = vec![0x5a; bytes];
    for line in io::stdin().lock().lines() {
        line.context("reading standard input")?;
        let (sent, error) = match socket.send(&payload) {
            Ok(sent) => (sent, None),
            Err(error) => (0, Some(error.to_string())),
        };
        say(&json!({ "sent_bytes": sent, "error": error }))?;
    }
    Ok(())
}
