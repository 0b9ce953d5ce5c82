//! Typical endpoints: read as an operator writes them, and pushed down for the kernel's trie.
//!
//! A longer prefix hides a shorter one in a longest-prefix trie, so the rules of every prefix are its own and
//! those of all that cover it.

use super::prefix::{MAPPED_BASE, MAPPED_BITS, Prefix, mask};
use super::section::{Section, text};
use super::source::{Node, Value};
use crate::core::protocol::protocol_number;
use agentsec_common::endpoint::Address;
use agentsec_common::typical::{ACCEPTED, ANY_PROTOCOL, OPENED, PortRule, PortRules, RULES_PER_PREFIX};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// One configured entry of `typical`: every prefix with every port rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypicalRule {
    /// One prefix, or both families' shortest for `any`.
    pub prefixes: Vec<Prefix>,
    /// One rule per range of ports.
    pub rules: Vec<PortRule>,
}

/// A prefix as the kernel's trie wants it, without the profile's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypicalPrefix {
    /// Network byte order, IPv4-mapped for IPv4.
    pub address: Address,
    /// Bits of the address, 0 to 128; IPv4 prefixes are 96 longer than written.
    pub prefix_len: u32,
    /// Its own rules and those of every prefix that covers it.
    pub rules: PortRules,
}

/// A prefix needs more rules than fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRules {
    /// The prefix.
    pub prefix: Prefix,
    /// How many it needs.
    pub needed: usize,
}

/// Pushes `rules` down into every prefix that they cover.
pub fn push_down(rules: &[TypicalRule]) -> Result<Vec<TypicalPrefix>, TooManyRules> {
    let mut own: BTreeMap<Prefix, BTreeSet<RuleKey>> = BTreeMap::new();
    for rule in rules {
        for prefix in &rule.prefixes {
            own.entry(*prefix).or_default().extend(rule.rules.iter().map(rule_key));
        }
    }
    // A short IPv6 prefix such as ::/0 lies above the IPv4-mapped addresses in the trie without meaning them:
    // an IPv4 prefix without rules hides it.
    let mapped = Prefix { bits: MAPPED_BASE, length: MAPPED_BITS };
    if own
        .keys()
        .any(|prefix| mapped.bits & mask(prefix.length) == prefix.bits && prefix.length < MAPPED_BITS)
    {
        own.entry(mapped).or_default();
    }
    own.keys().map(|prefix| compile_prefix(*prefix, &own)).collect()
}

fn compile_prefix(
    prefix: Prefix,
    own: &BTreeMap<Prefix, BTreeSet<RuleKey>>,
) -> Result<TypicalPrefix, TooManyRules> {
    let covering = own.iter().filter(|(other, _)| other.covers(&prefix));
    let all: BTreeSet<RuleKey> = covering.flat_map(|(_, rules)| rules.iter().copied()).collect();
    let needed: Vec<PortRule> =
        all.iter().filter(|rule| !all.iter().any(|other| implies(other, rule))).map(port_rule).collect();
    if needed.len() > RULES_PER_PREFIX {
        return Err(TooManyRules { prefix, needed: needed.len() });
    }
    let mut rules = PortRules::default();
    rules.rules[..needed.len()].copy_from_slice(&needed);
    Ok(TypicalPrefix { address: prefix.address(), prefix_len: prefix.length, rules })
}

/// (protocol, kinds, first, last): a rule that can be ordered.
type RuleKey = (u8, u8, u16, u16);

fn rule_key(rule: &PortRule) -> RuleKey {
    (rule.protocol, rule.kinds, rule.first, rule.last)
}

fn port_rule(&(protocol, kinds, first, last): &RuleKey) -> PortRule {
    PortRule { protocol, kinds, first, last }
}

/// Whether `wide` is another rule that admits all that `narrow` admits.
fn implies(wide: &RuleKey, narrow: &RuleKey) -> bool {
    wide != narrow
        && (wide.0 == ANY_PROTOCOL || wide.0 == narrow.0)
        && wide.1 & narrow.1 == narrow.1
        && wide.2 <= narrow.2
        && narrow.3 <= wide.3
}

const PREFIXES: &str = "an IPv4 or IPv6 address or prefix such as \"10.0.0.0/8\", or \"any\"";
const PORTS: &str = "ports and ranges from 0 to 65535 such as \"443,8000-8100\"";
const PROTOCOLS: &str =
    "\"tcp\", \"udp\", \"icmp\", \"icmpv6\", \"sctp\", \"gre\", \"esp\", \"any\", or a number from 1 to 255";

/// Reads the list under `typical`; entries with problems are reported and left out.
pub(super) fn read(section: &Section<'_>) -> Vec<TypicalRule> {
    let Some(node) = section.node("typical") else { return Vec::new() };
    let path = section.key("typical");
    let Value::Array(items) = &node.value else {
        let message = format!("is {}", node.value.kind());
        section.report.problem(
            node.spot,
            &path,
            message,
            Some(format!("a list; each {PREFIXES}, or a table")),
        );
        return Vec::new();
    };
    let entry = |(index, item): (usize, &Node)| match &item.value {
        Value::String(text) => prefixes(text)
            .map(|prefixes| TypicalRule { prefixes, rules: vec![ANYTHING_OPENED] })
            .map_err(|message| {
                section.report.problem(
                    item.spot,
                    &format!("{path}[{index}]"),
                    message,
                    Some(PREFIXES.into()),
                );
            })
            .ok(),
        _ => read_table(Section::new(section.report, format!("{path}[{index}]"), item), item),
    };
    items.iter().enumerate().filter_map(entry).collect()
}

const ANYTHING_OPENED: PortRule =
    PortRule { protocol: ANY_PROTOCOL, kinds: OPENED, first: 0, last: u16::MAX };

fn read_table(section: Section<'_>, node: &Node) -> Option<TypicalRule> {
    let prefixes = section.parsed("to", PREFIXES, |value| prefixes(text(value)?));
    if prefixes.is_none() && section.node("to").is_none() && matches!(node.value, Value::Table(_)) {
        section.report.problem(node.spot, &section.key("to"), "is missing".into(), Some(PREFIXES.into()));
    }
    let protocol = section.parsed("protocol", PROTOCOLS, protocol).unwrap_or(ANY_PROTOCOL);
    let ports = section.parsed("ports", PORTS, |value| ports(value, protocol));
    let kinds = section
        .choice("direction", &[("open", OPENED), ("accept", ACCEPTED), ("any", OPENED | ACCEPTED)])
        .unwrap_or(OPENED);
    section.finish();
    let ports = ports.unwrap_or_else(|| vec![(0, u16::MAX)]);
    let rules = ports.into_iter().map(|(first, last)| PortRule { protocol, kinds, first, last }).collect();
    prefixes.map(|prefixes| TypicalRule { prefixes, rules })
}

fn prefixes(text: &str) -> Result<Vec<Prefix>, String> {
    if text == "any" {
        return Ok(vec![Prefix { bits: MAPPED_BASE, length: MAPPED_BITS }, Prefix { bits: 0, length: 0 }]);
    }
    text.parse().map(|prefix| vec![prefix])
}

/// DNS over UDP and TCP to `resolver`, opened.
pub(super) fn resolver_rule(resolver: IpAddr) -> TypicalRule {
    const DNS: u16 = 53;
    let dns = |protocol| PortRule { protocol, kinds: OPENED, first: DNS, last: DNS };
    TypicalRule { prefixes: vec![Prefix::host(resolver)], rules: vec![dns(17), dns(6)] }
}

fn protocol(value: &Value) -> Result<u8, String> {
    match value {
        Value::Integer(Ok(number)) => {
            u8::try_from(*number).ok().filter(|&n| n > 0).ok_or_else(|| format!("is {number}"))
        }
        Value::String(name) if name == "any" => Ok(ANY_PROTOCOL),
        Value::String(name) => protocol_number(name).ok_or_else(|| format!("is {name:?}")),
        other => Err(format!("is {}", other.kind())),
    }
}

fn ports(value: &Value, protocol: u8) -> Result<Vec<(u16, u16)>, String> {
    let listed = match value {
        Value::String(list) => list.clone(),
        Value::Integer(Ok(port)) => port.to_string(),
        other => return Err(format!("is {}", other.kind())),
    };
    // The kernel reads ports of TCP and UDP only; a rule on any other protocol's ports would never match.
    if ![ANY_PROTOCOL, 6, 17].contains(&protocol) {
        return Err(format!("is {listed:?}, but only tcp, udp and any have ports"));
    }
    listed
        .split(',')
        .map(|item| range(item.trim()).ok_or_else(|| format!("{item:?} is no range of ports")))
        .collect()
}

/// A port, or a range of them.
pub(super) fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::address::{from_address, to_address};
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// What the kernel's trie answers.
    fn trie(prefixes: &[TypicalPrefix], address: u128, protocol: u8, kind: u8, port: u16) -> bool {
        let matches = |prefix: &&TypicalPrefix| {
            let bits = match from_address(prefix.address) {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
                IpAddr::V6(v6) => v6.to_bits(),
            };
            address & mask(prefix.prefix_len) == bits
        };
        let longest = prefixes.iter().filter(matches).max_by_key(|prefix| prefix.prefix_len);
        longest.is_some_and(|prefix| prefix.rules.admit(protocol, kind, port))
    }

    fn brute_force(rules: &[TypicalRule], address: u128, protocol: u8, kind: u8, port: u16) -> bool {
        let host = Prefix { bits: address, length: 128 };
        let covering = rules.iter().filter(|rule| rule.prefixes.iter().any(|prefix| prefix.covers(&host)));
        covering.flat_map(|rule| &rule.rules).any(|rule| rule.admits(protocol, kind, port))
    }

    /// Few bits, so that prefixes cover one another.
    fn any_address() -> impl Strategy<Value = u128> {
        prop_oneof![
            (0u128..16).prop_map(|low| MAPPED_BASE | 10 << 24 | low),
            (0u128..4, 0u128..4).prop_map(|(high, low)| high << 126 | low),
        ]
    }

    fn any_rule() -> impl Strategy<Value = TypicalRule> {
        let v4 = (28..=32u32).prop_map(|length| length + MAPPED_BITS);
        let v6 = prop_oneof![Just(0u32), 1..4u32, 94..97u32, 126..=128u32];
        let length = prop_oneof![v4, Just(MAPPED_BITS), v6];
        let rule = (prop_oneof![Just(0u8), Just(6), Just(17)], 1..4u8, 0..6u16, 0..6u16);
        (any_address(), length, prop::collection::vec(rule, 1..3)).prop_map(|(bits, length, rules)| {
            TypicalRule {
                prefixes: vec![Prefix { bits: bits & mask(length), length }],
                rules: rules
                    .into_iter()
                    .map(|(protocol, kinds, a, b)| PortRule {
                        protocol,
                        kinds,
                        first: a.min(b),
                        last: a.max(b),
                    })
                    .collect(),
            }
        })
    }

    proptest! {
        #[test]
        fn the_tries_answer_is_that_of_every_covering_rule(
            rules in prop::collection::vec(any_rule(), 0..7),
            address in any_address(), protocol in prop_oneof![Just(6u8), Just(17), Just(1)],
            kind in 0..2u8, port in 0..7u16,
        ) {
            let Ok(prefixes) = push_down(&rules) else { return Ok(()) };
            prop_assert_eq!(
                trie(&prefixes, address, protocol, kind, port),
                brute_force(&rules, address, protocol, kind, port)
            );
        }

        #[test]
        fn an_address_survives_the_maps(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            let back = match from_address(to_address(address)) {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            prop_assert_eq!(back, address);
        }
    }

    #[test]
    fn an_ipv6_default_route_does_not_admit_ipv4() {
        let rule = |text| TypicalRule { prefixes: prefixes(text).unwrap(), rules: vec![ANYTHING_OPENED] };
        let v4 = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().to_bits();
        let v6 = Ipv6Addr::LOCALHOST.to_bits();
        let only_v6 = push_down(&[rule("::/0")]).unwrap();
        assert!(trie(&only_v6, v6, 6, 0, 1) && !trie(&only_v6, v4, 6, 0, 1));
        let any = push_down(&[rule("any")]).unwrap();
        assert!(trie(&any, v6, 6, 0, 1) && trie(&any, v4, 6, 0, 1));
    }
}
