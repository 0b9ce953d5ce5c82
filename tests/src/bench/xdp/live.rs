//! How many live frames a second are dropped, on equal veths.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::filter::{Filter, attached};
use super::{addresses, frame};
use crate::bench::bpf;
use crate::bench::row::Row;
use crate::bench::setup::wait_until_attached;
use crate::bench::statistics::median;
use crate::daemon::{Config, Daemon};
use crate::link::{End, Noise, prepare, veth_pairs};
use crate::netns::Namespace;

const ROUNDS: usize = 21;
const FRAMES: u32 = 400_000;
const TARGET: f64 = 0.95;
/// Ends of the links in the host, and what is on them.
const OURS: &str = "ours";
const THEIRS: &str = "theirs";

/// Measures: the daemon's program on one link, `xdp-filter` on an equal one.
pub(super) fn run() -> Result<Row> {
    let (host, wire) = (Namespace::new("host")?, Namespace::new("wire")?);
    for namespace in [&host, &wire] {
        prepare(namespace, Noise::Quiet)?;
    }
    let end = |namespace, name: &str, last| End {
        namespace,
        name: name.to_owned(),
        mac: [2, 0, 0, 0, 0, last],
        addresses: Vec::new(),
        noise: Noise::Quiet,
    };
    veth_pairs(&[
        (end(&host, OURS, 1), end(&wire, OURS, 2)),
        (end(&host, THEIRS, 1), end(&wire, THEIRS, 2)),
    ])?;
    let filter = Filter::load(&host, THEIRS)?;
    filter.block(&addresses())?;
    let _daemon = contain(&host)?;
    ensure!(attached(&host, OURS)?.is_some(), "the daemon has attached no native XDP program");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let order = if round % 2 == 0 { [OURS, THEIRS] } else { [THEIRS, OURS] };
        for interface in order {
            let rate = flood(&host, &wire, interface)?;
            // The first round warms up.
            match interface {
                _ if round == 0 => {}
                OURS => ours.push(rate),
                _ => theirs.push(rate),
            }
        }
    }
    let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs));
    let measured = format!(
        "{ratio:.2}× xdp-filter, native ({:.0} kpps against {:.0} kpps)",
        median(ours) / 1e3,
        median(theirs) / 1e3
    );
    let what = "live frames of an OPEN address agent, 1,024 addresses";
    Ok(Row::at_least("xdp", what, measured, ratio, TARGET, "×"))
}

/// A daemon with one agent that has all the addresses and is quarantined.
fn contain(host: &Namespace) -> Result<Daemon> {
    let addresses: Vec<_> = addresses().iter().map(Ipv4Addr::to_string).collect();
    let config = Config::new()
        .set("agents.boxes.address", addresses)
        .set("agents.boxes.link", OURS)
        .set("agents.boxes.datapath", "xdp");
    let daemon = Daemon::start(host, &config)?;
    wait_until_attached(&daemon, 1)?;
    daemon.cli_ok(&["quarantine", "boxes", "--reason", "bench"])?;
    Ok(daemon)
}

/// Frames a second that the program at the other end drops, as its interface counts them.
fn flood(host: &Namespace, wire: &Namespace, interface: &str) -> Result<f64> {
    let before = drops(host, interface)?;
    let seconds = wire.run(|| -> Result<f64> {
        // One CPU for sender and receiver in every round; the other is for whoever else there is.
        let mut cpu = CpuSet::new();
        cpu.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &cpu).context("staying on one CPU")?;
        let sender = bpf::sender(if_nametoindex(interface)?)?;
        let start = Instant::now();
        bpf::live_run(&sender, &frame(), FRAMES)?;
        Ok(start.elapsed().as_secs_f64())
    })?;
    let dropped = drops(host, interface)? - before;
    ensure!(dropped <= u64::from(FRAMES), "more was dropped than sent");
    ensure!(dropped > u64::from(FRAMES) / 2, "only {dropped} of {FRAMES} frames were dropped on {interface}");
    Ok(dropped as f64 / seconds)
}

/// Frames that an interface's XDP program has dropped, as its driver says.
fn drops(host: &Namespace, interface: &str) -> Result<u64> {
    let output = host.command("ethtool").args(["--statistics", interface]).output();
    let output = output.context("starting ethtool (is it installed?)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    xdp_drops(&text).with_context(|| format!("ethtool tells no drops of {interface}: {text}"))
}

/// Over all queues; `None` when there is none.
fn xdp_drops(statistics: &str) -> Option<u64> {
    let counts = statistics.lines().filter_map(|line| {
        let (name, count) = line.trim().split_once(": ")?;
        (name.starts_with("rx_queue_") && name.ends_with("_xdp_drops")).then(|| count.parse::<u64>().ok())?
    });
    counts.reduce(|sum, count| sum + count)
}

#[cfg(test)]
mod tests {
    use super::xdp_drops;

    #[test]
    fn drops_by_programs_are_summed_and_no_others() {
        let text = "NIC statistics:\n     rx_queue_0_drops: 1\n     rx_queue_0_xdp_drops: 20\n     \
                    rx_queue_1_xdp_drops: 300\n     tx_queue_0_xdp_xmit: 4000\n";
        assert_eq!(xdp_drops(text), Some(320));
        assert_eq!(xdp_drops("no stats available"), None);
    }
}
