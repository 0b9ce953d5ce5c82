//! What a packet takes when there are 65,536 agents instead of ten: nothing is looked for one by one.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use agentsec::kernel::OBJECT;
use agentsec_common::agent::{Identity, LinkIpv4, Scope, Slot};
use agentsec_common::maps::{
    AGENTS, COUNTERS, IDENTITY_CGROUP, IDENTITY_FAR, IDENTITY_IPV4, IDENTITY_NEAR, IDENTITY_NEAR_CAPACITY,
    LEDGER, POLICY, PROGRAM_CGROUP_OUTBOUND, PROGRAM_LINK_OUTBOUND, PROGRAM_OUTBOUND, SCOPE,
};
use agentsec_common::policy::State;
use anyhow::{Result, ensure};
use aya::maps::{Array, HashMap};

use crate::bench::object::{Expected, Object, by_mark};
use crate::bench::row::Row;
use crate::bench::statistics::{Random, median};
use crate::bench::timing::{Rounds, Subject, alternate};
use crate::bench::visit::Visitor;
use crate::bench::yardstick::{self, Driver, Layer, NEXT, Stop};
use crate::cgroup::Cgroup;
use crate::traffic::frames::{self, Path};

const FEW: u32 = 10;
const MANY: u32 = 65_536;
const TARGET: f64 = 1.5;
/// Of different packets, a power of two.
const STOPS: u32 = 256;
const ENDPOINTS_PER_AGENT: u32 = 16;
/// The interface on which BPF_PROG_TEST_RUN says that frames arrive.
const LOOPBACK: u32 = 1;

/// Measures.
pub(super) fn rows() -> Result<Vec<Row>> {
    let driven = [
        ("interface", by_mark(OBJECT)?, PROGRAM_OUTBOUND, own_interfaces as Naming),
        ("address", OBJECT.to_vec(), PROGRAM_LINK_OUTBOUND, own_addresses as Naming),
    ];
    let mut rows = Vec::new();
    for (what, bytes, program, naming) in driven {
        rows.push(driven_row(what, &bytes, program, naming)?);
    }
    rows.push(cgroups()?);
    Ok(rows)
}

/// Says by what the kernel knows the agents of the first slots.
type Naming = fn(&mut Object, u32) -> Result<()>;

fn own_interfaces(object: &mut Object, agents: u32) -> Result<()> {
    let mut near: Array<_, u64> = object.map(IDENTITY_NEAR)?.try_into()?;
    for ifindex in 1..=agents.min(IDENTITY_NEAR_CAPACITY - 1) {
        near.set(ifindex, Identity::of(ifindex - 1).to_word(), 0)?;
    }
    let mut far: HashMap<_, u32, u64> = object.map(IDENTITY_FAR)?.try_into()?;
    for ifindex in IDENTITY_NEAR_CAPACITY..=agents {
        far.insert(ifindex, Identity::of(ifindex - 1).to_word(), 0)?;
    }
    Ok(())
}

fn own_addresses(object: &mut Object, agents: u32) -> Result<()> {
    let mut identity: HashMap<_, LinkIpv4, u64> = object.map(IDENTITY_IPV4)?.try_into()?;
    for slot in 0..agents {
        let address = u32::from_ne_bytes(address(slot).octets());
        identity.insert(LinkIpv4 { ifindex: LOOPBACK, address }, Identity::of(slot).to_word(), 0)?;
    }
    Ok(())
}

fn address(slot: Slot) -> Ipv4Addr {
    Ipv4Addr::from(0x0a40_0002 + slot)
}

/// The ten slots whose traffic is measured, all over the `agents`.
fn busy(agents: u32) -> impl Iterator<Item = Slot> {
    (0..FEW).map(move |index| index * (agents / FEW))
}

/// The traffic of ten agents with sixteen endpoints each, in no order.
fn stops(agents: u32) -> Vec<Stop> {
    let busy: Vec<_> = busy(agents).collect();
    let stop = |index: u32| {
        let (slot, endpoint) = (busy[(index % FEW) as usize], index / FEW % ENDPOINTS_PER_AGENT);
        Stop {
            source: address(slot).octets(),
            destination: Ipv4Addr::from(0x0a80_0000 + index % FEW * ENDPOINTS_PER_AGENT + endpoint).octets(),
            ports: [(40_000 + endpoint as u16).to_be_bytes(), 443u16.to_be_bytes()],
            mark: slot + 1,
        }
    };
    let mut stops: Vec<_> = (0..STOPS).map(stop).collect();
    Random::new(1).shuffle(&mut stops);
    stops
}

/// The first packet; the driver makes the others of it.
fn frame() -> Vec<u8> {
    const ACK: u8 = 1 << 4;
    let path = Path { from: [2, 0, 0, 0, 0, 1], to: [2, 0, 0, 0, 0, 2] };
    let (from, to) = ((address(0), 40_000), (Ipv4Addr::new(10, 128, 0, 0), 443));
    path.frame(frames::IPV4, &frames::tcp4(from, to, ACK, &[0x5a; 100]))
}

/// The program with this many agents, in maps for 65,536 in either case.
fn populated(bytes: &[u8], program: &str, agents: u32) -> Result<Object> {
    let sizes = [POLICY, LEDGER, COUNTERS, AGENTS].map(|name| (name, MANY));
    let mut object = Object::open(bytes, &[program], &sizes)?;
    object.appoint(0..agents, State::Closed, Expected::Everything)?;
    Ok(object)
}

/// Programs that a driver leads through the traffic of ten agents.
fn driven_row(what: &str, bytes: &[u8], program: &str, naming: Naming) -> Result<Row> {
    let load = |agents| -> Result<(Object, Driver)> {
        let mut object = populated(bytes, program, agents)?;
        naming(&mut object, agents)?;
        let driver = Driver::new(&stops(agents))?;
        driver.aim(object.program(program)?)?;
        Ok((object, driver))
    };
    let (mut few, mut many) = (load(FEW)?, load(MANY)?);
    let idle = Driver::new(&stops(FEW))?;
    let empty = yardstick::empty(Layer::Frame)?;
    idle.aim(empty.as_fd())?;
    let frame = frame();
    let subject = |program| Subject { program, frame: &frame, verdict: NEXT };
    let drivers = [&few.1, &many.1, &idle];
    let rounds = alternate(drivers.map(|driver| subject(driver.program().as_fd())))?;
    for (object, agents) in [(&mut few.0, FEW), (&mut many.0, MANY)] {
        let counted = object.counted(agents)?;
        ensure!(counted == (Rounds::<3>::packets(), 0), "{what}: {counted:?} passed and dropped");
    }
    let ratio = rounds.of(|[few, many, empty]| (many - empty) / (few - empty));
    let few = rounds.of(|[few, _, empty]| few - empty);
    let many = rounds.of(|[_, many, empty]| many - empty);
    Ok(row(what, ratio, few, many))
}

fn row(what: &str, ratio: f64, few: f64, many: f64) -> Row {
    let what = format!("a packet with 65,536 {what} agents against ten, traffic of ten");
    let measured = format!("{ratio:.2}× ({many:.0} ns against {few:.0} ns, net of loop and driver)");
    Row::at_most("scale", what, measured, ratio, TARGET, "×")
}

/// A process has one cgroup at a time, so this one goes through ten of them, and all is measured in each.
fn cgroups() -> Result<Row> {
    let cgroups: Vec<_> =
        (0..FEW).map(|index| Cgroup::new(&format!("crowd-{index}"))).collect::<Result<_>>()?;
    let load = |agents: u32| -> Result<Object> {
        let mut object = populated(OBJECT, PROGRAM_CGROUP_OUTBOUND, agents)?;
        let mut scope: Array<_, Scope> = object.map(SCOPE)?.try_into()?;
        scope.set(0, Scope { cgroup_levels: 1 << 1, prefixes: 0, covered: 0, generation: 0 }, 0)?;
        let mut ids: Vec<_> = (0..u64::from(agents)).map(|slot| 1 << 40 | slot).collect();
        for (slot, cgroup) in busy(agents).zip(&cgroups) {
            ids[slot as usize] = cgroup.id();
        }
        let mut identity: HashMap<_, u64, u64> = object.map(IDENTITY_CGROUP)?.try_into()?;
        for (slot, id) in ids.iter().enumerate() {
            identity.insert(id, Identity::of(slot as Slot).to_word_at(1), 0)?;
        }
        Ok(object)
    };
    let (mut few, mut many) = (load(FEW)?, load(MANY)?);
    let empty = yardstick::empty(Layer::Packet)?;
    let frame = frame();
    let visitor = Visitor::new()?;
    let (mut ratios, mut times) = (Vec::new(), [Vec::new(), Vec::new()]);
    for cgroup in &cgroups {
        visitor.go(cgroup)?;
        let subject = |program| Subject { program, frame: &frame, verdict: Layer::Packet.next() };
        let rounds = alternate([
            subject(few.program(PROGRAM_CGROUP_OUTBOUND)?),
            subject(many.program(PROGRAM_CGROUP_OUTBOUND)?),
            subject(empty.as_fd()),
        ])?;
        ratios.push(rounds.of(|[few, many, empty]| (many - empty) / (few - empty)));
        times[0].push(rounds.of(|[few, _, empty]| few - empty));
        times[1].push(rounds.of(|[_, many, empty]| many - empty));
    }
    drop(visitor);
    for (object, agents) in [(&mut few, FEW), (&mut many, MANY)] {
        let counted = object.counted(agents)?;
        let packets = u64::from(FEW) * Rounds::<3>::packets();
        ensure!(counted == (packets, 0), "cgroup: {counted:?} passed and dropped");
    }
    let [few, many] = times.map(median);
    Ok(row("cgroup", median(ratios), few, many))
}
