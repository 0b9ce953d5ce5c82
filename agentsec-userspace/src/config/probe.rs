//! `[profiles.NAME.probe]`: how much an agent on probation may do.

use super::section::Section;

/// Most bytes of one packet: a super-packet that the hardware splits.
const SUPER_PACKET_BYTES: u64 = 65_536;

/// Bounds while HALF_OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// Violations that open the circuit again.
    pub violations: u32,
    /// Bytes a second.
    pub rate_bytes: u64,
    /// Bytes at once, after a pause.
    pub burst_bytes: u64,
    /// Bytes that a packet is charged at least.
    pub min_charge_bytes: u64,
}

impl Default for Probe {
    fn default() -> Self {
        Self { violations: 1, rate_bytes: 64_000, burst_bytes: 256_000, min_charge_bytes: 256 }
    }
}

pub(super) fn read(section: &Section<'_>) -> Probe {
    const GIGABYTE: u64 = 1_000_000_000;
    let default = Probe::default();
    let probe = Probe {
        violations: section.integer("violations", 1..=1_000_000).unwrap_or(default.violations),
        rate_bytes: section.bytes_within("rate", 1_000..=GIGABYTE).unwrap_or(default.rate_bytes),
        // Two super-packets: with less, one that arrives while the bucket fills could never pass.
        burst_bytes: section
            .bytes_within("burst", 2 * SUPER_PACKET_BYTES..=GIGABYTE)
            .unwrap_or(default.burst_bytes),
        min_charge_bytes: section
            .bytes_within("min_charge", 1..=SUPER_PACKET_BYTES)
            .unwrap_or(default.min_charge_bytes),
    };
    section.finish();
    probe
}
