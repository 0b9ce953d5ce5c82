//! Answers in HTTP/2: the header blocks of a sample.

use super::AuthBy;
use super::hpack::{Decoder, Field};

const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// What a sample that begins with a frame tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Failed authentications.
    pub failures: Vec<AuthBy>,
    /// Something of it could not be read.
    pub is_cut: bool,
}

/// Reads the header blocks in `bytes`, of a segment that has `total` of them.
pub fn read(decoder: &mut Decoder, bytes: &[u8], total: usize) -> Read {
    let mut read = Read::default();
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_at_checked(FRAME_HEADER) {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let (kind, flags) = (header[3], header[4]);
        let Some((payload, next)) = after.split_at_checked(length) else {
            if kind == HEADERS || kind == CONTINUATION {
                // What is there of it may still begin with the status.
                read.take(decoder, block(after, flags & !PADDED, kind));
                decoder.lose();
                read.is_cut = true;
            }
            return read;
        };
        match kind {
            HEADERS if flags & END_HEADERS != 0 => read.take(decoder, block(payload, flags, kind)),
            // A block in several frames is longer than a sample.
            HEADERS | CONTINUATION => {
                read.take(decoder, block(payload, flags, kind));
                decoder.lose();
                read.is_cut = true;
            }
            _ => {}
        }
        rest = next;
    }
    // Behind the sample's end there may be more.
    if total > bytes.len() {
        decoder.lose();
        read.is_cut = true;
    }
    read
}

/// The header block inside a frame's payload.
fn block(payload: &[u8], flags: u8, kind: u8) -> &[u8] {
    if kind != HEADERS {
        return payload;
    }
    let padding =
        if flags & PADDED != 0 { payload.first().map_or(0, |&bytes| usize::from(bytes)) } else { 0 };
    let from = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let to = payload.len().saturating_sub(padding);
    payload.get(from..to.max(from)).unwrap_or_default()
}

impl Read {
    fn take(&mut self, decoder: &mut Decoder, block: &[u8]) {
        let (fields, flaw) = decoder.decode(block);
        self.is_cut |= flaw.is_some();
        self.failures.extend(fields.into_iter().filter_map(|field| match field {
            Field::Status(status @ (401 | 403 | 407)) => Some(AuthBy::Http2Status(status)),
            Field::GrpcStatus(status @ (7 | 16)) => Some(AuthBy::GrpcStatus(status)),
            Field::Status(_) | Field::GrpcStatus(_) => None,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn status(code: &[u8; 3]) -> Vec<u8> {
        [&[0x48, 3][..], code].concat()
    }

    #[test]
    fn each_answer_of_a_segment_is_read() {
        let segment = [
            frame(HEADERS, END_HEADERS, &status(b"401")),
            frame(0, 1, b"a body"),
            frame(
                HEADERS,
                END_HEADERS | PADDED | PRIORITY,
                &[&[2][..], &[0; 5], &status(b"403"), &[0; 2]].concat(),
            ),
        ]
        .concat();
        let read = read(&mut Decoder::default(), &segment, segment.len());
        assert_eq!(read.failures, [AuthBy::Http2Status(401), AuthBy::Http2Status(403)]);
        assert!(!read.is_cut);
    }

    #[test]
    fn what_is_cut_tells_what_it_has_and_breaks_what_refers_to_it() {
        let mut decoder = Decoder::default();
        let segment = frame(HEADERS, END_HEADERS, &[status(b"401"), vec![0; 100]].concat());
        let cut = read(&mut decoder, &segment[..FRAME_HEADER + 5], segment.len());
        assert_eq!((cut.failures, cut.is_cut), (vec![AuthBy::Http2Status(401)], true));
        let later = frame(HEADERS, END_HEADERS, &[0xbe]);
        let later = read(&mut decoder, &later, later.len());
        assert_eq!((later.failures, later.is_cut), (vec![], true));
        let plain = frame(HEADERS, END_HEADERS, &status(b"407"));
        assert_eq!(read(&mut decoder, &plain, plain.len()).failures, [AuthBy::Http2Status(407)]);
    }
}
