//! What an interface itself says it received and sent.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::netns::Namespace;
use crate::wait::patient;

/// An interface's counters, the ones that `ip -s link` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received, layer-2 header included.
    pub rx_bytes: u64,
    /// Packets received; a GSO super-packet is one.
    pub rx_packets: u64,
    /// Packets that arrived and were not taken.
    pub rx_dropped: u64,
    /// Bytes sent, layer-2 header included.
    pub tx_bytes: u64,
    /// Packets sent; a GSO super-packet is one.
    pub tx_packets: u64,
    /// Packets that should have been sent and were not.
    pub tx_dropped: u64,
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            rx_packets: self.rx_packets - earlier.rx_packets,
            rx_dropped: self.rx_dropped - earlier.rx_dropped,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
            tx_packets: self.tx_packets - earlier.tx_packets,
            tx_dropped: self.tx_dropped - earlier.tx_dropped,
        }
    }
}

/// The counters of one interface of `namespace`.
pub fn counters(namespace: &Namespace, interface: &str) -> Result<Counters> {
    let all = counters_of_all(namespace)?;
    all.get(interface).copied().with_context(|| format!("{} has no {interface}", namespace.name()))
}

/// The counters of all interfaces of `namespace`, read at once.
pub fn counters_of_all(namespace: &Namespace) -> Result<BTreeMap<String, Counters>> {
    // sysfs shows the namespace of whoever mounted it; this file shows the reading thread's.
    let text = namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let text = text.context("reading interface counters")?;
    text.lines().skip(2).map(parse_line).collect()
}

/// Waits until no interface of any of these namespaces has counted anything for `quiet`.
///
/// What the kernel says on its own behalf when an interface comes up (multicast reports above all) is over then.
pub fn settle(namespaces: &[&Namespace], quiet: Duration) -> Result<()> {
    let read = || namespaces.iter().map(|ns| counters_of_all(ns)).collect::<Result<Vec<_>>>();
    let start = Instant::now();
    let (mut last, mut since) = (read()?, Instant::now());
    while since.elapsed() < quiet {
        if start.elapsed() > quiet + patient(Duration::from_secs(10)) {
            bail!("interfaces did not come to rest for {quiet:?}");
        }
        std::thread::sleep(quiet / 8);
        let now = read()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

fn parse_line(line: &str) -> Result<(String, Counters)> {
    let (name, numbers) = line.split_once(':').with_context(|| format!("no name in {line:?}"))?;
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("not a number in {line:?}"))?;
    let &[rx_bytes, rx_packets, _, rx_dropped, _, _, _, _, tx_bytes, tx_packets, _, tx_dropped, ..] =
        numbers.as_slice()
    else {
        bail!("too few columns in {line:?}");
    };
    let counters = Counters { rx_bytes, rx_packets, rx_dropped, tx_bytes, tx_packets, tx_dropped };
    Ok((name.trim().to_owned(), counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_in_their_order() {
        let (name, counters) = parse_line(" eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16").unwrap();
        assert_eq!(name, "eth0");
        let want = Counters {
            rx_bytes: 1,
            rx_packets: 2,
            rx_dropped: 4,
            tx_bytes: 9,
            tx_packets: 10,
            tx_dropped: 12,
        };
        assert_eq!(counters, want);
    }
}
