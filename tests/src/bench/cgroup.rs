//! What the programs of cgroups take: everybody's packets cross them, an agent's or not.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use agentsec_common::agent::{Identity, Scope};
use agentsec_common::maps::{IDENTITY_CGROUP, PROGRAM_CGROUP_OUTBOUND, SCOPE};
use agentsec_common::policy::State;
use anyhow::{Result, ensure};
use aya::maps::{Array, HashMap};

use super::Options;
use super::object::{Expected, Object};
use super::row::Row;
use super::setup::{config, wait_until_attached};
use super::statistics::median;
use super::timing::{Rounds, Subject, alternate};
use super::visit::Visitor;
use super::yardstick::{self, By, Layer};
use crate::cgroup::Cgroup;
use crate::daemon::Daemon;
use crate::link::ip;
use crate::netns::Namespace;
use crate::traffic::frames::{self, Path};
use crate::traffic::udp::{self, UdpPlan, UdpReceiver};

/// Cgroups of agents, and keys of the hash that stands for one look-up.
const AGENTS: u32 = 1024;
const LOOK_UPS_TARGET: f64 = 3.0;
const CLOSED_TARGET: f64 = 2.5;
const LIVE_ROUNDS: usize = 21;
const FLOOD: Duration = Duration::from_millis(300);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);

/// Measures.
pub(super) fn run(_: &Options) -> Result<Vec<Row>> {
    let outer = Cgroup::new("outer")?;
    let middle = outer.child("middle")?;
    let inner = middle.child("inner")?;
    // Declared after the cgroups, so that it leaves them before they are removed.
    let visitor = Visitor::new()?;
    visitor.go(&inner)?;
    let mut rows = vec![others(1)?, others(3)?];
    for (what, state, target) in [
        ("an agent's packet, CLOSED, one established flow", State::Closed, Some(CLOSED_TARGET)),
        ("an agent's packet, OPEN", State::Open, None),
    ] {
        rows.push(agents(what, state, target, outer.id())?);
    }
    drop(visitor);
    rows.push(live()?);
    Ok(rows)
}

/// A segment of an established connection, with the Ethernet header that the kernel takes off again.
fn segment() -> Vec<u8> {
    const ACK: u8 = 1 << 4;
    let path = Path { from: [2, 0, 0, 0, 0, 1], to: [2, 0, 0, 0, 0, 2] };
    path.frame(frames::IPV4, &frames::tcp4((ADDRESS, 40_000), (REMOTE, 443), ACK, &[0x5a; 100]))
}

/// The programs with agents at the outermost `levels` of the tree, 1,024 at each.
fn loaded(levels: u32, state: State) -> Result<Object> {
    let mut object = Object::open(agentsec::kernel::OBJECT, &[PROGRAM_CGROUP_OUTBOUND], &[])?;
    object.appoint(0..AGENTS, state, Expected::Everything)?;
    let cgroup_levels = (1..=levels).map(|level| 1 << level).sum();
    let mut scope: Array<_, Scope> = object.map(SCOPE)?.try_into()?;
    scope.set(0, Scope { cgroup_levels, prefixes: 0, covered: 0, generation: 0 }, 0)?;
    let mut identity: HashMap<_, u64, u64> = object.map(IDENTITY_CGROUP)?.try_into()?;
    for level in 1..=levels {
        for slot in 0..AGENTS {
            // Far above the ids of cgroups that there are.
            let id = u64::from(level) << 40 | u64::from(slot);
            identity.insert(id, Identity::of(slot).to_word_at(level), 0)?;
        }
    }
    Ok(object)
}

/// What our program takes for a packet of a cgroup that is nobody's, in look-ups.
fn others(levels: u32) -> Result<Row> {
    let object = loaded(levels, State::Closed)?;
    let (empty, look_up) = (yardstick::empty(Layer::Packet)?, yardstick::one_look_up(Layer::Packet, AGENTS)?);
    let frame = segment();
    let subject = |program| Subject { program, frame: &frame, verdict: Layer::Packet.next() };
    let ours = object.program(PROGRAM_CGROUP_OUTBOUND)?;
    let rounds = alternate([subject(ours), subject(empty.as_fd()), subject(look_up.as_fd())])?;
    let ratio = rounds.of(|[ours, empty, look_up]| (ours - empty) / (look_up - empty));
    let measured = format!(
        "{ratio:.2} look-ups' time in a burst, whose answer is remembered on its CPU; the first packet makes \
         {levels}, one for each level that has agents, since an agent's cgroup may be any ancestor of the packet's \
         ({:.0} ns, a look-up in 1,024 entries {:.0} ns)",
        rounds.of(|[ours, empty, _]| ours - empty),
        rounds.of(|[_, empty, look_up]| look_up - empty),
    );
    let name = if levels == 1 { "one level".to_owned() } else { format!("{levels} levels") };
    let what = format!("other cgroups' packets, agents at {name} of the tree");
    Ok(match levels {
        1 => Row::at_most("cgroup", what, measured, ratio, LOOK_UPS_TARGET, " look-ups"),
        _ => Row::information("cgroup", what, measured),
    })
}

/// What our program takes for a packet of an agent, beside the minimal program.
fn agents(what: &str, state: State, target: Option<f64>, cgroup: u64) -> Result<Row> {
    let mut object = loaded(1, state)?;
    let mut identity: HashMap<_, u64, u64> = object.map(IDENTITY_CGROUP)?.try_into()?;
    identity.insert(cgroup, Identity::of(0).to_word_at(1), 0)?;
    let minimal = yardstick::minimal(Layer::Packet, By::Source, &[ADDRESS])?;
    let empty = yardstick::empty(Layer::Packet)?;
    let frame = segment();
    let subject = |program, verdict| Subject { program, frame: &frame, verdict };
    let (next, shot) = (Layer::Packet.next(), Layer::Packet.shot());
    let ours = object.program(PROGRAM_CGROUP_OUTBOUND)?;
    let rounds = alternate([
        subject(ours, if state == State::Open { shot } else { next }),
        subject(minimal.as_fd(), shot),
        subject(empty.as_fd(), next),
    ])?;
    let (passed, dropped) = object.counted(1)?;
    let packets = Rounds::<3>::packets();
    let expected = if state == State::Open { (0, packets) } else { (packets, 0) };
    ensure!((passed, dropped) == expected, "{what}: {passed} passed, {dropped} dropped");
    if state == State::Closed {
        object.ensure_untripped(1)?;
    }
    let ratio = rounds.of(|[ours, minimal, _]| ours / minimal);
    let measured = format!(
        "{ratio:.2}× the minimal program; {:.2}× net of the loop ({:.0} ns against {:.0} ns, the loop {:.0} ns)",
        rounds.of(|[ours, minimal, empty]| (ours - empty) / (minimal - empty)),
        rounds.of(|[ours, _, empty]| ours - empty),
        rounds.of(|[_, minimal, empty]| minimal - empty),
        rounds.of(|[_, _, empty]| *empty),
    );
    Ok(match target {
        Some(target) => Row::at_most("cgroup", what, measured, ratio, target, "×"),
        None => Row::information("cgroup", what, measured),
    })
}

/// Datagrams over loopback from and to sockets of a cgroup that is no agent's, below the programs and beside them.
fn live() -> Result<Row> {
    let namespace = Namespace::new("cgroup")?;
    ip(&namespace, "link set lo up")?;
    let below = Cgroup::new("below")?;
    let (agent, nobody, beside) = (below.child("agent")?, below.child("nobody")?, Cgroup::new("beside")?);
    let config = config(0).set("daemon.cgroup_root", below.path()).set("agents.one.cgroup", agent.path());
    let daemon = Daemon::start(&namespace, &config.set("agents.one.profile", "bench"))?;
    wait_until_attached(&daemon, 1)?;
    let visitor = Visitor::new()?;
    let (mut crossed, mut bare) = (Vec::new(), Vec::new());
    for round in 0..LIVE_ROUNDS {
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for ours in order {
            visitor.go(if ours { &nobody } else { &beside })?;
            let rate = flood(&namespace)?;
            if ours { crossed.push(rate) } else { bare.push(rate) }
        }
    }
    let ratio = median(crossed.iter().zip(&bare).map(|(crossed, bare)| crossed / bare));
    let measured = format!(
        "{:.1} % of the rate without programs ({:.0} against {:.0} kpps, each sent and received)",
        ratio * 100.0,
        median(crossed) / 1e3,
        median(bare) / 1e3
    );
    Ok(Row::information("cgroup", "UDP over loopback in a cgroup that is nobody's", measured))
}

/// Datagrams a second that one socket sends to another; both belong to the cgroup that this process is in.
fn flood(namespace: &Namespace) -> Result<f64> {
    let receiver = UdpReceiver::start(namespace, (Ipv4Addr::LOCALHOST, 0), FLOOD * 10)?;
    let plan = UdpPlan { datagrams: u64::MAX, payload_bytes: 18, interval: Duration::ZERO, longest: FLOOD };
    let start = Instant::now();
    let sent = udp::flood(namespace, receiver.address(), plan)?.wait();
    let elapsed = start.elapsed();
    let received = receiver.stop().datagrams;
    ensure!(received > 0, "nothing arrived");
    Ok(sent.datagrams as f64 / elapsed.as_secs_f64())
}
