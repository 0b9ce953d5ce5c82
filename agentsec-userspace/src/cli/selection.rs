//! Which endpoints are shown, and in what order.

use std::cmp::Reverse;
use std::net::IpAddr;

use clap::ValueEnum;

use crate::api::views::{EndpointDirection, EndpointView, protocol_name};
use crate::config::Prefix;

/// By what endpoints are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// Wire bytes of both directions, the most first
    #[default]
    Bytes,
    /// Packets of both directions, the most first
    Packets,
    /// When it was first seen, the newest first
    First,
    /// When it was last seen, the latest first
    Last,
    /// Address and port, ascending
    Remote,
}

/// What an operator wants to see; every condition narrows it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Selection {
    /// Only those that its profile expects
    #[arg(long, conflicts_with = "untypical")]
    pub(super) typical: bool,
    /// Only those that its profile does not expect
    #[arg(long)]
    pub(super) untypical: bool,
    /// Only those that the agent opened
    #[arg(long, conflicts_with = "accepted")]
    pub(super) opened: bool,
    /// Only those that the agent accepted
    #[arg(long)]
    pub(super) accepted: bool,
    /// Only this protocol: tcp, udp, icmp, icmpv6, igmp, sctp, or a number
    #[arg(long, value_parser = protocol)]
    pub(super) protocol: Option<String>,
    /// Only this port: the remote's of those opened, the agent's own of those accepted
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// Only remotes of this address or prefix, such as 10.0.0.0/8
    #[arg(long, value_name = "PREFIX")]
    pub(super) remote: Option<Prefix>,
    /// Order
    #[arg(long, value_enum, value_name = "BY", default_value_t)]
    pub(super) sort: Sort,
    /// The other way round
    #[arg(long)]
    pub(super) reverse: bool,
    /// Only the first N in that order
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
}

impl Selection {
    /// Leaves what is wanted, in the order that is wanted.
    pub(super) fn apply(&self, endpoints: &mut Vec<EndpointView>) {
        endpoints.retain(|endpoint| self.wants(endpoint));
        endpoints.sort_by_cached_key(|endpoint| (self.sort.key(endpoint), identity(endpoint)));
        if self.reverse {
            endpoints.reverse();
        }
        endpoints.truncate(self.limit.unwrap_or(usize::MAX));
    }

    /// What the kernel has not asked the profile about yet counts as not expected.
    fn wants(&self, endpoint: &EndpointView) -> bool {
        let expected = endpoint.typical == Some(true);
        let opened = endpoint.direction == EndpointDirection::Open;
        let unless = |unwanted: bool, holds: bool| !unwanted || holds;
        unless(self.typical, expected)
            && unless(self.untypical, !expected)
            && unless(self.opened, opened)
            && unless(self.accepted, !opened)
            && self.protocol.as_ref().is_none_or(|protocol| *protocol == endpoint.protocol)
            && self.port.is_none_or(|port| port == endpoint.port)
            && self.remote.is_none_or(|prefix| prefix.covers(&Prefix::host(endpoint.remote)))
    }
}

impl Sort {
    /// What comes first has the least key. By remote, what identifies an endpoint decides.
    fn key(self, endpoint: &EndpointView) -> Reverse<u64> {
        let EndpointView { outbound, inbound, first_seen, last_seen, .. } = endpoint;
        Reverse(match self {
            Self::Bytes => outbound.bytes.saturating_add(inbound.bytes),
            Self::Packets => outbound.packets.saturating_add(inbound.packets),
            Self::First => first_seen.0,
            Self::Last => last_seen.0,
            Self::Remote => 0,
        })
    }
}

/// No two endpoints of an agent have the same, so every order is one.
fn identity(endpoint: &EndpointView) -> (IpAddr, u16, String, bool) {
    let accepted = endpoint.direction == EndpointDirection::Accept;
    (endpoint.remote, endpoint.port, endpoint.protocol.clone(), accepted)
}

/// A protocol as endpoints name it.
fn protocol(text: &str) -> Result<String, String> {
    let wanted = text.to_ascii_lowercase();
    let named = |number: &u8| *protocol_name(*number) == *wanted;
    match wanted.parse().ok().or_else(|| (0..=u8::MAX).find(named)) {
        Some(number) => Ok(protocol_name(number).into_owned()),
        None => Err("allowed: tcp, udp, icmp, icmpv6, igmp, sctp, or a number up to 255".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Timestamp;
    use crate::api::views::EndpointTraffic;

    /// Remote, port, protocol, who, typical, bytes, packets, first and last seen.
    type Row = (&'static str, u16, &'static str, EndpointDirection, Option<bool>, u64, u64, u64, u64);

    const ROWS: [Row; 5] = [
        ("10.0.0.9", 443, "tcp", EndpointDirection::Open, Some(true), 900, 1, 10, 90),
        ("10.0.0.10", 53, "udp", EndpointDirection::Open, Some(false), 500, 9, 20, 50),
        ("192.0.2.1", 443, "tcp", EndpointDirection::Open, None, 700, 5, 30, 60),
        ("2001:db8::1", 443, "udp", EndpointDirection::Open, Some(false), 500, 2, 40, 80),
        ("192.0.2.7", 8080, "tcp", EndpointDirection::Accept, Some(true), 100, 3, 50, 70),
    ];

    fn endpoints() -> Vec<EndpointView> {
        let view =
            |(remote, port, protocol, direction, typical, bytes, packets, first, last): Row| EndpointView {
                remote: remote.parse().unwrap(),
                port,
                protocol: protocol.into(),
                direction,
                typical,
                outbound: EndpointTraffic { bytes: bytes - 50, packets: packets - 1 },
                inbound: EndpointTraffic { bytes: 50, packets: 1 },
                first_seen: Timestamp(first),
                last_seen: Timestamp(last),
                responses: 0,
                p50_ms: None,
                p99_ms: None,
                deviation_ms: None,
            };
        ROWS.into_iter().map(view).collect()
    }

    /// The last component of each remote that is left.
    fn left(selection: &Selection) -> Vec<String> {
        let mut endpoints = endpoints();
        selection.apply(&mut endpoints);
        let short = |remote: IpAddr| remote.to_string().rsplit(['.', ':']).next().unwrap().to_owned();
        endpoints.iter().map(|endpoint| format!("{}/{}", short(endpoint.remote), endpoint.port)).collect()
    }

    #[test]
    fn every_order_is_total_and_can_be_reversed() {
        for (sort, expected) in [
            (Sort::Bytes, ["9/443", "1/443", "10/53", "1/443", "7/8080"]),
            (Sort::Packets, ["10/53", "1/443", "7/8080", "1/443", "9/443"]),
            (Sort::First, ["7/8080", "1/443", "1/443", "10/53", "9/443"]),
            (Sort::Last, ["9/443", "1/443", "7/8080", "1/443", "10/53"]),
            (Sort::Remote, ["9/443", "10/53", "1/443", "7/8080", "1/443"]),
        ] {
            assert_eq!(left(&Selection { sort, ..Selection::default() }), expected, "{sort:?}");
            let mut reversed = expected.to_vec();
            reversed.reverse();
            assert_eq!(
                left(&Selection { sort, reverse: true, ..Selection::default() }),
                reversed,
                "{sort:?}"
            );
        }
    }

    #[test]
    fn every_condition_narrows() {
        let all = Selection::default();
        let selection = |change: &dyn Fn(&mut Selection)| {
            let mut selection = all.clone();
            change(&mut selection);
            left(&selection)
        };
        assert_eq!(selection(&|s| s.typical = true), ["9/443", "7/8080"]);
        assert_eq!(selection(&|s| s.untypical = true), ["1/443", "10/53", "1/443"]);
        assert_eq!(selection(&|s| s.opened = true).len(), 4);
        assert_eq!(selection(&|s| s.accepted = true), ["7/8080"]);
        assert_eq!(selection(&|s| s.protocol = Some("udp".into())), ["10/53", "1/443"]);
        assert_eq!(selection(&|s| s.port = Some(53)), ["10/53"]);
        assert_eq!(selection(&|s| s.remote = "10.0.0.0/8".parse().ok()), ["9/443", "10/53"]);
        assert_eq!(selection(&|s| s.remote = "::/0".parse().ok()), ["1/443"], "IPv6 only");
        assert_eq!(selection(&|s| s.limit = Some(2)), ["9/443", "1/443"]);
        let both = |s: &mut Selection| (s.port, s.untypical) = (Some(443), true);
        assert_eq!(selection(&both), ["1/443", "1/443"]);
    }

    #[test]
    fn a_protocol_is_named_or_numbered() {
        for (text, name) in [("tcp", "tcp"), ("TCP", "tcp"), ("6", "tcp"), ("89", "89"), ("icmpv6", "icmpv6")]
        {
            assert_eq!(protocol(text).as_deref(), Ok(name), "{text}");
        }
        for wrong in ["tpc", "256", ""] {
            assert!(protocol(wrong).unwrap_err().contains("allowed: tcp"), "{wrong:?}");
        }
    }
}
