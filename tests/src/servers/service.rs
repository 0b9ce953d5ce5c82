//! A TCP server with a thread for each connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;

use super::stream::Peer;
use crate::netns::Namespace;
use crate::traffic::TICK;
use crate::traffic::task::{Stop, Task};
use crate::wait;

/// Connections that one service serves at the same time; more wait in the kernel's queue.
pub const MOST_AT_ONCE: usize = 256;

/// How long an address may stay in use.
const FREED: Duration = Duration::from_secs(5);

/// Binds a listener inside `namespace`; accepting blocks for a tick at most.
///
/// A listener that was closed just now may live on for a moment in a child that another thread has forked and that
/// has not come to its `exec` yet.
pub(super) fn listen(namespace: &Namespace, address: SocketAddr) -> Result<TcpListener> {
    let bind = || match namespace.run(|| TcpListener::bind(address)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        other => Some(other),
    };
    let listener = wait::until(&format!("{address} to be free"), FREED, bind)?;
    let listener = listener.with_context(|| format!("listening on {address}"))?;
    SockRef::from(&listener).set_read_timeout(Some(TICK)).context("limiting how long accepting blocks")?;
    Ok(listener)
}

/// A server that serves until it is dropped or its time is over.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    accepted: Arc<AtomicU64>,
    task: Task<()>,
}

impl Service {
    /// Starts one; port 0 takes any. It listens when this returns. Each connection's thread calls `serve`; an error
    /// ends that connection and no other, since it mostly means that the client has gone.
    pub fn start(
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        longest: Duration,
        serve: impl Fn(Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = listen(namespace, address.into())?;
        let address = listener.local_addr()?;
        let accepted = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&accepted);
        let task = Task::start(namespace, "service", longest, move |stop| {
            accept(&listener, stop, &counter, &serve);
        })?;
        Ok(Self { address, accepted, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Ends it, and tells how many connections it accepted.
    pub fn stop(self) -> u64 {
        self.task.stop();
        self.accepted.load(Ordering::Relaxed)
    }
}

fn accept(
    listener: &TcpListener,
    stop: &Stop,
    accepted: &AtomicU64,
    serve: &(impl Fn(Peer) -> io::Result<()> + Sync),
) {
    let running = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        while !stop.now() {
            if running.load(Ordering::Relaxed) >= MOST_AT_ONCE {
                stop.sleep(Duration::from_millis(1));
                continue;
            }
            let Ok((stream, _)) = listener.accept() else { continue };
            accepted.fetch_add(1, Ordering::Relaxed);
            running.fetch_add(1, Ordering::Relaxed);
            scope.spawn(move || {
                // A client that goes away in the middle is the client's business.
                let _ = Peer::new(stream, stop).and_then(serve);
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}
