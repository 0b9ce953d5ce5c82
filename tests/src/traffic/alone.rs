//! Traffic by a process of its own, for `agentsec-lab traffic`: whoever starts it decides in which cgroup and
//! namespace it is. It is bounded in amount and time, ends early when its standard input ends, and prints JSON,
//! one object a line: `{"ready": "ADDRESS:PORT"}` once it listens or is connected, unless it does its work at
//! once, and at the end what it sent and received.

mod hold;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use nix::sys::socket::{MsgFlags, send};
use serde_json::{Value, json};

use super::frames::Path;
use super::task::Stop;
use super::tcp::{self, TcpPlan};
use super::{TICK, http, packet, timed_out};

/// What to do, and how long at most.
#[derive(Debug, Args)]
pub struct Alone {
    #[command(subcommand)]
    errand: Errand,
    /// It ends after so many seconds, whatever is left to do
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30)]
    longest: u64,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

#[derive(Debug, Subcommand)]
enum Errand {
    /// Connect, send, and wait until the other side has closed
    TcpClient {
        /// To whom
        #[arg(long)]
        to: SocketAddr,
        /// How much
        #[arg(long, default_value_t = 1000)]
        bytes: u64,
    },
    /// Receive from so many connections, and throw it away
    TcpServer {
        /// Where; port 0 takes any
        #[arg(long)]
        listen: SocketAddr,
        /// How many connections until it ends
        #[arg(long, default_value_t = 1)]
        connections: u64,
    },
    /// Answer HTTP until its standard input ends
    HttpServer {
        /// Where; port 0 takes any
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Send datagrams, each after the answer to the one before or the time for it
    UdpClient {
        /// To whom
        #[arg(long)]
        to: SocketAddr,
        /// How many
        #[arg(long, default_value_t = 1)]
        datagrams: u64,
        /// Payload bytes in each
        #[arg(long, default_value_t = 100)]
        bytes: usize,
        /// How long to wait for each answer; 0 waits for none
        #[arg(long, default_value_t = 0)]
        answer_ms: u64,
    },
    /// Send so many datagrams back to where they came from
    UdpServer {
        /// Where; port 0 takes any
        #[arg(long)]
        listen: SocketAddr,
        /// How many until it ends
        #[arg(long, default_value_t = 1)]
        datagrams: u64,
        /// Only receive
        #[arg(long)]
        silent: bool,
    },
    /// Send broadcast frames of an experimental protocol (0x88b5) through a packet socket
    PacketSocket {
        /// The interface
        #[arg(long)]
        interface: String,
        /// How many
        #[arg(long, default_value_t = 1)]
        frames: u64,
        /// Bytes in each, with its header of 14
        #[arg(long, default_value_t = 60)]
        bytes: usize,
    },
    /// Connect a socket, then send once for each line of standard input, and print what came of it
    Hold {
        #[arg(value_enum)]
        protocol: Protocol,
        /// To whom
        #[arg(long)]
        to: SocketAddr,
        /// Payload bytes each time
        #[arg(long, default_value_t = 100)]
        bytes: usize,
    },
}

/// Does it, and prints what came of it. Traffic that fails is a result and no error.
pub fn run(alone: &Alone) -> Result<()> {
    let longest = Duration::from_secs(alone.longest);
    let stop = Stop::after(longest);
    if let Errand::Hold { protocol, to, bytes } = &alone.errand {
        return hold::run(*protocol, *to, *bytes, longest);
    }
    end_with_input(&stop);
    let report = match &alone.errand {
        Errand::TcpClient { to, bytes } => tcp_client(*to, *bytes, longest, &stop),
        Errand::TcpServer { listen, connections } => tcp_server(*listen, *connections, &stop)?,
        Errand::HttpServer { listen } => http_server(*listen, &stop)?,
        Errand::UdpClient { to, datagrams, bytes, answer_ms } => {
            udp_client(*to, *datagrams, *bytes, Duration::from_millis(*answer_ms), &stop)?
        }
        Errand::UdpServer { listen, datagrams, silent } => udp_server(*listen, *datagrams, *silent, &stop)?,
        Errand::PacketSocket { interface, frames, bytes } => packets(interface, *frames, *bytes, &stop)?,
        Errand::Hold { .. } => unreachable!("it has returned above"),
    };
    say(&report)
}

/// Prints one line, at once.
fn say(line: &Value) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("printing")
}

/// Ends the work when nobody holds the other end of standard input any more.
fn end_with_input(stop: &Stop) {
    let stop = stop.clone();
    // It is never waited for: the process ends without it.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        stop.ask();
    });
}

fn tcp_client(to: SocketAddr, bytes: u64, longest: Duration, stop: &Stop) -> Value {
    let plan = TcpPlan { flows: 1, bytes_per_flow: bytes, connect_timeout: longest, longest };
    let sent = tcp::send_one(to, plan, stop);
    json!({ "sent_bytes": sent.bytes, "complete": sent.complete, "error": sent.error })
}

fn tcp_server(listen: SocketAddr, connections: u64, stop: &Stop) -> Result<Value> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    listener.set_nonblocking(true)?;
    say(&json!({ "ready": listener.local_addr()?.to_string() }))?;
    let received = AtomicU64::default();
    let accepted = tcp::accept(&listener, connections, stop, &received);
    Ok(json!({ "connections": accepted, "received_bytes": received.load(Ordering::Relaxed) }))
}

fn http_server(listen: SocketAddr, stop: &Stop) -> Result<Value> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    listener.set_nonblocking(true)?;
    say(&json!({ "ready": listener.local_addr()?.to_string() }))?;
    let served = http::answer(&listener, stop);
    Ok(json!({ "connections": served.connections, "requests": served.requests }))
}

/// What a socket took and gave.
#[derive(Default)]
struct Tally {
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    errors: u64,
    error: Option<String>,
}

impl Tally {
    fn sent(&mut self, result: io::Result<usize>) -> bool {
        match result {
            Ok(bytes) => {
                self.sent += 1;
                self.sent_bytes += bytes as u64;
                true
            }
            Err(error) => {
                self.errors += 1;
                self.error = Some(error.to_string());
                false
            }
        }
    }

    fn received(&mut self, bytes: usize) {
        self.received += 1;
        self.received_bytes += bytes as u64;
    }

    /// `error` is the last one, in the system's words.
    fn report(&self) -> Value {
        json!({
            "sent": self.sent,
            "sent_bytes": self.sent_bytes,
            "received": self.received,
            "received_bytes": self.received_bytes,
            "errors": self.errors,
            "error": self.error,
        })
    }
}

/// A socket of the receiver's family, connected to it.
pub(super) fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}

fn udp_client(to: SocketAddr, datagrams: u64, bytes: usize, answer: Duration, stop: &Stop) -> Result<Value> {
    let socket = connected(to).with_context(|| format!("connecting to {to}"))?;
    let payload = vec![0x5a; bytes];
    let mut tally = Tally::default();
    for _ in 0..datagrams {
        if stop.now() {
            break;
        }
        if tally.sent(socket.send(&payload)) && !answer.is_zero() {
            socket.set_read_timeout(Some(answer))?;
            if let Ok(bytes) = socket.recv(&mut [0; 64 << 10]) {
                tally.received(bytes);
            }
        }
    }
    Ok(tally.report())
}

fn udp_server(listen: SocketAddr, datagrams: u64, silent: bool, stop: &Stop) -> Result<Value> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("receiving on {listen}"))?;
    socket.set_read_timeout(Some(TICK))?;
    say(&json!({ "ready": socket.local_addr()?.to_string() }))?;
    let mut tally = Tally::default();
    let mut buffer = vec![0; 64 << 10];
    while tally.received < datagrams && !stop.now() {
        match socket.recv_from(&mut buffer) {
            Ok((bytes, sender)) => {
                tally.received(bytes);
                if !silent {
                    tally.sent(socket.send_to(&buffer[..bytes], sender));
                }
            }
            Err(error) if timed_out(&error) => {}
            Err(error) => drop(tally.sent(Err(error))),
        }
    }
    Ok(tally.report())
}

fn packets(interface: &str, frames: u64, bytes: usize, stop: &Stop) -> Result<Value> {
    const EXPERIMENTAL: u16 = 0x88b5;
    let socket = packet::bound(interface, 0)?;
    let path = Path { from: [2, 0, 0, 0, 0, 1], to: [0xff; 6] };
    let frame = path.frame(EXPERIMENTAL, &vec![0; bytes.saturating_sub(14)]);
    let mut tally = Tally::default();
    for _ in 0..frames {
        if stop.now() {
            break;
        }
        let sent = send(socket.as_raw_fd(), &frame, MsgFlags::empty());
        tally.sent(sent.map_err(io::Error::from));
    }
    Ok(tally.report())
}
