//! What a scan by one agent does to another agent's list and to the daemon.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::resident_mib;
use crate::bench::row::Row;
use crate::bench::setup::{PATIENCE, agent, config, wait_until_attached};
use crate::daemon::{Config, Daemon};
use crate::lab::Lab;
use crate::traffic::sweep::{Knock, sweep, targets};

const SCANNED: u32 = 100_000;
/// Addresses in a scan; each is scanned on several ports.
const ADDRESSES: u32 = 50_000;
const MEMORY_TARGET: f64 = 20.0;
/// What an agent's list holds unless its profile says otherwise.
const USUAL_CAP: u64 = 4096;
/// As many as the map holds unless the daemon's configuration says otherwise.
const WHOLE_MAP: u32 = 65_536;

/// Measures.
pub(super) fn rows() -> Result<Vec<Row>> {
    let mut rows = usual()?;
    rows.extend(whole_map()?);
    Ok(rows)
}

/// With the usual cap: the other agent keeps its list, what does not fit is counted, the daemon stays small.
fn usual() -> Result<Vec<Row>> {
    let lab = Lab::routed(2)?;
    let daemon = start(&lab, config(2))?;
    let resident = || resident_mib(daemon.pid().context("the daemon has ended")?);
    scan(&lab, 1, 16)?;
    let before = list(&daemon, 1)?;
    ensure!(before.len() == 16, "the other agent has {} endpoints instead of 16", before.len());
    let sent = scan(&lab, 0, SCANNED)?;
    let overflow = daemon.agent(&agent(0))?["endpoints"]["overflow"].as_u64().context("no overflow")?;
    let listed = list(&daemon, 0)?.len() as u64;
    let after_listing = resident()?;
    // More than one look at all endpoints while a list is full.
    std::thread::sleep(Duration::from_secs(12));
    let changed = usize::from(list(&daemon, 1)? != before);
    ensure!(listed <= USUAL_CAP, "a list of {listed} endpoints");
    let lost = sent.saturating_sub(listed + overflow) as f64;
    let what = "a scan of 100,000 endpoints: the other agent's list has changed";
    let changed =
        Row::at_most("scale", what, if changed == 0 { "no" } else { "yes" }, changed as f64, 0.0, "");
    let measured = format!("{lost} ({listed} in the list, {overflow} counted as overflow)");
    let what = "endpoints scanned, neither listed nor counted";
    let uncounted = Row::at_most("scale", what, measured, lost, 0.0, "");
    Ok(vec![
        changed,
        uncounted,
        memory("right after the scan and its list", after_listing),
        memory("after ageing with a full list", resident()?),
    ])
}

/// With one agent that may fill the whole map: how long its list takes, and what is left of it in memory.
fn whole_map() -> Result<Vec<Row>> {
    let lab = Lab::routed(2)?;
    let config = config(2)
        .set("profiles.bench.window", "1s")
        .set("profiles.bench.max_endpoints", i64::from(WHOLE_MAP));
    let daemon = start(&lab, config)?;
    let resident = || resident_mib(daemon.pid().context("the daemon has ended")?);
    scan(&lab, 0, SCANNED)?;
    let start = Instant::now();
    let listed = list(&daemon, 0)?.len();
    let listing = start.elapsed();
    let after_listing = resident()?;
    daemon.wait_until("what the scan left is forgotten", PATIENCE, |status| {
        status["agents"][0]["endpoints"]["opened"].as_u64() == Some(0)
    })?;
    let measured = format!(
        "{:.2} s, by the command, JSON and all; {after_listing:.1} MiB right after it",
        listing.as_secs_f64()
    );
    Ok(vec![
        Row::information("scale", format!("listing {listed} endpoints of one agent"), measured),
        Row::information(
            "scale",
            "its memory after that map was aged away",
            format!("{:.1} MiB", resident()?),
        ),
    ])
}

fn memory(when: &str, mib: f64) -> Row {
    let what = format!("the daemon's memory {when}");
    Row::at_most("scale", what, format!("{mib:.1} MiB"), mib, MEMORY_TARGET, " MiB")
}

fn start(lab: &Lab, config: Config) -> Result<Daemon> {
    let daemon = Daemon::start(lab.host(), &config)?;
    wait_until_attached(&daemon, 2)?;
    Ok(daemon)
}

/// One datagram to each of so many endpoints; how many were sent.
fn scan(lab: &Lab, index: usize, endpoints: u32) -> Result<u64> {
    let addresses = (0..endpoints.min(ADDRESSES)).map(|number| IpAddr::V4(lab.crowd_v4(number as u16)));
    let ports: Vec<u16> = (0..endpoints.div_ceil(ADDRESSES)).map(|port| 2000 + port as u16).collect();
    let knock = Knock::Udp(8);
    let report = sweep(&lab.agent(index).namespace, targets(addresses, &ports), knock, 2, PATIENCE)?.wait();
    ensure!(report.through == u64::from(endpoints), "not all of the scan was sent: {report:?}");
    Ok(report.through)
}

/// An agent's endpoints without their ages, which are told to the millisecond and rounded anew each time, in an order
/// of their own.
fn list(daemon: &Daemon, index: usize) -> Result<Vec<String>> {
    let text = daemon.cli_ok(&["endpoints", &agent(index), "--json"])?;
    let mut list: Value = serde_json::from_str(&text).context("the list is not JSON")?;
    let list = list["endpoints"].as_array_mut().context("no list of endpoints")?;
    for endpoint in &mut *list {
        let endpoint = endpoint.as_object_mut().context("an endpoint that is no object")?;
        for age in ["first_seen", "last_seen"] {
            endpoint.remove(age).with_context(|| format!("an endpoint without {age}"))?;
        }
    }
    let mut lines: Vec<_> = list.iter().map(Value::to_string).collect();
    lines.sort_unstable();
    Ok(lines)
}
