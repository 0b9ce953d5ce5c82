//! Looking at the daemon while it works: every change becomes a line, the present a table.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::agents::Journal;
use super::plan::PARTS;
use super::terminal::{Screen, Tone};
use crate::daemon::Daemon;
use crate::wait;

/// What the daemon said about one agent, and what was said before.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The states in their order, the present one last.
    pub(super) states: Vec<String>,
    /// Its part of the latest status.
    pub(super) status: Value,
    /// Why it was contained.
    pub(super) trip: Option<Value>,
    risk: String,
    bytes_before: u64,
    rate: f64,
}

impl Seen {
    /// The present state.
    pub(super) fn state(&self) -> &str {
        self.states.last().map_or("?", String::as_str)
    }

    /// Packets that the daemon says were dropped of what the agent sent.
    pub(super) fn dropped_outbound(&self) -> u64 {
        self.status["outbound"]["dropped_packets"].as_u64().unwrap_or(0)
    }

    fn dropped(&self) -> u64 {
        self.dropped_outbound() + self.status["inbound"]["dropped_packets"].as_u64().unwrap_or(0)
    }
}

/// Everybody as the daemon sees them.
#[derive(Debug)]
pub(super) struct Watch {
    /// In the order of [`PARTS`].
    pub(super) agents: Vec<Seen>,
    journals: Vec<Journal>,
    looked: Instant,
}

impl Watch {
    pub(super) fn new(journals: &[Journal]) -> Self {
        Self {
            agents: vec![Seen::default(); PARTS.len()],
            journals: journals.to_vec(),
            looked: Instant::now(),
        }
    }

    /// Asks the daemon by its command line, tells what has changed, and draws the rest.
    pub(super) fn look(&mut self, daemon: &Daemon, screen: &mut Screen) -> Result<()> {
        let status = daemon.status()?;
        let passed = std::mem::replace(&mut self.looked, Instant::now()).elapsed().as_secs_f64();
        let all = status["agents"].as_array().context("the status lists no agents")?;
        for (part, seen) in PARTS.iter().zip(&mut self.agents) {
            let agent = all.iter().find(|agent| agent["id"] == part.id);
            seen.status = agent.with_context(|| format!("the status does not know {}", part.id))?.clone();
            let bytes = ["outbound", "inbound"].map(|way| seen.status[way]["bytes"].as_u64().unwrap_or(0));
            let bytes: u64 = bytes.iter().sum();
            seen.rate = bytes.saturating_sub(seen.bytes_before) as f64 / passed.max(0.001);
            seen.bytes_before = bytes;
            tell_state(part.id, seen, daemon, screen)?;
            tell_risk(part.id, seen, screen);
        }
        screen.draw(&self.table(screen));
        Ok(())
    }

    fn table(&self, screen: &Screen) -> Vec<String> {
        let head = format!(
            "  {:<11} {:<9}  {:<18} {:>10} {:>15} {:>8} {:>9}  {}",
            "AGENT", "STATE", "RISK", "TRAFFIC", "SENT IN WINDOW", "UNUSUAL", "DROPPED", "HTTP (last 2 s)"
        );
        let mut lines = vec![String::new(), screen.paint(Tone::Strong, &head)];
        for ((part, seen), journal) in PARTS.iter().zip(&self.agents).zip(&self.journals) {
            lines.push(row(part.id, seen, journal, screen));
        }
        lines
    }
}

fn row(id: &str, seen: &Seen, journal: &Journal, screen: &Screen) -> String {
    let status = &seen.status;
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let state = screen.paint(tone_of(seen.state()), &format!("{:<9}", seen.state()));
    let risk = status["risk"].as_f64().unwrap_or(0.0);
    let filled = (risk * 12.0).round() as usize;
    let bar = format!("{}{}", "█".repeat(filled.min(12)), "░".repeat(12 - filled.min(12)));
    let tone = if risk >= 0.3 { Tone::Bad } else { Tone::Dim };
    let (volume, unusual) =
        (number(&status["signals"]["volume"]), number(&status["signals"]["unusual_endpoints"]));
    let limits = &status["limits"];
    format!(
        "  {id:<11} {state}  {risk:.3} {} {:>10} {:>15} {:>8} {:>9}  {}",
        screen.paint(tone, &bar),
        format!("{}/s", size(seen.rate as u64)),
        format!("{} of {}", megabytes(volume), megabytes(number(&limits["max_volume"]))),
        format!("{unusual} of {}", number(&limits["max_unusual_endpoints"])),
        grouped(seen.dropped()),
        health(journal),
    )
}

fn health(journal: &Journal) -> String {
    let now = Instant::now();
    let samples = journal.between(now.checked_sub(Duration::from_secs(2)).unwrap_or(now), now);
    let failed = samples.iter().filter(|sample| !sample.ok).count();
    match (samples.len(), median(samples.iter().filter(|sample| sample.ok).map(|sample| sample.latency))) {
        (0, _) => "–".to_owned(),
        (_, None) => format!("{failed} failed"),
        (all, Some(latency)) => {
            let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
            format!("{} ok{failures}, {}", all - failed, milliseconds(latency))
        }
    }
}

fn tell_state(id: &str, seen: &mut Seen, daemon: &Daemon, screen: &mut Screen) -> Result<()> {
    let state = seen.status["state"].as_str().unwrap_or("?").to_owned();
    if seen.states.last() == Some(&state) {
        return Ok(());
    }
    let first = seen.states.is_empty();
    seen.states.push(state.clone());
    if first {
        return Ok(());
    }
    let name = screen.paint(tone_of(&state), &state);
    if state != "OPEN" {
        screen.note(&format!("{id:<11} is {name}"));
        return Ok(());
    }
    let why: Value = serde_json::from_str(&daemon.cli_ok(&["explain", id, "--json"])?)?;
    let trip = &why["tripped"];
    let by = format!("tripped by the {}: {}", text(&trip["by"]), text(&trip["reason"]));
    screen.note(&format!("{id:<11} is {name}, {by}"));
    if let Some(risk) = risk_of_trip(id, daemon) {
        screen.note(&format!("{:<11} risk {risk} at that moment", ""));
    }
    if why["packet"].is_object() {
        screen.note(&format!("{:<11} {}", "", packet(&why["packet"])));
    }
    seen.trip = Some(trip.clone());
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn packet(packet: &Value) -> String {
    let with = if packet["direction"] == "inbound" { "from" } else { "to" };
    format!(
        "by {} bytes of {} {with} {} port {}; that packet and all after it are dropped",
        packet["bytes"],
        text(&packet["protocol"]),
        text(&packet["remote"]),
        packet["remote_port"],
    )
}

/// What the kernel's trip record says of the score, from the daemon's event: by the time anybody can ask for the
/// status, the window of the next epoch has begun and is empty.
fn risk_of_trip(id: &str, daemon: &Daemon) -> Option<String> {
    let find = || {
        let events = daemon.events().ok()?;
        let is_trip = |event: &&Value| event["agent_id"] == id && event["event_data"]["trip_seq"].is_number();
        let data = &events.iter().rev().find(is_trip)?["event_data"];
        Some(sum(data["risk"].as_f64()?, &data["contributions"]))
    };
    // The kernel is faster than the disk. A demo that tells less is not a failure.
    wait::until("the trip's event", Duration::from_secs(1), find).ok()
}

/// `0.700 = volume 0.4 + endpoints 0.3`.
fn sum(risk: f64, terms: &Value) -> String {
    let terms = terms.as_object().into_iter().flatten();
    let terms =
        terms.filter_map(|(name, value)| value.as_f64().filter(|value| *value > 0.0).map(|_| (name, value)));
    let terms: Vec<_> = terms.map(|(name, value)| format!("{name} {value}")).collect();
    if terms.is_empty() { format!("{risk:.3}") } else { format!("{risk:.3} = {}", terms.join(" + ")) }
}

fn tell_risk(id: &str, seen: &mut Seen, screen: &mut Screen) {
    let risk = sum(seen.status["risk"].as_f64().unwrap_or(0.0), &seen.status["contributions"]);
    if seen.risk != risk {
        // Nobody needs to be told that it begins at nothing, or that a new epoch does.
        if !risk.starts_with("0.000") {
            screen.note(&format!("{id:<11} risk {risk}"));
        }
        seen.risk = risk;
    }
}

fn tone_of(state: &str) -> Tone {
    match state {
        "CLOSED" => Tone::Good,
        "HALF_OPEN" => Tone::Warning,
        _ => Tone::Bad,
    }
}

/// The middle of some latencies.
pub(super) fn median(latencies: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut latencies: Vec<_> = latencies.collect();
    latencies.sort_unstable();
    latencies.get(latencies.len() / 2).copied()
}

/// `0.41 ms`.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// `23.9 MB`, for columns in which everything is that large.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// With the unit that suits.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => megabytes(bytes),
    }
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
