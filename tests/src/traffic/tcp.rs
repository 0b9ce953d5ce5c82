//! TCP at full speed into a sink that throws everything away and counts it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::SockRef;

use super::task::{Stop, Task};
use super::{TICK, timed_out};
use crate::netns::Namespace;

/// A discard server.
#[derive(Debug)]
pub struct TcpSink {
    address: SocketAddr,
    received: Arc<AtomicU64>,
    task: Task<()>,
}

impl TcpSink {
    /// Starts one; port 0 takes any. It listens when this returns.
    pub fn start(namespace: &Namespace, address: impl Into<SocketAddr>, longest: Duration) -> Result<Self> {
        let address = address.into();
        let listener = namespace.run(|| TcpListener::bind(address));
        let listener = listener.with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let received = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&received);
        let task = Task::start(namespace, "tcp-sink", longest, move |stop| {
            accept(&listener, u64::MAX, stop, &counter);
        })?;
        Ok(Self { address, received, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Payload bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends it and tells how many payload bytes it received.
    pub fn stop(self) -> u64 {
        let Self { received, task, .. } = self;
        task.stop();
        received.load(Ordering::Relaxed)
    }
}

/// Discards what so many connections bring (the listener does not block), until all have been closed or it is
/// time to end; how many there were.
pub(super) fn accept(listener: &TcpListener, connections: u64, stop: &Stop, received: &AtomicU64) -> u64 {
    let mut accepted = 0;
    std::thread::scope(|scope| {
        while accepted < connections && !stop.now() {
            match listener.accept() {
                Ok((stream, _)) => {
                    accepted += 1;
                    scope.spawn(move || discard(stream, stop, received));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    });
    accepted
}

fn discard(mut stream: TcpStream, stop: &Stop, received: &AtomicU64) {
    let ready = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(TICK)));
    let mut buffer = vec![0; 256 << 10];
    while ready.is_ok() && !stop.now() {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => drop(received.fetch_add(count as u64, Ordering::Relaxed)),
            Err(error) if timed_out(&error) => {}
            Err(_) => return,
        }
    }
}

/// How much to send.
#[derive(Clone, Copy, Debug)]
pub struct TcpPlan {
    /// Connections at the same time.
    pub flows: usize,
    /// Payload bytes on each connection.
    pub bytes_per_flow: u64,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long all of it may take.
    pub longest: Duration,
}

/// What one connection came to.
#[derive(Clone, Debug, Default)]
pub struct TcpSent {
    /// Bytes that the kernel took; of those, the sink knows how many arrived.
    pub bytes: u64,
    /// Everything was sent and the peer has closed after it: everything arrived.
    pub complete: bool,
    /// What ended it early, except for a stop or the time limit.
    pub error: Option<String>,
    /// From the first attempt to connect to the end.
    pub elapsed: Duration,
}

/// Starts sending to a [`TcpSink`], each flow as fast as it can.
pub fn send(namespace: &Namespace, to: SocketAddr, plan: TcpPlan) -> Result<Task<Vec<TcpSent>>> {
    Task::start(namespace, "tcp-send", plan.longest, move |stop| {
        std::thread::scope(|scope| {
            let flow = |_| scope.spawn(move || send_one(to, plan, stop));
            let flows: Vec<_> = (0..plan.flows).map(flow).collect();
            flows.into_iter().filter_map(|flow| flow.join().ok()).collect()
        })
    })
}

pub(super) fn send_one(to: SocketAddr, plan: TcpPlan, stop: &Stop) -> TcpSent {
    let start = Instant::now();
    let mut sent = TcpSent::default();
    if let Err(error) = send_until_done(to, plan, stop, &mut sent) {
        sent.error = Some(error.to_string());
    }
    sent.elapsed = start.elapsed();
    sent
}

fn send_until_done(to: SocketAddr, plan: TcpPlan, stop: &Stop, sent: &mut TcpSent) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, plan.connect_timeout.min(plan.longest))?;
    stream.set_write_timeout(Some(TICK))?;
    stream.set_read_timeout(Some(TICK))?;
    // What a contained peer never acknowledges must not linger in the namespace after the end.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let buffer = vec![0x5a; 128 << 10];
    while sent.bytes < plan.bytes_per_flow && !stop.now() {
        let left = (plan.bytes_per_flow - sent.bytes).min(buffer.len() as u64) as usize;
        match stream.write(&buffer[..left]) {
            Ok(count) => sent.bytes += count as u64,
            Err(error) if timed_out(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if sent.bytes < plan.bytes_per_flow {
        return Ok(());
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    while !sent.complete && !stop.now() {
        match stream.read(&mut [0; 64]) {
            Ok(0) => sent.complete = true,
            Ok(_) => {}
            Err(error) if timed_out(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
