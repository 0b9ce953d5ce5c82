//! Questions about links, namespaces and filters, asked and answered on the spot.
//!
//! The answers are read attribute by attribute, and only what is asked for: a kernel that tells of things that
//! are not known here is understood all the same.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use rtnetlink::packet_core::{NLA_TYPE_MASK, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};

/// The kernel packs at most 32 KiB of answers into one message.
const MESSAGE_BYTES: usize = 64 * 1024;

/// The kernel answers at once; this is for one that never does.
const LONGEST: Duration = Duration::from_secs(5);

/// Answers are aligned to this, and so are attributes.
const ALIGNMENT: usize = 4;

/// Which answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// One.
    One,
    /// All that there are.
    All,
    /// None, but that something be done, as these flags say.
    Change(u16),
}

/// A socket that asks about the network namespace in which it was opened.
pub(super) struct Route {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Route {
    /// Opens one in the calling thread's network namespace.
    pub(super) fn open() -> Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
        let longest = TimeVal::new(LONGEST.as_secs().cast_signed(), 0);
        setsockopt(&socket, ReceiveTimeout, &longest).context("limiting how long an answer may take")?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(MESSAGE_BYTES) })
    }

    /// Asks, and hands over the body of each answer. False if what was told changed meanwhile, so that answers
    /// may be missing.
    pub(super) fn ask(
        &mut self,
        kind: u16,
        ask: Ask,
        body: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&request(kind, ask, self.sequence, body), 0)?;
        let mut whole = true;
        loop {
            receive(&self.socket, &mut self.buffer)?;
            let mut rest = &self.buffer[..];
            while !rest.is_empty() {
                let answer = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
                rest = rest.get((answer.length() as usize).next_multiple_of(ALIGNMENT)..).unwrap_or_default();
                // What is left of an earlier question that failed half way.
                if answer.sequence_number() != self.sequence {
                    continue;
                }
                whole &= i32::from(answer.flags()) & libc::NLM_F_DUMP_INTR == 0;
                match answer.message_type() {
                    NLMSG_DONE | NLMSG_ERROR => return refusal(answer.payload()).map(|()| whole),
                    _ => take(answer.payload()),
                }
                if ask == Ask::One {
                    return Ok(whole);
                }
            }
        }
    }
}

impl AsFd for Route {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `nlmsghdr` and the body.
fn request(kind: u16, ask: Ask, sequence: u32, body: &[u8]) -> Vec<u8> {
    let flags = match ask {
        Ask::One => 0,
        Ask::All => libc::NLM_F_DUMP,
        Ask::Change(flags) => libc::NLM_F_ACK | i32::from(flags),
    };
    let flags = libc::NLM_F_REQUEST | flags;
    let length = 16 + body.len() as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// An attribute of four bytes.
pub(super) fn attribute(kind: u16, value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..2].copy_from_slice(&8_u16.to_ne_bytes());
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..].copy_from_slice(&value.to_ne_bytes());
    bytes
}

/// The attributes by kind, up to the first that is cut off.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = number(rest)?;
        let [low, high, kind @ ..] = head.to_ne_bytes();
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        // The upper bits say how a value is to be read, which is known here.
        Some((u16::from_ne_bytes(kind) & NLA_TYPE_MASK, value))
    })
}

/// The first four bytes as a number of this machine.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        match socket.recv(buffer, libc::MSG_TRUNC) {
            Ok(length) if length > buffer.len() => {
                return Err(io::Error::other(format!("a netlink message of {length} bytes")));
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What ends an answer begins with zero or a negated error number.
fn refusal(payload: &[u8]) -> io::Result<()> {
    match number(payload).map_or(0, u32::cast_signed) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}
