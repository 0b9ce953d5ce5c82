//! How fast an OPEN agent's flood is dropped, beside the packet filter that an operator would reach for.

use std::fmt::Write;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Options;
use super::row::Row;
use super::setup::{agent, config, wait_until_attached};
use super::statistics::median;
use crate::daemon::Daemon;
use crate::lab::{Lab, Node};
use crate::netns::Namespace;
use crate::traffic::udp::{self, UdpPlan};

const ROUNDS: usize = 9;
const FLOOD: Duration = Duration::from_secs(1);
const SET_ENTRIES: u32 = 1024;

/// Measures: one agent behind our programs, a second behind nftables, a third without a way on; all else is equal.
pub(super) fn run(_: &Options) -> Result<Vec<Row>> {
    let lab = Lab::routed(2)?;
    let daemon = Daemon::start(lab.host(), &config(1))?;
    wait_until_attached(&daemon, 1)?;
    daemon.cli_ok(&["quarantine", &agent(0), "--reason", "bench"])?;
    filter(lab.host(), &lab.agent(1).host_interface, lab.agent(1).v4)?;
    let world = lab.world().counters()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Each goes first in turn.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            let rate = flood(&lab, lab.agent(index))?;
            if index == 0 { ours.push(rate) } else { theirs.push(rate) }
        }
    }
    ensure!(lab.world().counters()? == world, "something passed");
    let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs));
    let measured = format!(
        "{ratio:.2}× nftables' netdev ingress set ({:.0} kpps against {:.0} kpps)",
        median(ours) / 1e3,
        median(theirs) / 1e3
    );
    let what = "a UDP flood from an OPEN agent's sockets";
    Ok(vec![Row::at_least("drop", what, measured, ratio, 1.0, "×")])
}

/// Datagrams a second that the sender gets rid of: each is dropped before its system call comes to the next.
fn flood(lab: &Lab, agent: &Node) -> Result<f64> {
    let plan = UdpPlan { datagrams: u64::MAX, payload_bytes: 18, interval: Duration::ZERO, longest: FLOOD };
    let start = Instant::now();
    let sent = udp::flood(&agent.namespace, (lab.world().v4, 9).into(), plan)?.wait();
    Ok(sent.datagrams as f64 / start.elapsed().as_secs_f64())
}

/// `nft` drops what comes from any of 1,024 addresses, the agent's among them.
fn filter(host: &Namespace, interface: &str, address: Ipv4Addr) -> Result<()> {
    let mut elements = address.to_string();
    for index in 1..SET_ENTRIES {
        write!(elements, ",{}", Ipv4Addr::from(0x0a63_0000 + index))?;
    }
    let rules = format!(
        "table netdev bench {{\n\
         set contained {{ type ipv4_addr; elements = {{ {elements} }}; }}\n\
         chain ingress {{ type filter hook ingress device \"{interface}\" priority 0;\n\
         ip saddr @contained drop; }}\n}}\n"
    );
    let mut child = host
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting nft (is nftables installed?)")?;
    child.stdin.take().context("a pipe")?.write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("nft refuses: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
