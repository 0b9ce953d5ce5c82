//! The targets. Each takes any bytes and panics when a promise is broken.

use agentsec_common::agent::Direction;
use agentsec_common::flow::{
    Answered, Asking, FlowKey, Hears, Language, Line, Requests, Says, Segment, Start, Statuses, reset,
};
use agentsec_common::packet::{find_ip, parse, parse_packet_into};
use agentsec_common::payload;
use agentsec_common::sample::{SAMPLE_BYTES, Sample};

use super::inspect::hpack::Decoder;
use super::inspect::{Inspector, http2, huffman, plaintext};

/// A target.
pub type Target = fn(&[u8]);

/// Every target by name, which is that of its corpus.
pub const TARGETS: [(&str, Target); 8] = [
    ("frame", frame),
    ("payload", first_bytes),
    ("status_line", status_line),
    ("conversation", conversation),
    ("hpack", hpack),
    ("http2", http2_answer),
    ("refusal", refusal),
    ("samples", samples),
];

/// Runs a target by its name.
///
/// # Panics
/// When there is none of that name, or it finds something.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of that name");
    target(data);
}

/// A frame's headers lie within it, and the addresses are found where the headers say.
fn frame(data: &[u8]) {
    let headers = parse(&data);
    for direction in [Direction::Outbound, Direction::Inbound] {
        let _ = (headers.remote(direction), headers.opener(direction));
    }
    if let Some((_, offset)) = find_ip(&data) {
        assert!(offset <= 22, "behind two tags");
    }
    let mut packet = headers;
    parse_packet_into(&data, &mut packet);
    assert!(headers.has_payload || headers.payload_bytes == 0);
}

/// Sixteen bytes at most, of which the first says how many there are.
fn first(data: &[u8]) -> ([u8; 16], u32, &[u8]) {
    let (&length, rest) = data.split_first().unwrap_or((&0, &[]));
    let mut bytes = [0; 16];
    let length = usize::from(length).min(16).min(rest.len());
    bytes[..length].copy_from_slice(&rest[..length]);
    (bytes, length as u32, &rest[length..])
}

/// A payload is one thing at most.
fn first_bytes(data: &[u8]) {
    let (bytes, length, rest) = first(data);
    let tcp = [
        payload::request_method(&bytes, length).is_some(),
        payload::is_http2_preface(&bytes, length),
        payload::is_tls_record(&bytes, length),
    ];
    assert!(tcp.iter().filter(|is| **is).count() <= 1);
    let dns = [payload::dns_query(&bytes, length), payload::dns_response(&bytes, length)];
    assert!(dns.iter().flatten().count() <= 1);
    if let Some(alert) = payload::tls_alert(&bytes, length, rest.len() as u32) {
        assert!(payload::is_tls_record(&bytes, length) || bytes[2] > 4);
        let _ = alert.refuses(true);
    }
}

/// However a status line is cut, it comes to the same.
fn status_line(data: &[u8]) {
    let read = |piece: usize| {
        let mut statuses = Statuses::default();
        for part in data.chunks(piece.max(1)).take(16) {
            let mut bytes = [0; 16];
            bytes[..part.len()].copy_from_slice(part);
            let (after, line) = statuses.advance(&bytes, part.len() as u32);
            statuses = after;
            match line {
                Line::Unfinished => assert!(statuses.read() < 12),
                Line::Status(status) => {
                    assert!(status < 1000);
                    return Some(status);
                }
                Line::Foreign => return None,
            }
        }
        None
    };
    let whole = read(16);
    for piece in 1..16 {
        // What begins with sixteen bytes that are not enough is not cut further by smaller pieces.
        if data.len() >= 12 && data.len() <= 16 {
            assert_eq!(read(piece), whole, "in pieces of {piece}");
        }
    }
}

/// Whatever both sides say: nobody is answered, or failed, more often than the agent has asked.
fn conversation(data: &[u8]) {
    let mut asking = Asking::default();
    let (mut requests, mut answered) = (Requests::default(), Answered::new(0, u32::MAX - 20));
    let mut statuses = Statuses::default();
    let (mut next, mut remote_next) = (u32::MAX - 50, u32::MAX - 20);
    let (mut asks, mut answers, mut requested, mut met) = (0u32, 0u32, 0u32, 0u32);
    for step in data.chunks_exact(8).take(256) {
        let word = |at: usize| u32::from(u16::from_be_bytes([step[at], step[at + 1]]));
        let (flags, back, payload, ahead) = (step[1], word(2) % 300, word(4) % 2000, word(6) % 300);
        if step[0] & 1 == 0 {
            let segment =
                Segment { sequence: next.wrapping_sub(back), acknowledgment: remote_next, payload, flags };
            let start = Start::from_byte(step[0] >> 1 & 7);
            let (after, says) = asking.tcp(&segment, start, answered.count());
            asking = after;
            asks += u32::from(says == Says::Asks);
            match says {
                Says::Asks => {
                    requests = Requests::new(statuses.count() + 1, asking.answer);
                    requested += 1;
                }
                Says::AsksMore if start == Start::Request => {
                    requests = Requests::new(requests.count() + 1, requests.answer());
                    requested += 1;
                }
                _ => {}
            }
            next = asking.sent.end();
            continue;
        }
        let segment = Segment {
            sequence: remote_next.wrapping_sub(back),
            acknowledgment: next.wrapping_sub(ahead),
            payload,
            flags,
        };
        let _ = reset(&segment, asking.sent, answered, statuses);
        if let Some(offset) = statuses.place(&segment, requests, answered.heard()) {
            assert!(offset < payload);
            let waiting = statuses.waiting(requests);
            let text = if step[0] & 2 == 0 { *b"HTTP/1.1 401 No\r" } else { *b"HTTP/1.1 100 Go\r" };
            let (after, line) = statuses.advance(&text, (payload - offset).min(16));
            statuses = after;
            if let Line::Status(status) = line {
                statuses = statuses.met(status, waiting, step[0] & 4 != 0);
                met += u32::from(status == 401);
            }
        }
        let (after, hears) = answered.tcp(&segment, asking.asked, statuses.has_heard());
        answered = after;
        answers += u32::from(hears == Hears::Answer);
        if hears != Hears::Nothing {
            statuses = statuses.hearing();
            remote_next = answered.heard();
        }
    }
    assert!(answers <= asks, "{answers} answers to {asks} questions");
    assert!(met <= requested, "{met} statuses for {requested} requests");
}

/// Blocks behind each other, each with its length before it.
fn hpack(data: &[u8]) {
    let mut decoder = Decoder::default();
    let mut rest = data;
    while let Some((&length, after)) = rest.split_first() {
        let (block, after) = after.split_at(usize::from(length).min(after.len()));
        let (fields, flaw) = decoder.decode(block);
        assert!(fields.len() <= block.len());
        assert!(flaw.is_none() || !decoder.is_whole(), "a flaw breaks what follows");
        let _ = huffman::decode(block);
        rest = after;
    }
}

/// A segment whose length may be more than what there is of it.
fn http2_answer(data: &[u8]) {
    let more = data.first().map_or(0, |&more| usize::from(more));
    let bytes = data.get(1..).unwrap_or_default();
    let read = http2::read(&mut Decoder::default(), bytes, bytes.len() + more);
    assert!(read.failures.len() <= bytes.len());
}

/// The port comes first.
fn refusal(data: &[u8]) {
    let Some((port, bytes)) = data.split_first_chunk() else { return };
    let found = plaintext::refusal(bytes, u16::from_be_bytes(*port));
    assert!(found.is_none() || bytes.len() >= 2, "a byte alone refuses nobody");
}

/// Samples behind each other: connection, language, ordinal and length, and the bytes.
fn samples(data: &[u8]) {
    let mut inspector = Inspector::default();
    let mut rest = data;
    while let Some((&[flow, language, ordinal, length], after)) = rest.split_first_chunk() {
        let (part, after) = after.split_at(usize::from(length).min(after.len()));
        let mut bytes = [0; SAMPLE_BYTES];
        bytes[..part.len()].copy_from_slice(part);
        let sample = Sample {
            at_ns: 0,
            flow: FlowKey::new(flow.into(), 6, &[0; 4], (1, u16::from(flow) + 3300), [1; 4]),
            epoch: 0,
            total: u32::from(length),
            length: part.len() as u16,
            ordinal: ordinal.into(),
            language: Language::from_byte(language) as u8,
            reserved: [0; 3],
            bytes,
        };
        assert!(inspector.inspect(&sample).failures.len() <= SAMPLE_BYTES);
        rest = after;
    }
}
