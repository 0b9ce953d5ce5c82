//! Header blocks of HTTP/2 (RFC 7541): just the fields that say how a request ended, and the table that later blocks refer
//! to.
//!
//! Our own, because a hostile remote writes what is decoded here, and the decoders that can be had panic on some of it or
//! are not looked after.

use std::collections::VecDeque;

use super::huffman;

/// Bytes that a table may hold: what connections begin with. A larger one would need a setting that we do not see.
const TABLE_BYTES: usize = 4096;
/// What an entry takes beside its strings.
const ENTRY_BYTES: usize = 32;
/// Entries of the static table.
const STATIC: usize = 61;
/// Fields of one block.
const MOST_FIELDS: usize = 128;

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// `:status`.
    Status,
    /// `grpc-status`.
    GrpcStatus,
    /// Any other.
    Other,
}

/// A field whose value matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `:status`.
    Status(u16),
    /// `grpc-status`.
    GrpcStatus(u16),
}

/// Why a block cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It ends too early, or is no header block.
    Malformed,
    /// It refers to what was not seen.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Name,
    name_bytes: usize,
    value: u16,
    bytes: usize,
}

/// What a connection's blocks have built up.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The newest first.
    table: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
    /// A block was missed: what its successors refer to is not known any more.
    broken: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), bytes: 0, limit: TABLE_BYTES, broken: false }
    }
}

/// The value of status fields; zero for what is no number of up to three digits.
fn number(text: &[u8]) -> u16 {
    let digits = text.len() <= 3 && text.iter().all(u8::is_ascii_digit);
    if digits { text.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')) } else { 0 }
}

/// How long the names of the static table are (RFC 7541, appendix A).
const NAME_BYTES: [u8; STATIC] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13,
    12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3,
    16,
];
/// Where `:status` begins in it, with these values.
const FIRST_STATUS: usize = 8;
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// An entry of the static table.
fn fixed(index: usize) -> Entry {
    let name_bytes = usize::from(NAME_BYTES[index - 1]);
    let status = index.checked_sub(FIRST_STATUS).and_then(|at| STATUSES.get(at));
    let (name, value) = status.map_or((Name::Other, 0), |status| (Name::Status, *status));
    Entry { name, name_bytes, value, bytes: 0 }
}

impl Decoder {
    /// A block was missed or cut short.
    pub fn lose(&mut self) {
        self.broken = true;
        self.table.clear();
        self.bytes = 0;
    }

    /// Whether blocks can be read as they were meant.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.broken
    }

    /// The fields of a block that matter, and why it could not be read to its end, if it could not.
    pub fn decode(&mut self, block: &[u8]) -> (Vec<Field>, Option<Flaw>) {
        let mut fields = Vec::new();
        let mut rest = block;
        for _ in 0..MOST_FIELDS {
            if rest.is_empty() {
                return (fields, None);
            }
            match self.step(rest) {
                Ok((field, left)) => {
                    fields.extend(field);
                    rest = left;
                }
                Err(flaw) => {
                    self.lose();
                    return (fields, Some(flaw));
                }
            }
        }
        self.lose();
        (fields, Some(Flaw::Malformed))
    }

    fn step<'a>(&mut self, block: &'a [u8]) -> Result<(Option<Field>, &'a [u8]), Flaw> {
        match block[0] {
            first if first & 0x80 != 0 => {
                let (index, rest) = integer(block, 7)?;
                let entry = self.at(index)?;
                Ok((field(entry.name, entry.value), rest))
            }
            first if first & 0x40 != 0 => self.literal(block, 6, true),
            first if first & 0x20 != 0 => {
                let (limit, rest) = integer(block, 5)?;
                if limit > TABLE_BYTES {
                    return Err(Flaw::Unknown);
                }
                self.limit = limit;
                self.evict(0);
                Ok((None, rest))
            }
            _ => self.literal(block, 4, false),
        }
    }

    fn at(&self, index: usize) -> Result<Entry, Flaw> {
        match index {
            0 => Err(Flaw::Malformed),
            1..=STATIC => Ok(fixed(index)),
            _ => self.table.get(index - STATIC - 1).copied().ok_or(Flaw::Unknown),
        }
    }

    fn literal<'a>(
        &mut self,
        block: &'a [u8],
        prefix: u32,
        remember: bool,
    ) -> Result<(Option<Field>, &'a [u8]), Flaw> {
        let (index, rest) = integer(block, prefix)?;
        let (name, name_bytes, rest) = match index {
            0 => {
                let (text, rest) = string(rest)?;
                (name_of(&text), text.len(), rest)
            }
            _ => match self.at(index) {
                Ok(entry) => (entry.name, entry.name_bytes, rest),
                // Any name that was said earlier: its value is skipped, and nothing is remembered any more.
                Err(Flaw::Unknown) if self.broken => (Name::Other, 0, rest),
                Err(flaw) => return Err(flaw),
            },
        };
        let (text, rest) = string(rest)?;
        let value = number(&text);
        if remember && !self.broken {
            let entry = Entry { name, name_bytes, value, bytes: name_bytes + text.len() + ENTRY_BYTES };
            self.evict(entry.bytes);
            if entry.bytes <= self.limit {
                self.bytes += entry.bytes;
                self.table.push_front(entry);
            }
        }
        Ok((field(name, value), rest))
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, more: usize) {
        while self.bytes + more > self.limit {
            let Some(oldest) = self.table.pop_back() else { return };
            self.bytes -= oldest.bytes;
        }
    }
}

fn name_of(text: &[u8]) -> Name {
    match text {
        b":status" => Name::Status,
        b"grpc-status" => Name::GrpcStatus,
        _ => Name::Other,
    }
}

fn field(name: Name, value: u16) -> Option<Field> {
    match name {
        Name::Status => Some(Field::Status(value)),
        Name::GrpcStatus => Some(Field::GrpcStatus(value)),
        Name::Other => None,
    }
}

/// A number with a prefix of so many bits, and what comes after it.
fn integer(block: &[u8], prefix: u32) -> Result<(usize, &[u8]), Flaw> {
    let (&first, mut rest) = block.split_first().ok_or(Flaw::Malformed)?;
    let most = (1usize << prefix) - 1;
    let mut value = usize::from(first) & most;
    if value < most {
        return Ok((value, rest));
    }
    // Three more bytes are two million: more than anything here is long.
    for shift in [0, 7, 14] {
        let (&byte, left) = rest.split_first().ok_or(Flaw::Malformed)?;
        rest = left;
        value += (usize::from(byte) & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value, rest));
        }
    }
    Err(Flaw::Malformed)
}

/// A string, and what comes after it.
fn string(block: &[u8]) -> Result<(Vec<u8>, &[u8]), Flaw> {
    let is_huffman = block.first().ok_or(Flaw::Malformed)? & 0x80 != 0;
    let (length, rest) = integer(block, 7)?;
    let (text, rest) = rest.split_at_checked(length).ok_or(Flaw::Malformed)?;
    let text = if is_huffman { huffman::decode(text).ok_or(Flaw::Malformed)? } else { text.to_vec() };
    Ok((text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_responses_of_the_standards_example_are_read_one_after_the_other() {
        // RFC 7541, C.6: a table of 256 bytes, out of which entries fall.
        let first = [
            0x3f, 0xe1, 0x01, 0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b, 0x61, 0x96,
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66,
            0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff, 0x6e, 0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f,
            0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3,
        ];
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&first), (vec![Field::Status(302)], None));
        assert_eq!(decoder.decode(&[0x48, 0x83, 0x64, 0x0e, 0xff]), (vec![Field::Status(307)], None));
    }

    #[test]
    fn a_status_that_was_said_once_is_referred_to() {
        let mut decoder = Decoder::default();
        let mut block = vec![0x48, 3];
        block.extend(b"401");
        assert_eq!(decoder.decode(&block), (vec![Field::Status(401)], None));
        assert_eq!(decoder.decode(&[0xbe]), (vec![Field::Status(401)], None));
        let mut more = vec![0x40, 4];
        more.extend(b"date");
        more.extend([1, b'x', 0xbf]);
        assert_eq!(decoder.decode(&more), (vec![Field::Status(401)], None), "one further down now");
        assert_eq!(decoder.decode(&[0x88]), (vec![Field::Status(200)], None));
    }

    #[test]
    fn trailers_tell_how_a_call_ended_however_they_are_written() {
        let mut plain = vec![0x88, 0x00, 11];
        plain.extend(b"grpc-status");
        plain.extend([2, b'1', b'6']);
        let expected = vec![Field::Status(200), Field::GrpcStatus(16)];
        assert_eq!(Decoder::default().decode(&plain), (expected, None));
    }

    #[test]
    fn after_a_loss_only_what_stands_there_is_believed() {
        let mut decoder = Decoder::default();
        decoder.lose();
        let mut block = vec![0x48, 3];
        block.extend(b"403");
        assert_eq!(decoder.decode(&block).0, [Field::Status(403)]);
        assert_eq!(decoder.decode(&[0xbe]), (vec![], Some(Flaw::Unknown)));
        assert!(!decoder.is_whole());
    }

    #[test]
    fn blocks_of_a_liar_end_in_a_flaw() {
        for block in
            [&[0x80][..], &[0xff], &[0xff, 0xff, 0xff, 0xff, 0xff], &[0x48], &[0x48, 5, b'4'], &[0x3f]]
        {
            assert!(Decoder::default().decode(block).1.is_some(), "{block:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_the_table_stays_within_its_bounds(
            blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        ) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _ = decoder.decode(&block);
                prop_assert!(decoder.bytes <= TABLE_BYTES);
                prop_assert_eq!(decoder.bytes, decoder.table.iter().map(|entry| entry.bytes).sum::<usize>());
            }
        }
    }
}
