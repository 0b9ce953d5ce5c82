//! The socket's server: accepts, checks the peer, serves. Everything about it is bounded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::peer::{Guard, PeerFacts};
use super::request::{Refusal, Request, RequestError, RequestErrorCode};
use super::routes::{Caller, Shared, router};
use super::socket;
use crate::record::evidence::EvidenceSource;
use crate::record::index::Files;

/// Connections served at once, followers of events included.
const CONNECTIONS: usize = 64;
/// Connections being told "no" at once; who comes on top of these is cut off.
const REFUSALS: usize = 8;
/// The most that a caller may take to send its request's head.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// The most that a refused caller may take to be told.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);
/// Between two refusals that are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// For requests that are being served when the server stops.
const GRACE: Duration = Duration::from_secs(1);
const HEADER_BYTES: usize = 16 * 1024;

/// The socket's name in the run directory.
pub const SOCKET_NAME: &str = "agentsec.sock";

/// What a server needs.
pub struct ServerOptions {
    /// Where to listen; the directory is made if need be.
    pub socket: PathBuf,
    /// The log that `/v1/events` reads; it need not exist yet.
    pub log: EvidenceSource,
    /// The index over it.
    pub index: Files,
    /// Who may speak.
    pub guard: Guard,
    /// The daemon's loop.
    pub requests: mpsc::Sender<Request>,
    /// Snapshots and the way back, which answer without the loop.
    pub recovery: Option<crate::recovery::Service>,
}

/// A running server. Dropping it stops it at once.
pub struct Server {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Binds the socket and serves it on the current tokio runtime.
    pub fn spawn(options: ServerOptions) -> Result<Self> {
        let (listener, file) = socket::bind(&options.socket)?;
        let listener = UnixListener::from_std(listener).context("handing the socket to the runtime")?;
        let (stop, stopped) = watch::channel(false);
        let acceptor = Acceptor {
            router: router(Shared {
                requests: options.requests.clone(),
                log: options.log,
                index: options.index,
                recovery: options.recovery,
            }),
            guard: options.guard,
            reports: Reports { requests: options.requests, last: None, unreported: 0 },
            serving: Arc::new(Semaphore::new(CONNECTIONS)),
            refusing: Arc::new(Semaphore::new(REFUSALS)),
            connections: JoinSet::new(),
            stopped,
        };
        let task = tokio::spawn(async move {
            acceptor.run(listener).await;
            drop(file);
        });
        Ok(Self { stop, task })
    }

    /// Stops accepting, gives requests in flight a moment, and removes the socket.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        // An error here is the task's panic or end; both mean that it has stopped.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Acceptor {
    router: Router,
    guard: Guard,
    reports: Reports,
    serving: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
    connections: JoinSet<()>,
    stopped: watch::Receiver<bool>,
}

impl Acceptor {
    async fn run(mut self, listener: UnixListener) {
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                () = told_to_stop(&mut stopped) => break,
                Some(_) = self.connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream),
                    // Out of file descriptors, most likely: wait for some to be closed.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
            }
        }
        drop(listener);
        let finished = async { while self.connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, finished).await;
    }

    fn admit(&mut self, stream: UnixStream) {
        let peer = match PeerFacts::of(&stream) {
            Ok(peer) => peer,
            // It has gone already.
            Err(_) => return,
        };
        if let Err(reason) = self.guard.judge(&peer) {
            self.refuse(stream, RequestError::new(RequestErrorCode::Forbidden, &reason));
            self.reports.report(peer, reason);
            return;
        }
        match self.serving.clone().try_acquire_owned() {
            Ok(permit) => self.serve(stream, Caller(peer.describe()), permit),
            Err(_) => {
                let busy = format!("{CONNECTIONS} connections are open already");
                self.refuse(stream, RequestError::new(RequestErrorCode::Unavailable, busy));
            }
        }
    }

    fn serve(&mut self, stream: UnixStream, caller: Caller, permit: OwnedSemaphorePermit) {
        let router = self.router.clone().layer(axum::Extension(caller));
        let connection = http().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let mut stopped = self.stopped.clone();
        self.connections.spawn(async move {
            let _permit = permit;
            let mut connection = std::pin::pin!(connection);
            // A connection's error is its caller's, who has seen it.
            tokio::select! {
                _ = connection.as_mut() => return,
                () = told_to_stop(&mut stopped) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }

    fn refuse(&mut self, stream: UnixStream, error: RequestError) {
        let Ok(permit) = self.refusing.clone().try_acquire_owned() else { return };
        self.connections.spawn(async move {
            let _permit = permit;
            let answer = service_fn(move |_: hyper::Request<Incoming>| {
                let response: hyper::Response<Body> = error.clone().into_response();
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let told = http().serve_connection(TokioIo::new(stream), answer);
            let _ = tokio::time::timeout(REFUSAL_PATIENCE, told).await;
        });
    }
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the server was dropped, which says the same.
    let _ = stopped.wait_for(|&stopped| stopped).await;
}

/// One request a connection: there is nothing to gain on a Unix socket, and nothing idle to bound.
fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false);
    http
}

/// Tells the loop of refusals, at most one a [`REPORT_INTERVAL`] and never by waiting.
struct Reports {
    requests: mpsc::Sender<Request>,
    last: Option<Instant>,
    unreported: u64,
}

impl Reports {
    fn report(&mut self, peer: PeerFacts, reason: String) {
        self.unreported += 1;
        if self.last.is_some_and(|last| last.elapsed() < REPORT_INTERVAL) {
            return;
        }
        let gid = peer.groups.first().copied().unwrap_or_default();
        let PeerFacts { pid, uid, cgroup, .. } = peer;
        let refusal = Refusal { pid, uid, gid, cgroup, reason, count: self.unreported };
        if self.requests.try_send(Request::Refused(refusal)).is_ok() {
            self.last = Some(Instant::now());
            self.unreported = 0;
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
