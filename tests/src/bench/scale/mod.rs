//! What a thousand agents cost the daemon, what 65,536 cost a packet, and what a scan does.

mod crowd;
mod scan;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};

use super::Options;
use super::row::Row;
use super::setup::{PATIENCE, wait_until_attached};
use crate::daemon::{Config, Daemon, Launch};
use crate::lab::Lab;
use crate::traffic::frames::{self, Path};
use crate::traffic::packet::{PacketSocket, Way};

const AGENTS: usize = 1000;
const ENDPOINTS_PER_AGENT: u16 = 16;
/// Long enough that the clock of the CPU time, in hundredths of a second, resolves a thousandth of a core.
const WATCH: Duration = Duration::from_secs(20);

/// Measures.
pub(super) fn run(_: &Options) -> Result<Vec<Row>> {
    let mut rows = thousand()?;
    rows.extend(crowd::rows()?);
    rows.extend(scan::rows()?);
    Ok(rows)
}

fn thousand() -> Result<Vec<Row>> {
    let lab = Lab::many(AGENTS)?;
    let config = Config::new()
        .set("breaker.auto_probe", false)
        .set("profiles.bench.typical", vec!["any"])
        .agent("many", "agent-*")
        .of_agent("profile", "bench");
    let mut daemon = Launch::new(lab.host(), &config).ready_within(PATIENCE).prepare()?;
    let attaching = until_attached(&mut daemon)?;
    talk(&lab)?;
    let pid = daemon.pid().context("the daemon has ended")?;
    let busy = watch(pid)?;
    let resident = resident_mib(pid)?;
    daemon.kill9()?;
    let taking_over = until_attached(&mut daemon)?;
    Ok(vec![
        Row::at_most(
            "scale",
            "CPU of the daemon with 1,000 agents and 16,000 endpoints, default interval",
            format!("{busy:.2} % of a core"),
            busy,
            5.0,
            " %",
        ),
        Row::at_most("scale", "its memory", format!("{resident:.0} MiB"), resident, 150.0, " MiB"),
        seconds("attaching 1,000 agents, from its start", attaching),
        seconds("taking over 1,000 agents after kill -9, from its start", taking_over),
    ])
}

/// "Seconds" is less than ten of them.
fn seconds(what: &str, time: Duration) -> Row {
    let seconds = time.as_secs_f64();
    Row::at_most("scale", what, format!("{seconds:.2} s"), seconds, 10.0, " s")
}

fn until_attached(daemon: &mut Daemon) -> Result<Duration> {
    let start = Instant::now();
    daemon.begin()?;
    daemon.wait_ready()?;
    wait_until_attached(daemon, AGENTS)?;
    Ok(start.elapsed())
}

/// Every agent sends one datagram to each of its endpoints.
fn talk(lab: &Lab) -> Result<()> {
    for (index, agent) in lab.agents().iter().enumerate() {
        let socket = PacketSocket::open(&agent.namespace, &agent.interface, Way::TrafficControl)?;
        let path = Path { from: agent.mac, to: agent.host_mac };
        for endpoint in 0..ENDPOINTS_PER_AGENT {
            let to = lab.crowd_v4((index as u16).wrapping_mul(ENDPOINTS_PER_AGENT).wrapping_add(endpoint));
            socket.send(&path.frame(frames::IPV4, &frames::udp4((agent.v4, 1000), (to, 2000), b"hello")))?;
        }
    }
    Ok(())
}

/// Per cent of a core that the process uses.
fn watch(pid: u32) -> Result<f64> {
    let start = Instant::now();
    let before = cpu_seconds(pid)?;
    std::thread::sleep(WATCH);
    Ok((cpu_seconds(pid)? - before) / start.elapsed().as_secs_f64() * 100.0)
}

/// User and system time of a process so far.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("reading the daemon's CPU time")?;
    // The name before it may contain anything, and ends with the last parenthesis.
    let fields: Vec<_> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    ensure!(fields.len() > 12, "too few fields in {stat:?}");
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let hertz = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(ticks as f64 / hertz as f64)
}

fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("reading the daemon's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
