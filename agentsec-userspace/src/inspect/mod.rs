//! What is too deep for the kernel: samples of what remotes answer, read for failed authentications. Pure.
//!
//! Everything here is written by somebody who may be hostile. Reading is total and bounded, and what could not be read is
//! counted.

use std::collections::BTreeMap;

use agentsec_common::flow::{FlowKey, Language};
use agentsec_common::sample::{SAMPLE_BYTES, Sample};

pub mod hpack;
pub mod http2;
pub mod huffman;
pub mod plaintext;

use hpack::Decoder;

/// Connections whose header tables are kept.
const MOST_FLOWS: usize = 4096;

/// Who said that an authentication has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthBy {
    /// HTTP/2, by a status.
    Http2Status(u16),
    /// gRPC, by its status: 7 is a permission denied, 16 unauthenticated.
    GrpcStatus(u16),
    /// Another protocol, on this port.
    Protocol(u16),
}

/// What a sample told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Failed authentications.
    pub failures: Vec<AuthBy>,
    /// Something of it could not be read.
    pub is_cut: bool,
}

struct Known {
    decoder: Decoder,
    /// Ordinal of the next sample.
    next: u16,
    used: u64,
}

/// Reads samples, with what it has to remember of connections between them.
#[derive(Default)]
pub struct Inspector {
    flows: BTreeMap<FlowKey, Known>,
    /// Samples read so far, which orders connections by their latest use.
    clock: u64,
}

impl Inspector {
    /// What a sample tells.
    pub fn inspect(&mut self, sample: &Sample) -> Findings {
        let length = usize::from(sample.length).min(SAMPLE_BYTES);
        let bytes = &sample.bytes[..length];
        match Language::from_byte(sample.language) {
            Language::Http2 => self.http2(sample, bytes),
            _ => Findings {
                failures: plaintext::refusal(bytes, sample.flow.remote_port).into_iter().collect(),
                is_cut: false,
            },
        }
    }

    fn http2(&mut self, sample: &Sample, bytes: &[u8]) -> Findings {
        self.clock += 1;
        if sample.ordinal == 0 {
            self.flows.remove(&sample.flow);
        }
        if !self.flows.contains_key(&sample.flow) {
            self.make_room();
        }
        let known = self.flows.entry(sample.flow).or_insert_with(|| Known {
            decoder: Decoder::default(),
            next: 0,
            used: 0,
        });
        if sample.ordinal != known.next {
            known.decoder.lose();
        }
        known.next = sample.ordinal.wrapping_add(1);
        known.used = self.clock;
        let read = http2::read(&mut known.decoder, bytes, sample.total as usize);
        Findings { failures: read.failures, is_cut: read.is_cut }
    }

    fn make_room(&mut self) {
        if self.flows.len() < MOST_FLOWS {
            return;
        }
        // Half of them at once, so that a crowd of new ones does not look for the oldest each time.
        let mut used: Vec<u64> = self.flows.values().map(|known| known.used).collect();
        let middle = used.len() / 2;
        let (_, &mut median, _) = used.select_nth_unstable(middle);
        self.flows.retain(|_, known| known.used > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(port: u16, language: Language, ordinal: u16, payload: &[u8]) -> Sample {
        let mut bytes = [0; SAMPLE_BYTES];
        bytes[..payload.len()].copy_from_slice(payload);
        Sample {
            at_ns: 0,
            flow: FlowKey::new(3, 6, &[0; 4], (port, 50_051), [1; 4]),
            epoch: 0,
            total: payload.len() as u32,
            length: payload.len() as u16,
            ordinal,
            language: language as u8,
            reserved: [0; 3],
            bytes,
        }
    }

    fn headers(block: &[u8]) -> Vec<u8> {
        [&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1], block].concat()
    }

    #[test]
    fn an_answer_that_refers_to_an_earlier_one_is_understood_as_long_as_none_was_missed() {
        let mut inspector = Inspector::default();
        let first = headers(b"\x48\x03401");
        let again = headers(&[0xbe]);
        let refused = [AuthBy::Http2Status(401)];
        assert_eq!(inspector.inspect(&sample(1, Language::Http2, 0, &first)).failures, refused);
        assert_eq!(inspector.inspect(&sample(1, Language::Http2, 1, &again)).failures, refused);
        let missed = inspector.inspect(&sample(1, Language::Http2, 3, &again));
        assert_eq!(missed, Findings { failures: vec![], is_cut: true });
        assert_eq!(
            inspector.inspect(&sample(2, Language::Http2, 0, &again)).failures,
            [],
            "another connection"
        );
        assert_eq!(
            inspector.inspect(&sample(1, Language::Http2, 0, &first)).failures,
            refused,
            "the port again"
        );
    }

    #[test]
    fn other_languages_are_read_by_themselves() {
        let mut inspector = Inspector::default();
        let refused = inspector.inspect(&sample(1, Language::Other, 1, b"-WRONGPASS no\r\n"));
        assert_eq!(refused.failures, [AuthBy::Protocol(50_051)]);
    }

    #[test]
    fn a_crowd_of_connections_takes_bounded_room_and_those_in_use_stay() {
        let mut inspector = Inspector::default();
        let first = headers(b"\x48\x03401");
        inspector.inspect(&sample(1, Language::Http2, 0, &first));
        for port in 2..10_000 {
            inspector.inspect(&sample(port, Language::Http2, 0, &first));
            if port % 1000 == 0 {
                inspector.inspect(&sample(1, Language::Http2, port / 1000, &headers(&[0xbe])));
            }
        }
        assert!(inspector.flows.len() <= MOST_FLOWS);
        let known = inspector.inspect(&sample(1, Language::Http2, 10, &headers(&[0xbe])));
        assert_eq!(known.failures, [AuthBy::Http2Status(401)]);
    }
}
