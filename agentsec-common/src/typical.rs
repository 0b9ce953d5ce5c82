//! Typical endpoints: prefix + protocol + ports + who opens, in an LPM trie keyed by profile row.
//!
//! A longer prefix hides a shorter one's rules in a trie, so the daemon pushes rules down into every longer
//! prefix when it compiles a profile.

use crate::endpoint::{Address, EndpointKind};

/// Rules per prefix, those that were pushed down included.
pub const RULES_PER_PREFIX: usize = 15;
/// Bits of a key before the address.
pub const ROW_BITS: u32 = 32;

/// Data of a key of [`TYPICAL`](crate::maps::TYPICAL). Its prefix length is [`ROW_BITS`] plus the address's;
/// an IPv4 prefix is 96 longer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypicalKey {
    /// The profile's row, big endian.
    pub row: u32,
    /// The remote address.
    pub remote: Address,
}

const _: () = assert!(size_of::<TypicalKey>() == 20);

/// Matches any protocol.
pub const ANY_PROTOCOL: u8 = 0;
/// The rule holds for endpoints that the agent opens.
pub const OPENED: u8 = 1 << EndpointKind::Opened as u8;
/// The rule holds for endpoints that the agent accepts.
pub const ACCEPTED: u8 = 1 << EndpointKind::Accepted as u8;

/// One rule under a prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortRule {
    /// IP protocol number, or [`ANY_PROTOCOL`].
    pub protocol: u8,
    /// [`OPENED`], [`ACCEPTED`] or both; zero for an unused rule.
    pub kinds: u8,
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl PortRule {
    /// Whether the rule admits an endpoint under its prefix.
    #[inline(always)]
    #[must_use]
    pub const fn admits(&self, protocol: u8, kind: u8, port: u16) -> bool {
        self.kinds & (1 << (kind & 1)) != 0
            && (self.protocol == ANY_PROTOCOL || self.protocol == protocol)
            && self.first <= port
            && port <= self.last
    }
}

/// Value of [`TYPICAL`](crate::maps::TYPICAL).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRules {
    /// In no particular order; used ones first.
    pub rules: [PortRule; RULES_PER_PREFIX],
}

const _: () = assert!(size_of::<PortRules>() == 6 * RULES_PER_PREFIX);

impl PortRules {
    /// Whether any rule admits the endpoint.
    #[inline(always)]
    #[must_use]
    pub fn admit(&self, protocol: u8, kind: u8, port: u16) -> bool {
        self.rules.iter().any(|rule| rule.admits(protocol, kind, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_admits_its_protocol_ports_and_kind() {
        let rule = PortRule { protocol: 6, kinds: OPENED, first: 80, last: 443 };
        assert!(rule.admits(6, 0, 80) && rule.admits(6, 0, 443));
        assert!(!rule.admits(6, 0, 79) && !rule.admits(6, 0, 444), "ports");
        assert!(!rule.admits(17, 0, 80), "protocol");
        assert!(!rule.admits(6, 1, 80), "kind");
        let any = PortRule { protocol: ANY_PROTOCOL, kinds: OPENED | ACCEPTED, first: 0, last: u16::MAX };
        assert!(any.admits(132, 1, 0));
        assert!(!PortRule::default().admits(0, 0, 0), "an unused rule admits nothing");
    }
}
