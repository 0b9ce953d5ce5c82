//! What was recorded of an agent, decoded.

use agentsec_common::agent::Direction;
use agentsec_common::packet::{Headers, parse, parse_packet_into};
use agentsec_common::policy::{Mode, State};
use agentsec_common::recorder::{Entry, Fate, Link, sequence_of};

use super::redact::Redactor;
use crate::core::Time;

/// The latest packets of an agent, in the order in which they were recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The agent's id.
    pub agent: String,
    /// The packets.
    pub packets: Vec<Packet>,
    /// Entries that changed while they were read, or cannot be understood: not among the packets.
    pub torn: u32,
    /// Packets recorded of the agent's slot, ever.
    pub recorded: u64,
    /// Packets that were not recorded, because their place was being written to.
    pub lost: u64,
    /// Whether the circuit is OPEN: then nothing is recorded, and this is what came before.
    pub is_frozen: bool,
}

/// One recorded packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Counts what was recorded of the slot, from one. A gap is an entry that was torn or lost.
    pub sequence: u64,
    /// Unix nanoseconds.
    pub at_wall_ns: u64,
    /// Which way it went.
    pub direction: Direction,
    /// What became of it.
    pub fate: Fate,
    /// The state that it met.
    pub state: State,
    /// The mode that it met.
    pub mode: Mode,
    /// The agent's epoch then.
    pub epoch: u32,
    /// Whether it tripped the circuit.
    pub tripped: bool,
    /// One in how many was recorded then.
    pub one_in: u16,
    /// What the bytes begin with.
    pub link: Link,
    /// Bytes of the packet as it was, a VLAN tag beside it included.
    pub length: u32,
    /// Packets that it became on the wire.
    pub packets: u16,
    /// Wire bytes of all those.
    pub wire_bytes: u64,
    /// Its first bytes, without credentials.
    pub bytes: Vec<u8>,
}

const VLAN_BYTES: u32 = 4;
/// Bytes of Ethernet addresses, behind which a tag belongs.
const ADDRESSES: usize = 12;

impl Recording {
    /// Decodes entries that are whole, in any order.
    #[must_use]
    pub fn read(agent: &str, entries: &[Entry], now: Time) -> Self {
        let mut recording = Self { agent: agent.into(), ..Self::default() };
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        sorted.sort_unstable_by_key(|entry| sequence_of(entry.word));
        let mut redactor = Redactor::default();
        for entry in sorted {
            match Packet::read(entry, now, &mut redactor) {
                Some(packet) => recording.packets.push(packet),
                None => recording.torn += 1,
            }
        }
        recording
    }

    /// The packet that tripped the circuit last, if it is here.
    #[must_use]
    pub fn tripped_by(&self) -> Option<&Packet> {
        self.packets.iter().rev().find(|packet| packet.tripped)
    }
}

impl Packet {
    fn read(entry: &Entry, now: Time, redactor: &mut Redactor) -> Option<Self> {
        let captured = entry.data.get(..usize::from(entry.captured))?;
        let link = match entry.link {
            0 => Link::Ethernet,
            1 => Link::Ip,
            _ => return None,
        };
        let mut bytes = captured.to_vec();
        redactor.redact(&mut bytes, &headers_of(link, captured));
        let mut length = entry.length;
        if entry.vlan_protocol != 0 && bytes.len() >= ADDRESSES {
            let [a, b] = entry.vlan_protocol.to_be_bytes();
            let [c, d] = entry.vlan_tci.to_be_bytes();
            bytes.splice(ADDRESSES..ADDRESSES, [a, b, c, d]);
            length = length.saturating_add(VLAN_BYTES);
        }
        Some(Self {
            sequence: sequence_of(entry.word),
            at_wall_ns: now.wall_at(entry.at_ns),
            direction: Direction::from_byte(entry.direction)?,
            fate: Fate::from_byte(entry.fate)?,
            state: match entry.state {
                1 => State::Closed,
                2 => State::HalfOpen,
                3 => State::Open,
                _ => return None,
            },
            mode: match entry.mode {
                0 => Mode::Enforce,
                1 => Mode::Shadow,
                2 => Mode::Exempt,
                _ => return None,
            },
            epoch: entry.epoch,
            tripped: entry.tripped != 0,
            one_in: entry.one_in,
            link,
            length,
            packets: entry.packets,
            wire_bytes: entry.wire_bytes,
            bytes,
        })
    }

    /// Its headers, as far as they were recorded.
    #[must_use]
    pub fn headers(&self) -> Headers {
        headers_of(self.link, &self.bytes)
    }
}

fn headers_of(link: Link, bytes: &[u8]) -> Headers {
    match link {
        Link::Ethernet => parse(&bytes),
        Link::Ip => {
            let mut headers = Headers::NONE;
            parse_packet_into(&bytes, &mut headers);
            headers
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use agentsec_common::recorder::{DATA_BYTES, written};

    pub(in crate::recorder) fn entry(sequence: u64, bytes: &[u8]) -> Entry {
        let mut data = [0; DATA_BYTES];
        data[..bytes.len()].copy_from_slice(bytes);
        Entry {
            word: written(sequence),
            at_ns: 1_000 * sequence,
            wire_bytes: 1500,
            slot: 7,
            epoch: 3,
            length: 1500,
            generation: 0,
            captured: bytes.len() as u16,
            packets: 1,
            vlan_tci: 0,
            vlan_protocol: 0,
            one_in: 1,
            direction: 0,
            fate: 0,
            state: 1,
            mode: 0,
            link: Link::Ethernet as u8,
            tripped: 0,
            exact: 1,
            reserved: [0; 9],
            data,
        }
    }

    const NOW: Time = Time { mono_ns: 10_000, wall_ns: 1_700_000_000_000_010_000 };

    #[test]
    fn packets_come_in_their_order_with_wall_time_whatever_the_order_of_the_ring() {
        let recording =
            Recording::read("a", &[entry(9, &[1; 20]), entry(7, &[2; 20]), entry(8, &[3; 20])], NOW);
        let sequences: Vec<u64> = recording.packets.iter().map(|packet| packet.sequence).collect();
        assert_eq!(sequences, [7, 8, 9]);
        assert_eq!(recording.packets[0].at_wall_ns, 1_700_000_000_000_007_000);
        assert_eq!(recording.torn, 0);
    }

    #[test]
    fn what_no_kernel_program_writes_is_counted_and_not_shown() {
        let wrong: [fn(&mut Entry); 6] = [
            |entry| entry.captured = DATA_BYTES as u16 + 1,
            |entry| entry.link = 2,
            |entry| entry.direction = 2,
            |entry| entry.fate = 3,
            |entry| entry.state = 0,
            |entry| entry.mode = 3,
        ];
        let entries: Vec<Entry> = wrong
            .iter()
            .map(|change| {
                let mut entry = entry(1, &[0; 20]);
                change(&mut entry);
                entry
            })
            .collect();
        let recording = Recording::read("a", &entries, NOW);
        assert_eq!((recording.packets.len(), recording.torn), (0, 6));
    }

    #[test]
    fn a_tag_beside_the_packet_is_put_back_where_it_was_on_the_wire() {
        let mut entry = entry(1, &[&[0xaa; 12][..], &[0x08, 0x00], &[0x45; 20]].concat());
        (entry.vlan_protocol, entry.vlan_tci, entry.length) = (0x8100, 7, 60);
        let recording = Recording::read("a", &[entry], NOW);
        let packet = &recording.packets[0];
        assert_eq!(packet.bytes[12..18], [0x81, 0x00, 0, 7, 0x08, 0x00]);
        assert_eq!((packet.length, packet.bytes.len()), (64, 38));
    }
}
