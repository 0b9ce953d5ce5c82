//! HTTP/2 with prior knowledge, in the clear: a server that answers by a script, gRPC among it, and a client with
//! many requests on one connection.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::runtime::Runtime;

use crate::netns::Namespace;
use crate::traffic::TICK;
use crate::traffic::task::{Stop, Task};
use crate::wait::patient;

/// The field that says how a gRPC call ended.
const GRPC_STATUS: &str = "grpc-status";

/// What a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This status and a short body.
    Status(u16),
    /// Status 200 and gRPC's own status in the one block of header fields that there is: how calls are refused.
    GrpcTrailersOnly(u16),
    /// Status 200, a body, and gRPC's own status after it.
    Grpc(u16),
    /// Nothing, ever.
    Never,
}

/// What a request gets, and when.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// What it gets.
    pub answer: Answer,
    /// How long after the request.
    pub pause: Duration,
}

impl Reply {
    /// This answer at once.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { answer, pause: Duration::ZERO }
    }
}

/// A server that answers until it is dropped or its time is over.
#[derive(Debug)]
pub struct Http2Server {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    _task: Task<Result<()>>,
}

impl Http2Server {
    /// Starts one; port 0 takes any. It gives the n-th request of a connection the n-th reply, and begins anew after
    /// the last.
    pub fn start(
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        longest: Duration,
        script: Vec<Reply>,
    ) -> Result<Self> {
        ensure!(!script.is_empty(), "a script needs at least one reply");
        let address = address.into();
        let listener = namespace.run(|| TcpListener::bind(address));
        let listener = listener.with_context(|| format!("listening on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let requests = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&requests);
        let task = Task::start(namespace, "http2-server", longest, move |stop| {
            // Dropping the runtime ends all connections.
            runtime()?.block_on(accept(listener, script.into(), counter, stop))
        })?;
        Ok(Self { address, requests, _task: task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far, answered or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")
}

async fn accept(
    listener: TcpListener,
    script: Arc<[Reply]>,
    requests: Arc<AtomicU64>,
    stop: &Stop,
) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    while !stop.now() {
        if let Ok(Ok((stream, _))) = tokio::time::timeout(TICK, listener.accept()).await {
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&requests)));
        }
    }
    Ok(())
}

/// A client that goes away in the middle is the client's business: so no error is told.
async fn serve(stream: tokio::net::TcpStream, script: Arc<[Reply]>, requests: Arc<AtomicU64>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut replies = script.iter().cycle();
    while let (Some(Ok((_, respond))), Some(reply)) = (connection.accept().await, replies.next()) {
        requests.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(answer(respond, *reply));
    }
}

async fn answer(mut respond: SendResponse<Bytes>, reply: Reply) -> Result<()> {
    if !reply.pause.is_zero() {
        tokio::time::sleep(reply.pause).await;
    }
    match reply.answer {
        Answer::Status(status) => {
            let head = Response::builder().status(status).body(())?;
            respond.send_response(head, false)?.send_data(Bytes::from_static(b"as scripted\n"), true)?;
        }
        Answer::GrpcTrailersOnly(status) => {
            respond.send_response(grpc_head().header(GRPC_STATUS, status).body(())?, true)?;
        }
        Answer::Grpc(status) => {
            let mut stream = respond.send_response(grpc_head().body(())?, false)?;
            // An empty message: not compressed, no bytes.
            stream.send_data(Bytes::from_static(&[0; 5]), false)?;
            stream
                .send_trailers(HeaderMap::from_iter([(GRPC_STATUS.parse()?, HeaderValue::from(status))]))?;
        }
        // Dropping it would reset the stream.
        Answer::Never => std::future::pending().await,
    }
    Ok(())
}

fn grpc_head() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}

/// One request as the client saw it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// When it was handed to the connection.
    pub written: Instant,
    /// From then to the head of its answer; none if none came in time.
    pub answered: Option<Duration>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// gRPC's own status, from the head or the trailers.
    pub grpc_status: Option<u16>,
}

/// How a client asks on its one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Each request waits for the answer to the one before.
    OneByOne,
    /// All requests first, then all answers.
    AllAtOnce,
}

/// Connects from inside `namespace` and makes `count` requests. Waits `timeout` at most for each answer.
pub fn ask(
    namespace: &Namespace,
    server: SocketAddr,
    count: usize,
    manner: Manner,
    timeout: Duration,
) -> Result<Vec<Measured>> {
    let timeout = patient(timeout);
    let stream = namespace.run(|| TcpStream::connect_timeout(&server, timeout));
    let stream = stream.with_context(|| format!("connecting to {server}"))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    runtime()?.block_on(ask_on(stream, server, count, manner, timeout))
}

async fn ask_on(
    stream: TcpStream,
    server: SocketAddr,
    count: usize,
    manner: Manner,
    timeout: Duration,
) -> Result<Vec<Measured>> {
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let handshake = tokio::time::timeout(timeout, h2::client::handshake(stream)).await;
    let (mut client, connection) = handshake.context("no HTTP/2 in time")??;
    let running = tokio::spawn(connection);
    let mut measured = Vec::with_capacity(count);
    match manner {
        Manner::OneByOne => {
            for _ in 0..count {
                client = client.ready().await?;
                let (written, response) = send(&mut client, server)?;
                measured.push(receive(written, response, timeout).await?);
            }
        }
        Manner::AllAtOnce => {
            let mut waiting = Vec::with_capacity(count);
            for _ in 0..count {
                client = client.ready().await?;
                let (written, response) = send(&mut client, server)?;
                // On a task of its own, so that each is measured when its answer comes, in whatever order they do.
                waiting.push(tokio::spawn(receive(written, response, timeout)));
            }
            for one in waiting {
                measured.push(one.await??);
            }
        }
    }
    running.abort();
    Ok(measured)
}

fn send(client: &mut SendRequest<Bytes>, server: SocketAddr) -> Result<(Instant, ResponseFuture)> {
    let request = Request::post(format!("http://{server}/agent.Service/Call"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let written = Instant::now();
    Ok((written, client.send_request(request, true)?.0))
}

async fn receive(written: Instant, response: ResponseFuture, timeout: Duration) -> Result<Measured> {
    let mut measured = Measured { written, answered: None, status: None, grpc_status: None };
    let Ok(response) = tokio::time::timeout(timeout, response).await else { return Ok(measured) };
    let response = response?;
    measured.answered = Some(written.elapsed());
    measured.status = Some(response.status().as_u16());
    measured.grpc_status = grpc_status(response.headers());
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    if let Some(trailers) = body.trailers().await? {
        measured.grpc_status = grpc_status(&trailers);
    }
    Ok(measured)
}

fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    fields.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
