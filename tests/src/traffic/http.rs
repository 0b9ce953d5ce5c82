//! A small real HTTP/1.1 server, a client, and a steady load that measures every request.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::http_message::Connection;
use super::task::{Stop, Task};
use super::{TICK, timed_out};
use crate::netns::Namespace;

/// A request as a server's handler sees it.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query, as they came.
    pub path: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What a handler answers, and what a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// How much a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Connections accepted.
    pub connections: u64,
    /// Requests read to their end.
    pub requests: u64,
    /// Bytes of request bodies: what an exfiltration has got out.
    pub body_bytes: u64,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    requests: AtomicU64,
    body_bytes: AtomicU64,
}

/// A server that answers until it is dropped or its time is over.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: Task<()>,
}

impl HttpServer {
    /// Starts the [`standard`] server; port 0 takes any. It listens when this returns.
    pub fn start(namespace: &Namespace, address: impl Into<SocketAddr>, longest: Duration) -> Result<Self> {
        Self::start_with(namespace, address, longest, standard)
    }

    /// Starts a server with a handler of its own, which each connection's thread calls.
    pub fn start_with(
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        longest: Duration,
        handler: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> Result<Self> {
        let address = address.into();
        let listener = namespace.run(|| TcpListener::bind(address));
        let listener = listener.with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        let task = Task::start(namespace, "http-server", longest, move |stop| {
            accept(&listener, stop, &shared, &handler);
        })?;
        Ok(Self { address, counts, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has served so far.
    #[must_use]
    pub fn served(&self) -> Served {
        served(&self.counts)
    }

    /// Ends it and tells what it has served.
    pub fn stop(self) -> Served {
        let Self { counts, task, .. } = self;
        task.stop();
        served(&counts)
    }
}

fn served(counts: &Counts) -> Served {
    Served {
        connections: counts.connections.load(Ordering::Relaxed),
        requests: counts.requests.load(Ordering::Relaxed),
        body_bytes: counts.body_bytes.load(Ordering::Relaxed),
    }
}

/// Answers as [`standard`] does on a listener that does not block, until it is time to end.
pub(super) fn answer(listener: &TcpListener, stop: &Stop) -> Served {
    let counts = Counts::default();
    accept(listener, stop, &counts, &standard);
    served(&counts)
}

/// Answers `/status/N` with that status, `/bytes/N` with that many bytes, `/delay/N` after that many
/// milliseconds (at most 10 s), and everything else with 200.
#[must_use]
pub fn standard(request: &Request) -> Response {
    let mut parts = request.path.trim_start_matches('/').split(['/', '?']);
    let what = parts.next().unwrap_or_default();
    let number = parts.next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    match what {
        "status" => Response { status: number.clamp(200, 599) as u16, body: b"as you asked\n".to_vec() },
        "bytes" => Response { status: 200, body: vec![b'x'; number.min(32 << 20) as usize] },
        "delay" => {
            std::thread::sleep(Duration::from_millis(number.min(10_000)));
            Response { status: 200, body: b"at last\n".to_vec() }
        }
        _ => Response { status: 200, body: b"ok\n".to_vec() },
    }
}

fn accept(
    listener: &TcpListener,
    stop: &Stop,
    counts: &Counts,
    handler: &(impl Fn(&Request) -> Response + Sync),
) {
    std::thread::scope(|scope| {
        while !stop.now() {
            match listener.accept() {
                Ok((stream, _)) => {
                    counts.connections.fetch_add(1, Ordering::Relaxed);
                    // A client that goes away in the middle is the client's business.
                    scope.spawn(move || drop(serve(stream, stop, counts, handler)));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    });
}

fn serve(
    stream: TcpStream,
    stop: &Stop,
    counts: &Counts,
    handler: &impl Fn(&Request) -> Response,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut connection = Connection::new(stream)?;
    while let Some(message) = connection.read(stop)? {
        let mut words = message.start_line.split_whitespace().map(str::to_owned);
        let request = Request {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or_default(),
            body: message.body,
        };
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.body_bytes.fetch_add(request.body.len() as u64, Ordering::Relaxed);
        let Response { status, body } = handler(&request);
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            reason(status),
            body.len()
        );
        connection.write(&head, &body, stop)?;
        if message.close {
            break;
        }
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200..=299 => "OK",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        407 => "Proxy Authentication Required",
        429 => "Too Many Requests",
        500..=599 => "Server Error",
        _ => "Other",
    }
}

/// A client with one connection that it keeps alive and opens again when it breaks.
#[derive(Debug)]
pub struct HttpClient {
    namespace: Namespace,
    server: SocketAddr,
    timeout: Duration,
    connection: Option<Connection>,
}

impl HttpClient {
    /// A client of `server` inside `namespace` that waits five seconds at most.
    #[must_use]
    pub fn new(namespace: &Namespace, server: SocketAddr) -> Self {
        let timeout = Duration::from_secs(5);
        Self { namespace: namespace.clone(), server, timeout, connection: None }
    }

    /// Waits this long for one whole exchange, connecting included.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Forgets the connection, so that the next request opens a new one.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    /// `GET path`.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.request("GET", path, &[])
    }

    /// `POST path` with a body.
    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Response> {
        self.request("POST", path, body)
    }

    /// One exchange. After an error the connection is forgotten.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
        let stop = Stop::after(self.timeout);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.server,
            body.len()
        );
        connection.write(&head, body, &stop)?;
        let message = connection.read(&stop)?.ok_or(ErrorKind::UnexpectedEof)?;
        let status = message.start_line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or(ErrorKind::InvalidData)?;
        if !message.close {
            self.connection = Some(connection);
        }
        Ok(Response { status, body: message.body })
    }

    fn connect(&self) -> io::Result<Connection> {
        let stream = self.namespace.run(|| TcpStream::connect_timeout(&self.server, self.timeout))?;
        Connection::new(stream)
    }
}

/// What a [`load`] asks for.
#[derive(Clone, Debug)]
pub struct Load {
    /// What to get.
    pub path: String,
    /// How often, at most.
    pub requests: u64,
    /// How long after one request's *start* the next one starts (or at once, if it took longer).
    pub interval: Duration,
    /// How long to wait for one.
    pub timeout: Duration,
    /// How long all of it may take.
    pub longest: Duration,
}

/// One request of a load.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// When it started, since the load did.
    pub at: Duration,
    /// How long it took, successful or not.
    pub latency: Duration,
    /// The status, or what went wrong.
    pub outcome: Result<u16, String>,
}

/// Everything a load has seen.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// In the order of their start.
    pub exchanges: Vec<Exchange>,
}

impl LoadReport {
    /// How many were answered with this status.
    #[must_use]
    pub fn with_status(&self, status: u16) -> usize {
        self.exchanges.iter().filter(|exchange| exchange.outcome == Ok(status)).count()
    }

    /// How many were not answered.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.exchanges.iter().filter(|exchange| exchange.outcome.is_err()).count()
    }

    /// The latency that `per_mille` of the answered requests did not exceed.
    #[must_use]
    pub fn latency(&self, per_mille: usize) -> Option<Duration> {
        let answered = self.exchanges.iter().filter(|exchange| exchange.outcome.is_ok());
        let mut latencies: Vec<_> = answered.map(|exchange| exchange.latency).collect();
        latencies.sort_unstable();
        let last = latencies.len().checked_sub(1)?;
        latencies.get(last * per_mille.min(1000) / 1000).copied()
    }
}

/// Starts a client that asks again and again on one connection.
pub fn load(namespace: &Namespace, server: SocketAddr, load: Load) -> Result<Task<LoadReport>> {
    let mut client = HttpClient::new(namespace, server).timeout(load.timeout);
    Task::start(namespace, "http-load", load.longest, move |stop| {
        let begin = Instant::now();
        let mut report = LoadReport::default();
        for _ in 0..load.requests {
            if stop.now() {
                break;
            }
            let start = Instant::now();
            let outcome = match client.get(&load.path) {
                Ok(response) => Ok(response.status),
                Err(error) if timed_out(&error) => Err("timed out".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            let latency = start.elapsed();
            report.exchanges.push(Exchange { at: start - begin, latency, outcome });
            // Also a server that refuses at once shall not be asked a million times.
            stop.sleep(load.interval.max(TICK / 200).saturating_sub(latency));
        }
        report
    })
}
