//! One scripted HTTP/1.1 answer: its bytes, where they are cut into segments, and when they come.

use std::time::Duration;

/// How an answer's body is delimited.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
    UntilClose(Vec<u8>),
}

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It is kept for the next request.
    #[default]
    Keep,
    /// It is closed.
    Close,
    /// It is reset, once the client has got the answer.
    Reset,
}

/// What a scripted server says to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// None is never answered.
    status: Option<u16>,
    headers: Vec<(String, String)>,
    body: Body,
    continue_first: bool,
    cut_at: Vec<usize>,
    cut_before: Vec<Vec<u8>>,
    pub(super) pause: Duration,
    pub(super) pushed: Vec<Vec<u8>>,
    pub(super) ending: Ending,
}

impl Answer {
    /// This status with a short body, at once and in one segment.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status: Some(status),
            headers: Vec::new(),
            body: Body::Length(b"as scripted\n".to_vec()),
            continue_first: false,
            cut_at: Vec::new(),
            cut_before: Vec::new(),
            pause: Duration::ZERO,
            pushed: Vec::new(),
            ending: Ending::Keep,
        }
    }

    /// Nothing, ever. The connection stays open, and later requests on it are not answered either.
    #[must_use]
    pub fn never() -> Self {
        Self { status: None, ..Self::new(0) }
    }

    /// One answer of this status for each delay, for a slow server.
    #[must_use]
    pub fn delayed(status: u16, delays: &[Duration]) -> Vec<Self> {
        delays.iter().map(|delay| Self::new(status).pause(*delay)).collect()
    }

    /// With this body and its `Content-Length`.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Length(body.into()), ..self }
    }

    /// With a chunked body.
    ///
    /// # Panics
    /// When a chunk is empty, which would end the body.
    #[must_use]
    pub fn chunked(self, chunks: &[&[u8]]) -> Self {
        assert!(chunks.iter().all(|chunk| !chunk.is_empty()), "an empty chunk ends a body");
        Self { body: Body::Chunked(chunks.iter().map(|chunk| chunk.to_vec()).collect()), ..self }
    }

    /// With a body that ends where the connection does.
    #[must_use]
    pub fn body_until_close(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::UntilClose(body.into()), ending: Ending::Close, ..self }
    }

    /// With one more header field, however long.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `100 Continue` first, in a segment of its own; [`pause`](Self::pause) comes after it.
    #[must_use]
    pub fn continue_first(self) -> Self {
        Self { continue_first: true, ..self }
    }

    /// Cuts the answer (its status line is at 0) into segments at these bytes.
    #[must_use]
    pub fn cut_at(mut self, offsets: &[usize]) -> Self {
        self.cut_at.extend(offsets);
        self
    }

    /// A new segment wherever `marker` begins within the answer.
    #[must_use]
    pub fn cut_before(mut self, marker: impl Into<Vec<u8>>) -> Self {
        self.cut_before.push(marker.into());
        self
    }

    /// Not before so long after the request.
    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Bytes that nobody asked for, in a segment of their own after the answer.
    #[must_use]
    pub fn then_push(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.pushed.push(bytes.into());
        self
    }

    /// What becomes of the connection afterwards.
    #[must_use]
    pub fn then(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    /// The interim answer, if it has one.
    pub(super) fn interim(&self) -> Option<&'static [u8]> {
        self.continue_first.then_some(b"HTTP/1.1 100 Continue\r\n\r\n")
    }

    /// The final answer, segment by segment; none if there never is one.
    pub(super) fn segments(&self) -> Option<Vec<Vec<u8>>> {
        let bytes = self.bytes(self.status?);
        let mut cuts = self.cut_at.clone();
        for marker in self.cut_before.iter().filter(|marker| !marker.is_empty()) {
            let found = bytes.windows(marker.len()).enumerate().filter(|(_, window)| window == marker);
            cuts.extend(found.map(|(at, _)| at));
        }
        cuts.retain(|at| (1..bytes.len()).contains(at));
        cuts.push(bytes.len());
        cuts.sort_unstable();
        cuts.dedup();
        let mut begin = 0;
        let segment = |end| bytes[std::mem::replace(&mut begin, end)..end].to_vec();
        Some(cuts.into_iter().map(segment).collect())
    }

    fn bytes(&self, status: u16) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match &self.body {
            Body::Length(body) => format!("Content-Length: {}\r\n", body.len()),
            Body::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
            Body::UntilClose(_) => String::new(),
        };
        if self.ending == Ending::Close {
            head += "Connection: close\r\n";
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        match &self.body {
            Body::Length(body) | Body::UntilClose(body) => bytes.extend(body),
            Body::Chunked(chunks) => {
                for chunk in chunks {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        403 => "Forbidden",
        407 => "Proxy Authentication Required",
        _ => "As Scripted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_keep_every_byte_and_begin_segments_at_markers() {
        let body = b"before\r\nHTTP/1.1 401 Unauthorized\r\nafter".to_vec();
        let whole = Answer::new(200).body(body.clone());
        let cut = whole.clone().cut_at(&[3, 9, 12, 0, 1 << 20]).cut_before(*b"HTTP/1.1 401");
        let segments = cut.segments().expect("it is answered");
        assert_eq!(segments.concat(), whole.segments().expect("it is answered").concat());
        assert_eq!(segments[..3], [&b"HTT"[..], b"P/1.1 ", b"200"]);
        assert!(segments.last().expect("there are some").starts_with(b"HTTP/1.1 401 Unauthorized\r\n"));
        assert_eq!(segments.len(), 5);
    }

    #[test]
    fn chunks_carry_their_lengths() {
        let bytes = Answer::new(200).chunked(&[b"0123456789", b"x"]).bytes(200);
        assert!(bytes.ends_with(b"\r\n\r\na\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n"));
    }

    #[test]
    fn never_has_no_segments() {
        assert_eq!(Answer::never().segments(), None);
    }
}
