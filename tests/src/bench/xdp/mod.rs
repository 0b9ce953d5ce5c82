//! Dropping before the stack, beside `xdp-filter` of xdp-tools: the program alone, and on live frames.

mod filter;
mod live;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use agentsec_common::agent::{Identity, LinkIpv4};
use agentsec_common::maps::{IDENTITY_IPV4, PROGRAM_LINK_XDP};
use agentsec_common::policy::State;
use anyhow::{Context, Result, ensure};
use aya::maps::HashMap;

use super::Options;
use super::bpf::{self, ProgramKind};
use super::object::{Expected, Object};
use super::row::Row;
use super::timing::{Rounds, Subject, alternate};
use crate::link::{End, Noise, prepare, veth_pairs};
use crate::netns::Namespace;
use crate::traffic::frames::{self, Path};
use filter::Filter;

const ADDRESSES: u32 = 1024;
const TARGET: f64 = 1.1;
/// The loopback interface, on which BPF_PROG_TEST_RUN says that frames arrive.
const LOOPBACK: u32 = 1;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;

/// Measures.
pub(super) fn run(options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    rows.push(program("OPEN address agent", agentsec::kernel::OBJECT, Some(TARGET))?);
    if let Some(path) = &options.against {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        rows.push(program("other build: OPEN address agent", &bytes, None)?);
    }
    rows.push(live::run()?);
    Ok(rows)
}

/// The addresses that both drop; frames come from the last.
fn addresses() -> Vec<Ipv4Addr> {
    (0..ADDRESSES).map(|index| Ipv4Addr::from(0x0a40_0002 + index)).collect()
}

/// The smallest frame, from one of the addresses.
fn frame() -> Vec<u8> {
    let from = Ipv4Addr::from(0x0a40_0002 + ADDRESSES - 1);
    let path = Path { from: [2, 0, 0, 0, 0, 2], to: [2, 0, 0, 0, 0, 1] };
    path.frame(frames::IPV4, &frames::udp4((from, 1000), (Ipv4Addr::new(10, 80, 0, 1), 9), &[0x5a; 18]))
}

/// What the programs take to drop a frame.
fn program(what: &str, bytes: &[u8], target: Option<f64>) -> Result<Row> {
    let host = Namespace::new("host")?;
    prepare(&host, Noise::Quiet)?;
    let end = |name: &str, last| End {
        namespace: &host,
        name: name.to_owned(),
        mac: [2, 0, 0, 0, 0, last],
        addresses: Vec::new(),
        noise: Noise::Quiet,
    };
    veth_pairs(&[(end("link", 1), end("peer", 2))])?;
    let filter = Filter::load(&host, "link")?;
    filter.block(&addresses())?;
    let mut object = Object::open(bytes, &[PROGRAM_LINK_XDP], &[])?;
    object.appoint(0..1, State::Open, Expected::Everything)?;
    let mut identity: HashMap<_, LinkIpv4, u64> = object.map(IDENTITY_IPV4)?.try_into()?;
    for address in addresses() {
        let address = u32::from_ne_bytes(address.octets());
        identity.insert(LinkIpv4 { ifindex: LOOPBACK, address }, Identity::of(0).to_word(), 0)?;
    }
    let (empty, theirs) = (bpf::load(ProgramKind::Xdp, &[], XDP_PASS)?, filter.program()?);
    let frame = frame();
    let subject = |program, verdict| Subject { program, frame: &frame, verdict };
    let rounds = alternate([
        subject(object.program(PROGRAM_LINK_XDP)?, XDP_DROP),
        subject(theirs.as_fd(), XDP_DROP),
        subject(empty.as_fd(), XDP_PASS),
    ])?;
    let counted = object.counted(1)?;
    ensure!(counted == (0, Rounds::<3>::packets()), "{counted:?} passed and dropped");
    let ratio = rounds.of(|[ours, theirs, _]| ours / theirs);
    let measured = format!(
        "{ratio:.2}× xdp-filter; {:.2}× net of the loop ({:.0} ns against {:.0} ns, the loop {:.0} ns)",
        rounds.of(|[ours, theirs, empty]| (ours - empty) / (theirs - empty)),
        rounds.of(|[ours, _, empty]| ours - empty),
        rounds.of(|[_, theirs, empty]| theirs - empty),
        rounds.of(|[_, _, empty]| *empty),
    );
    Ok(match target {
        Some(target) => Row::at_most("xdp", what, measured, ratio, target, "×"),
        None => Row::information("xdp", what, measured),
    })
}
