//! A conversation written down byte by byte, a server that holds it and a client that measures it.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::service::Service;
use super::stream::Peer;
use crate::netns::Namespace;

/// One message of the client and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What the client says.
    pub says: Vec<u8>,
    /// What the server answers, in one segment.
    pub gets: Vec<u8>,
}

/// A whole conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    /// What the server says first; empty where the client begins.
    pub greeting: Vec<u8>,
    /// Then one after the other.
    pub turns: Vec<Turn>,
}

impl Dialogue {
    /// Begins one with what the server says first.
    #[must_use]
    pub fn greeting(greeting: impl Into<Vec<u8>>) -> Self {
        Self { greeting: greeting.into(), turns: Vec::new() }
    }

    /// Then the client says this, and gets that.
    #[must_use]
    pub fn turn(mut self, says: impl Into<Vec<u8>>, gets: impl Into<Vec<u8>>) -> Self {
        self.turns.push(Turn { says: says.into(), gets: gets.into() });
        self
    }

    /// Starts a server that holds this conversation on each connection, `pause` before each answer, and then waits
    /// for its client to go. A client that says something else is left at once.
    pub fn serve(
        &self,
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        longest: Duration,
        pause: Duration,
    ) -> Result<Service> {
        let dialogue = self.clone();
        Service::start(namespace, address, longest, move |mut peer| {
            peer.write_segment(&dialogue.greeting)?;
            for turn in &dialogue.turns {
                if read(&mut peer, turn.says.len())? != turn.says {
                    return Err(ErrorKind::InvalidData.into());
                }
                peer.pause(pause);
                peer.write_segment(&turn.gets)?;
            }
            peer.wait_for_close()
        })
    }

    /// Holds the client's side of it from inside `namespace`, `longest` at most; from each message of the client to the
    /// first byte of its answer. It is an error if the server says something else.
    pub fn hold(
        &self,
        namespace: &Namespace,
        server: SocketAddr,
        longest: Duration,
    ) -> Result<Vec<Duration>> {
        let mut peer =
            Peer::connect(namespace, server, longest).with_context(|| format!("connecting to {server}"))?;
        ensure!(read(&mut peer, self.greeting.len())? == self.greeting, "another greeting");
        let mut times = Vec::with_capacity(self.turns.len());
        for (index, turn) in self.turns.iter().enumerate() {
            let written = Instant::now();
            peer.write_segment(&turn.says)?;
            let first = read(&mut peer, turn.gets.len().min(1))?;
            times.push(written.elapsed());
            let rest = read(&mut peer, turn.gets.len().saturating_sub(1))?;
            ensure!([first, rest].concat() == turn.gets, "another answer in turn {index}");
        }
        Ok(times)
    }
}

fn read(peer: &mut Peer, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    peer.read_exact(&mut bytes)?;
    Ok(bytes)
}
