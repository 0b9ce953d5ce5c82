//! An HTTP/1.1 client that measures each request: from when it was written to the first byte of its answer.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::http_server::content_length;
use super::stream::Peer;
use crate::netns::Namespace;

/// More header fields than any scripted answer has.
const MOST_FIELDS: usize = 64;
/// Longer than any scripted answer.
const LONGEST_ANSWER: usize = 64 << 20;

/// One request as the client saw it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// When it was handed to the kernel.
    pub written: Instant,
    /// From then to the first byte of its answer, interim ones included. An answer that came before its request
    /// took no time.
    pub first_byte: Duration,
    /// From then to the last byte of its answer.
    pub whole: Duration,
    /// Statuses of the interim answers.
    pub interim: Vec<u16>,
    /// The status of the final answer.
    pub status: u16,
    /// Its body, without any chunks' lengths.
    pub body: Vec<u8>,
}

/// A client with one connection. Errors are final: make another.
#[derive(Debug)]
pub struct HttpProbe {
    peer: Peer,
    host: SocketAddr,
    unread: Vec<u8>,
    /// When the bytes in `unread` came: reading more always begins a wait for more.
    arrived: Instant,
}

impl HttpProbe {
    /// Connects from inside `namespace`; the connection and all requests on it together take at most `longest`.
    pub fn connect(namespace: &Namespace, server: SocketAddr, longest: Duration) -> io::Result<Self> {
        let peer = Peer::connect(namespace, server, longest)?;
        Ok(Self { peer, host: server, unread: Vec::new(), arrived: Instant::now() })
    }

    /// The port on this side.
    pub fn port(&self) -> io::Result<u16> {
        self.peer.port()
    }

    /// One request and its answer.
    pub fn get(&mut self, path: &str) -> io::Result<Measured> {
        let written = self.write("GET", path, &[])?;
        self.read_answer(written)
    }

    /// One request with a body, which asks for `100 Continue` but does not wait for it.
    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Measured> {
        let written = self.write("POST", path, body)?;
        self.read_answer(written)
    }

    /// `count` requests one after the other.
    pub fn get_many(&mut self, path: &str, count: usize) -> io::Result<Vec<Measured>> {
        (0..count).map(|_| self.get(path)).collect()
    }

    /// Writes `count` requests, each in a segment of its own, without waiting for any answer; then reads all answers.
    pub fn pipeline(&mut self, path: &str, count: usize) -> io::Result<Vec<Measured>> {
        let written = (0..count).map(|_| self.write("GET", path, &[])).collect::<io::Result<Vec<_>>>()?;
        written.into_iter().map(|written| self.read_answer(written)).collect()
    }

    /// Asks and goes away without an answer: for servers that never give one.
    pub fn ask_only(&mut self, path: &str) -> io::Result<Instant> {
        self.write("GET", path, &[])
    }

    /// Waits for bytes that were not asked for, and takes exactly so many off the connection.
    pub fn take_unsolicited(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < count {
            self.read_more()?;
        }
        Ok(self.unread.drain(..count).collect())
    }

    fn write(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Instant> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len());
        }
        request += "\r\n";
        let request = [request.as_bytes(), body].concat();
        // Not after: the answer may be here before writing returns.
        let written = Instant::now();
        self.peer.write_segment(&request)?;
        Ok(written)
    }

    fn read_answer(&mut self, written: Instant) -> io::Result<Measured> {
        if self.unread.is_empty() {
            self.read_more()?;
        }
        let first_byte = self.arrived.saturating_duration_since(written);
        let mut interim = Vec::new();
        loop {
            let head = self.read_head()?;
            if head.status < 200 {
                interim.push(head.status);
                continue;
            }
            let body = match head.body {
                BodyLength::Known(length) => self.take_unsolicited(length)?,
                BodyLength::Chunked => self.read_chunks()?,
                BodyLength::UntilClose => self.read_to_the_end()?,
            };
            let whole = self.arrived.saturating_duration_since(written);
            return Ok(Measured { written, first_byte, whole, interim, status: head.status, body });
        }
    }

    fn read_head(&mut self) -> io::Result<Head> {
        loop {
            if let Some((length, head)) = parse_head(&self.unread)? {
                self.unread.drain(..length);
                return Ok(head);
            }
            self.read_more()?;
        }
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = httparse::parse_chunk_size(&self.unread);
            match size.map_err(|_| io::Error::new(ErrorKind::InvalidData, "no chunk size"))? {
                httparse::Status::Partial => self.read_more()?,
                httparse::Status::Complete((line, size)) => {
                    self.take_unsolicited(line)?;
                    let chunk = self.take_unsolicited(size as usize + 2)?;
                    if size == 0 {
                        return Ok(body);
                    }
                    body.extend(&chunk[..size as usize]);
                }
            }
        }
    }

    fn read_to_the_end(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.read_more() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.unread));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        if self.unread.len() > LONGEST_ANSWER {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut chunk = [0; 64 << 10];
        let count = self.peer.read(&mut chunk)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.arrived = Instant::now();
        self.unread.extend_from_slice(&chunk[..count]);
        Ok(())
    }
}

struct Head {
    status: u16,
    body: BodyLength,
}

enum BodyLength {
    Known(usize),
    Chunked,
    UntilClose,
}

/// The first head of these bytes and its length, once it is whole.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(usize, Head)>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let chunked = response.headers.iter().any(|field| {
        field.name.eq_ignore_ascii_case("transfer-encoding") && field.value.eq_ignore_ascii_case(b"chunked")
    });
    let body = match content_length(response.headers) {
        _ if chunked => BodyLength::Chunked,
        Some(length) => BodyLength::Known(length),
        None => BodyLength::UntilClose,
    };
    Ok(response.code.map(|status| (length, Head { status, body })))
}
