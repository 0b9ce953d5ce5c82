//! What our programs are measured against, and what drives them through many agents and endpoints.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Result;

use super::bpf::{
    Insn, LOOKUP, MapKind, ProgramKind, TAIL_CALL, add, and, call, create, end_if, end_if_above, end_unless,
    give, load, load16, load32, load64, map, mov, set, store32, store64, update,
};

/// Offsets in `struct __sk_buff`.
const MARK: i16 = 8;
const PROTOCOL: i16 = 16;
const DATA: i16 = 76;
const DATA_END: i16 = 80;

/// Offsets in an IPv4 frame without tags and options.
const ETHERTYPE: i16 = 12;
const SOURCE: i16 = 26;
const DESTINATION: i16 = 30;
const PORTS: i16 = 34;

/// TC_ACT_SHOT.
pub(super) const SHOT: i32 = 2;
/// TCX_NEXT.
pub(super) const NEXT: i32 = -1;

/// What a program sees of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// A TC program: from the Ethernet header on.
    Frame,
    /// A program at a cgroup's egress or ingress: from the IP header on.
    Packet,
}

impl Layer {
    const fn kind(self) -> ProgramKind {
        match self {
            Self::Frame => ProgramKind::Classifier,
            Self::Packet => ProgramKind::CgroupSkb,
        }
    }

    /// Bytes before the IP header.
    const fn header(self) -> i16 {
        match self {
            Self::Frame => 14,
            Self::Packet => 0,
        }
    }

    /// What passes a packet on.
    pub(super) const fn next(self) -> i32 {
        match self {
            Self::Frame => NEXT,
            Self::Packet => 1,
        }
    }

    /// What drops it.
    pub(super) const fn shot(self) -> i32 {
        match self {
            Self::Frame => SHOT,
            Self::Packet => 0,
        }
    }

    /// Goes to the end unless the packet is IPv4. The context is in r1 and is gone then, the packet in r6.
    const fn end_unless_ipv4(self) -> [Insn; 2] {
        let read = match self {
            Self::Frame => load16(1, 6, ETHERTYPE),
            Self::Packet => load32(1, 1, PROTOCOL),
        };
        [read, end_unless(1, 0x0800u16.to_be() as i32)]
    }
}

/// Which address the minimal program looks up.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    Source,
    Destination,
}

impl By {
    /// Offset in an IPv4 header.
    const fn offset(self) -> i16 {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }
}

/// Returns at once: what the loop around a program costs.
pub(super) fn empty(layer: Layer) -> Result<OwnedFd> {
    load(layer.kind(), &[], layer.next())
}

/// The least that a filter with a count does: check the bounds and the protocol, add one to a per-CPU counter,
/// look an address up in a hash, and drop the packet if it is there.
pub(super) fn minimal(layer: Layer, by: By, addresses: &[Ipv4Addr]) -> Result<OwnedFd> {
    let count = create(MapKind::PerCpuArray, 4, 8, 1)?;
    let set_of = create(MapKind::Hash, 4, 1, u32::try_from(addresses.len().next_power_of_two())?)?;
    for address in addresses {
        update(&set_of, address.octets(), 1u8)?;
    }
    // The program holds its maps.
    let bounds = [
        load32(6, 1, DATA),
        load32(3, 1, DATA_END),
        mov(4, 6),
        add(4, i32::from(layer.header()) + 20),
        end_if_above(4, 3),
    ];
    let count =
        [&[set(1, 0)][..], &look_up(&count), &[load64(1, 0, 0), add(1, 1), store64(0, 0, 1)]].concat();
    let look = [&[load32(1, 6, layer.header() + by.offset())][..], &look_up(&set_of)].concat();
    let code = [&bounds[..], &layer.end_unless_ipv4(), &count, &look, &give(layer.shot())].concat();
    load(layer.kind(), &code, layer.next())
}

/// Looks one number up in a hash of `entries` others, and passes the packet on.
pub(super) fn one_look_up(layer: Layer, entries: u32) -> Result<OwnedFd> {
    let hash = create(MapKind::Hash, 8, 8, entries)?;
    for key in 1..=u64::from(entries) {
        update(&hash, key, key)?;
    }
    let [first, second] = map(1, &hash);
    let code = [set(1, 0), store64(10, -8, 1), mov(2, 10), add(2, -8), first, second, call(LOOKUP)];
    load(layer.kind(), &code, layer.next())
}

/// Looks a key of `WORDS` words up in a hash of `entries` others, and passes the packet on.
pub(super) fn one_long_look_up<const WORDS: usize>(layer: Layer, entries: u32) -> Result<OwnedFd> {
    let hash = create(MapKind::Hash, 8 * WORDS as u32, 8, entries)?;
    for key in 1..=u64::from(entries) {
        update(&hash, [key; WORDS], key)?;
    }
    let [first, second] = map(1, &hash);
    let key = (1..=WORDS as i16).map(|word| store64(10, -8 * word, 1));
    let start = [mov(2, 10), add(2, -8 * WORDS as i32), first, second, call(LOOKUP)];
    let code: Vec<Insn> = [set(1, 7)].into_iter().chain(key).chain(start).collect();
    load(layer.kind(), &code, layer.next())
}

/// The value of the key in r1, in r0; the end if there is none.
fn look_up(fd: &OwnedFd) -> [Insn; 7] {
    let [first, second] = map(1, fd);
    [store32(10, -4, 1), mov(2, 10), add(2, -4), first, second, call(LOOKUP), end_if(0, 0)]
}

/// One packet of the mix.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Stop {
    pub(super) source: [u8; 4],
    pub(super) destination: [u8; 4],
    /// Source and destination port.
    pub(super) ports: [[u8; 2]; 2],
    /// Stands for the interface.
    pub(super) mark: u32,
}

/// A program that makes each repetition another packet, and then becomes the measured program.
pub(super) struct Driver {
    program: OwnedFd,
    target: OwnedFd,
}

impl Driver {
    /// One that goes round `stops`, a power of two of them, in their order.
    pub(super) fn new(stops: &[Stop]) -> Result<Self> {
        assert!(stops.len().is_power_of_two(), "the position is taken by a mask");
        let position = create(MapKind::Array, 4, 8, 1)?;
        let table = create(MapKind::Array, 4, size_of::<Stop>() as u32, stops.len() as u32)?;
        for (index, stop) in stops.iter().enumerate() {
            update(&table, index as u32, *stop)?;
        }
        let target = create(MapKind::Programs, 4, 4, 1)?;
        let program = load(ProgramKind::Classifier, &drive(&position, &table, &target, stops.len()), NEXT)?;
        Ok(Self { program, target })
    }

    /// Drives this program from now on.
    pub(super) fn aim(&self, program: BorrowedFd<'_>) -> Result<()> {
        update(&self.target, 0u32, program.as_raw_fd())
    }

    pub(super) fn program(&self) -> &OwnedFd {
        &self.program
    }
}

fn drive(position: &OwnedFd, stops: &OwnedFd, target: &OwnedFd, count: usize) -> Vec<Insn> {
    let begin = [
        mov(6, 1),
        load32(7, 1, DATA),
        load32(3, 1, DATA_END),
        mov(4, 7),
        add(4, 38),
        end_if_above(4, 3),
        set(1, 0),
    ];
    let next = [load64(1, 0, 0), mov(2, 1), add(2, 1), store64(0, 0, 2), and(1, count as i32 - 1)];
    let copy = [
        load32(1, 0, 0),
        store32(7, SOURCE, 1),
        load32(1, 0, 4),
        store32(7, DESTINATION, 1),
        load32(1, 0, 8),
        store32(7, PORTS, 1),
        load32(1, 0, 12),
        store32(6, MARK, 1),
    ];
    let [first, second] = map(2, target);
    let leave = [mov(1, 6), first, second, set(3, 0), call(TAIL_CALL)];
    [&begin[..], &look_up(position), &next, &look_up(stops), &copy, &leave].concat()
}
