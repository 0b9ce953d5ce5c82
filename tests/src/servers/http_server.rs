//! An HTTP/1.1 server that answers by a script.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::http_answer::{Answer, Ending};
use super::service::Service;
use super::stream::Peer;
use crate::netns::Namespace;

/// Longer than any head and body that a client of this server sends.
const LONGEST_REQUEST: usize = 4 << 20;
/// More header fields than any client sends.
const MOST_FIELDS: usize = 64;

/// What a server says on each connection.
#[derive(Clone, Debug)]
pub struct Script {
    /// Segments that it sends before any request.
    pub greeting: Vec<Vec<u8>>,
    /// Its answer to each request on a connection, in order; after the last comes the first again.
    pub answers: Vec<Answer>,
    /// How many requests it reads before it answers them, all in one segment. With 1 each has segments of its own.
    pub batch: usize,
}

impl Script {
    /// These answers to single requests.
    #[must_use]
    pub fn new(answers: impl Into<Vec<Answer>>) -> Self {
        Self { greeting: Vec::new(), answers: answers.into(), batch: 1 }
    }

    /// One plain answer for each status.
    #[must_use]
    pub fn statuses(statuses: &[u16]) -> Self {
        Self::new(statuses.iter().copied().map(Answer::new).collect::<Vec<_>>())
    }

    /// Sends `segment` `times` times to everybody who connects, before they ask anything.
    #[must_use]
    pub fn greeting(self, segment: &[u8], times: usize) -> Self {
        Self { greeting: vec![segment.to_vec(); times], ..self }
    }

    /// Answers so many pipelined requests in one segment.
    #[must_use]
    pub fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }
}

/// A server that answers by its script until it is dropped or its time is over.
#[derive(Debug)]
pub struct ScriptedHttp {
    service: Service,
    requests: Arc<AtomicU64>,
}

impl ScriptedHttp {
    /// Starts one; port 0 takes any. It listens when this returns.
    pub fn start(
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        longest: Duration,
        script: Script,
    ) -> Result<Self> {
        ensure!(!script.answers.is_empty(), "a script needs at least one answer");
        ensure!(script.batch > 0, "a batch of no requests is never answered");
        let requests = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&requests);
        let serve = move |peer| serve(peer, &script, &counter);
        Ok(Self { service: Service::start(namespace, address, longest, serve)?, requests })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.service.accepted()
    }

    /// Requests read to their end so far, answered or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

fn serve(mut peer: Peer, script: &Script, requests: &AtomicU64) -> io::Result<()> {
    for segment in &script.greeting {
        peer.write_segment(segment)?;
    }
    let mut unread = Vec::new();
    let mut answers = script.answers.iter().cycle();
    loop {
        let mut batch = Vec::new();
        while batch.len() < script.batch {
            if !read_request(&mut peer, &mut unread)? {
                return Ok(());
            }
            requests.fetch_add(1, Ordering::Relaxed);
            batch.extend(answers.next());
        }
        match say(&mut peer, &batch)? {
            Ending::Keep => {}
            Ending::Close => return Ok(()),
            Ending::Reset => {
                peer.wait_until_acknowledged()?;
                return peer.reset();
            }
        }
    }
}

/// Says the answers to one batch; the last of them says how to go on.
fn say(peer: &mut Peer, batch: &[&Answer]) -> io::Result<Ending> {
    let mut together = Vec::new();
    let mut ending = Ending::Keep;
    for answer in batch {
        if let Some(interim) = answer.interim() {
            peer.write_segment(interim)?;
        }
        peer.pause(answer.pause);
        let Some(segments) = answer.segments() else {
            peer.wait_for_close()?;
            return Ok(Ending::Close);
        };
        let segments = segments.iter().chain(&answer.pushed);
        if batch.len() == 1 {
            for segment in segments {
                peer.write_segment(segment)?;
            }
        } else {
            together.extend(segments.flatten());
        }
        ending = answer.ending;
    }
    peer.write_segment(&together)?;
    Ok(ending)
}

/// Takes one whole request off the connection; false when the client has closed it instead.
fn read_request(peer: &mut Peer, unread: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(length) = request_length(unread)?
            && unread.len() >= length
        {
            unread.drain(..length);
            return Ok(true);
        }
        if unread.len() > LONGEST_REQUEST {
            return Err(ErrorKind::InvalidData.into());
        }
        match peer.read(&mut chunk)? {
            0 => return Ok(false),
            count => unread.extend_from_slice(&chunk[..count]),
        }
    }
}

/// How long the first request of these bytes is with its body, once its head is whole.
fn request_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    Ok(Some(head + content_length(request.headers).unwrap_or(0)))
}

/// What the header fields say about the length of a body.
pub(super) fn content_length(fields: &[httparse::Header<'_>]) -> Option<usize> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(field.value).ok()?.trim().parse().ok()
}
