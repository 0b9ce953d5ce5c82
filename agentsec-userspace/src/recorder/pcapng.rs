//! A recording as pcapng (draft-ietf-opsawg-pcapng), which every analyser reads.
//!
//! One section; an interface for each link type that occurs, of nanosecond resolution; a packet's direction in its flags, as
//! the agent sees it, and all that the format has no field for in its comment.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use agentsec_common::agent::Direction;
use agentsec_common::policy::{Mode, State};
use agentsec_common::recorder::{DATA_BYTES, Fate, Link};
use anyhow::{Context, Result};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};

use super::recording::{Packet, Recording};

/// Who recorded, for the section's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The machine's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
}

/// The most bytes that a packet of ours has: a tag is put back.
const SNAP_BYTES: u32 = DATA_BYTES as u32 + 4;
/// Ten to the minus ninth of a second.
const NANOSECONDS: u8 = 9;

/// Writes a recording as pcapng.
///
/// # Errors
///
/// When the format cannot express it, which no recording of the kernel's brings about.
pub fn pcapng_of(recording: &Recording, about: &About) -> Result<Vec<u8>> {
    let mut writer = PcapNgWriter::with_section_header(Vec::new(), section(recording, about))
        .context("writing the section header")?;
    let links: BTreeSet<Link> = recording.packets.iter().map(|packet| packet.link).collect();
    for link in &links {
        writer.write_pcapng_block(interface(*link, &recording.agent)?).context("writing an interface")?;
    }
    let mut before = None;
    for packet in &recording.packets {
        let interface = links.iter().position(|link| *link == packet.link).unwrap_or(0) as u32;
        let missing =
            before.map_or(0, |before: u64| packet.sequence.saturating_sub(before.saturating_add(1)));
        before = Some(packet.sequence);
        let block = block(packet, interface, missing, &recording.agent);
        writer.write_pcapng_block(block).with_context(|| format!("writing packet {}", packet.sequence))?;
    }
    Ok(writer.into_inner())
}

fn section<'a>(recording: &Recording, about: &'a About) -> SectionHeaderBlock<'a> {
    let told = format!(
        "the latest packets of agent {} on {}{}: {} of {} recorded, {} torn, {} lost",
        recording.agent,
        about.host,
        if recording.is_frozen { ", as they were when its circuit opened" } else { "" },
        recording.packets.len(),
        recording.recorded,
        recording.torn,
        recording.lost,
    );
    SectionHeaderBlock {
        endianness: Endianness::Little,
        options: vec![
            SectionHeaderOption::Hardware(std::env::consts::ARCH.into()),
            SectionHeaderOption::OS(format!("Linux {}", about.kernel).into()),
            SectionHeaderOption::UserApplication(concat!("agentsec ", env!("CARGO_PKG_VERSION")).into()),
            SectionHeaderOption::Common(CommonOption::Comment(told.into())),
        ],
        ..SectionHeaderBlock::default()
    }
}

fn interface(link: Link, agent: &str) -> Result<InterfaceDescriptionBlock<'static>> {
    let (linktype, what) = match link {
        Link::Ethernet => (DataLink::ETHERNET, "frames at its interfaces and addresses"),
        Link::Ip => (DataLink::RAW, "packets of its cgroup's sockets"),
    };
    let resolution = InterfaceTsResolution::new(false, NANOSECONDS).context("nanoseconds")?;
    Ok(InterfaceDescriptionBlock {
        options: vec![
            InterfaceDescriptionOption::IfName(agent.to_owned().into()),
            InterfaceDescriptionOption::IfDescription(format!("agent {agent}: {what}").into()),
            InterfaceDescriptionOption::IfTsResol(resolution),
        ],
        ..InterfaceDescriptionBlock::new(linktype, SNAP_BYTES)
    })
}

fn block<'a>(packet: &'a Packet, interface: u32, missing: u64, agent: &str) -> EnhancedPacketBlock<'a> {
    /// Bits 0 and 1 of `epb_flags`.
    const INBOUND: u32 = 1;
    const OUTBOUND: u32 = 2;
    let flags = match packet.direction {
        Direction::Inbound => INBOUND,
        Direction::Outbound => OUTBOUND,
    };
    let mut options = vec![
        EnhancedPacketOption::Common(CommonOption::Comment(comment(packet, agent).into())),
        EnhancedPacketOption::Flags(flags),
    ];
    if missing > 0 {
        options.push(EnhancedPacketOption::DropCount(missing));
    }
    EnhancedPacketBlock {
        interface_id: interface,
        timestamp: Duration::from_nanos(packet.at_wall_ns),
        original_len: packet.length.max(packet.bytes.len() as u32),
        data: Cow::Borrowed(&packet.bytes),
        options,
    }
}

/// What the format has no field for, in pairs that a filter finds.
fn comment(packet: &Packet, agent: &str) -> String {
    let direction = match packet.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    let mut text = format!(
        "agent={agent} direction={direction} verdict={} state={} mode={} epoch={} sequence={}",
        verdict_name(packet.fate),
        state_name(packet.state),
        mode_name(packet.mode),
        packet.epoch,
        packet.sequence,
    );
    if packet.tripped {
        text.push_str(" tripped=yes");
    }
    if packet.one_in > 1 {
        text.push_str(&format!(" one_in={}", packet.one_in));
    }
    if packet.packets != 1 {
        text.push_str(&format!(" wire_packets={} wire_bytes={}", packet.packets, packet.wire_bytes));
    }
    text
}

/// What became of a packet, in a word.
pub(crate) const fn verdict_name(fate: Fate) -> &'static str {
    match fate {
        Fate::Passed => "passed",
        Fate::Dropped => "dropped",
        Fate::WouldDrop => "would_drop",
    }
}

const fn state_name(state: State) -> &'static str {
    match state {
        State::Closed => "CLOSED",
        State::HalfOpen => "HALF_OPEN",
        State::Open => "OPEN",
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Shadow => "shadow",
        Mode::Exempt => "exempt",
    }
}

#[cfg(test)]
mod tests {
    use super::super::recording::tests::entry;
    use super::*;
    use crate::core::Time;
    use pcap_file::pcapng::{Block, PcapNgReader};

    const NOW: Time = Time { mono_ns: 10_000, wall_ns: 1_700_000_000_000_010_000 };

    fn recording() -> Recording {
        let mut last = entry(9, &[0xbb; 60]);
        (last.fate, last.tripped, last.direction, last.one_in) = (1, 1, 1, 16);
        let mut packet = entry(7, &[0x45; 40]);
        packet.link = Link::Ip as u8;
        (packet.packets, packet.wire_bytes) = (3, 4500);
        Recording::read("crawler", &[last, entry(6, &[]), packet], NOW)
    }

    #[test]
    fn a_reader_finds_what_was_written() {
        let bytes = pcapng_of(&recording(), &About { host: "h".into(), kernel: "6.1".into() }).unwrap();
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let (mut interfaces, mut packets) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap().0.into_owned() {
                Block::InterfaceDescription(interface) => interfaces.push(interface.linktype),
                Block::EnhancedPacket(packet) => packets.push(packet),
                _ => {}
            }
        }
        assert_eq!(interfaces, [DataLink::ETHERNET, DataLink::RAW]);
        let told = |packet: &EnhancedPacketBlock<'_>| format!("{:?}", packet.options);
        assert_eq!(packets.len(), 3);
        assert_eq!((packets[0].interface_id, packets[1].interface_id), (0, 1));
        assert_eq!((packets[0].data.len(), packets[0].original_len), (0, 1500));
        assert_eq!(packets[2].timestamp, Duration::from_nanos(1_700_000_000_000_009_000));
        assert!(told(&packets[1]).contains("wire_packets=3 wire_bytes=4500"), "{}", told(&packets[1]));
        let last = told(&packets[2]);
        assert!(
            last.contains(
                "verdict=dropped state=CLOSED mode=enforce epoch=3 sequence=9 tripped=yes one_in=16"
            )
        );
        assert!(last.contains("Flags(1)") && last.contains("DropCount(1)"), "{last}");
    }

    #[test]
    fn a_recording_without_packets_is_a_file_without_packets() {
        let bytes = pcapng_of(&Recording::default(), &About::default()).unwrap();
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        assert!(reader.next_block().is_none());
    }
}
