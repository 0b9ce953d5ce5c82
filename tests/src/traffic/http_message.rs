//! HTTP/1.1 messages on a TCP stream: start line, header fields, and a body of a known length.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::task::Stop;
use super::{TICK, timed_out};

/// More than any head and far more than any body that tests send; beyond it a peer is broken.
const LONGEST: usize = 64 << 20;

/// One request or response as it came.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) start_line: String,
    pub(super) close: bool,
    pub(super) body: Vec<u8>,
}

/// A stream and what has been read from it beyond the last message.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub(super) fn write(&mut self, head: &str, body: &[u8], stop: &Stop) -> io::Result<()> {
        let whole = [head.as_bytes(), body].concat();
        let mut rest = whole.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if timed_out(&error) && !stop.now() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next message, or none when the peer has closed the connection between two messages.
    pub(super) fn read(&mut self, stop: &Stop) -> io::Result<Option<Message>> {
        let head_bytes = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill(stop)? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_bytes]).into_owned();
        let body_bytes = field(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if body_bytes > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        while self.buffer.len() < head_bytes + body_bytes {
            if self.fill(stop)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let body = self.buffer[head_bytes..head_bytes + body_bytes].to_vec();
        self.buffer.drain(..head_bytes + body_bytes);
        let close = field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let start_line = head.lines().next().unwrap_or_default().to_owned();
        Ok(Some(Message { start_line, close, body }))
    }

    fn fill(&mut self, stop: &Stop) -> io::Result<usize> {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return Ok(count);
                }
                Err(error) if timed_out(&error) => {
                    if stop.now() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let of = |line: &'a str| {
        let (field, value) = line.split_once(':')?;
        field.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.lines().skip(1).find_map(of)
}
