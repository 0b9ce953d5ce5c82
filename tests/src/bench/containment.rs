//! What an agent gets out that exfiltrates at full speed, told by the far sides of its link and of the world's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Options;
use super::row::Row;
use super::setup::{PATIENCE, agent, config, cpus, wait_until_attached};
use crate::daemon::Daemon;
use crate::lab::{Lab, Node};
use crate::link::{self, Counters};
use crate::traffic::tcp::{self, TcpPlan, TcpSink};
use crate::traffic::udp::{self, UdpPlan, UdpReceiver};

/// What the profile lets pass in a window, both directions together.
const LIMIT_BYTES: u64 = 8_000_000;
/// Every flow goes on for so long, whether anything passes or not: the trip comes within a fraction of it.
const ATTACK: Duration = Duration::from_millis(1500);
const TCP_FLOWS: usize = 4;
/// One for each of two CPUs, since a sender's packets are judged on its own.
const UDP_FLOODS: usize = 2;
const DATAGRAM_BYTES: usize = 1000;
/// The largest frame on a link without super-packets.
const LARGEST_FRAME: u64 = 1514;

/// Measures: one agent each while the daemon runs, is stopped, and is dead.
pub(super) fn run(_: &Options) -> Result<Vec<Row>> {
    let lab = Lab::routed(3)?;
    let config = config(3).set("profiles.bench.limits.max_volume", format!("{LIMIT_BYTES}B"));
    let mut daemon = Daemon::start(lab.host(), &config)?;
    wait_until_attached(&daemon, 3)?;
    let running = attack(&lab, lab.agent(0))?;
    daemon.wait_for_state(&agent(0), "OPEN", PATIENCE)?;
    daemon.stop()?;
    let stopped = attack(&lab, lab.agent(1))?;
    daemon.kill9()?;
    let killed = attack(&lab, lab.agent(2))?;
    let mut rows = Vec::new();
    for (daemon, outcome) in [("running", running), ("stopped", stopped), ("killed", killed)] {
        rows.extend(outcome.rows(daemon)?);
    }
    Ok(rows)
}

/// What crossed, and what was tried.
#[derive(Debug)]
struct Outcome {
    passed_bytes: u64,
    sent_datagrams: u64,
    after_trip: u64,
}

/// Four TCP flows and two floods of numbered datagrams at once.
fn attack(lab: &Lab, agent: &Node) -> Result<Outcome> {
    let world = lab.world();
    let before = passed(lab, agent)?;
    let sink = TcpSink::start(&world.namespace, (world.v4, 0), PATIENCE)?;
    let receivers: Vec<_> = (0..UDP_FLOODS)
        .map(|_| UdpReceiver::start(&world.namespace, (world.v4, 0), PATIENCE))
        .collect::<Result<_>>()?;
    let plan = UdpPlan {
        datagrams: u64::MAX,
        payload_bytes: DATAGRAM_BYTES,
        interval: Duration::ZERO,
        longest: ATTACK,
    };
    let stream =
        TcpPlan { flows: TCP_FLOWS, bytes_per_flow: u64::MAX, connect_timeout: ATTACK, longest: ATTACK };
    let streams = tcp::send(&agent.namespace, sink.address(), stream)?;
    let floods: Vec<_> = receivers
        .iter()
        .map(|receiver| udp::numbered(&agent.namespace, receiver.address(), plan))
        .collect::<Result<_>>()?;
    let (mut sent_datagrams, mut after_trip) = (0, 0);
    streams.wait();
    for (flood, receiver) in floods.into_iter().zip(receivers) {
        let sent = flood.wait().datagrams;
        let received = receiver.stop();
        // The flood's own datagrams are judged in their order: the first that is missing met an OPEN circuit.
        let first_missing = (0..sent).find(|number| !received.numbers.contains(number));
        let first_missing = first_missing.context("a flood passed whole: nothing was contained")?;
        after_trip += received.numbers.range(first_missing..).count() as u64;
        sent_datagrams += sent;
    }
    drop(sink);
    let passed_bytes = passed(lab, agent)? - before;
    Ok(Outcome { passed_bytes, sent_datagrams, after_trip })
}

/// Bytes on the far sides of the hooks: what the world received from this only talking agent, and what the agent
/// received itself.
fn passed(lab: &Lab, agent: &Node) -> Result<u64> {
    let Counters { rx_bytes: outbound, .. } = lab.world().counters()?;
    let Counters { rx_bytes: inbound, .. } = link::counters(&agent.namespace, &agent.interface)?;
    Ok(outbound + inbound)
}

impl Outcome {
    fn rows(&self, daemon: &str) -> Result<[Row; 2]> {
        let least = LIMIT_BYTES - (cpus()? + 1) * LARGEST_FRAME;
        ensure!(self.passed_bytes >= least, "the limit was never reached: {self:?} with the daemon {daemon}");
        ensure!(self.sent_datagrams * DATAGRAM_BYTES as u64 > LIMIT_BYTES, "too little was tried: {self:?}");
        let over = self.passed_bytes.saturating_sub(LIMIT_BYTES);
        let tried = self.sent_datagrams;
        let measured = format!(
            "{over} ({} of {LIMIT_BYTES} passed; the floods alone sent {tried} datagrams)",
            self.passed_bytes
        );
        let what = format!("bytes over the limit, daemon {daemon}");
        let over = Row::at_most("containment", what, measured, over as f64, 0.0, " B");
        let after = format!("{} of {tried} numbered datagrams", self.after_trip);
        let what = format!("packets seen after the trip, daemon {daemon}");
        let most = (cpus()? - 1) as f64;
        Ok([over, Row::at_most("containment", what, after, self.after_trip as f64, most, "")])
    }
}
