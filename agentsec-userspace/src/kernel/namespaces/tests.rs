//! Findings, by what there is. The agent of slot 5 has the host's interface 10, which leads into the namespace
//! with number 3 (inode 300), as its interface 2. That namespace knows the host by the number 0.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

const SLOT: u32 = 5;

fn link(ifindex: u32, kind: &str) -> Link {
    Link { ifindex, name: format!("{kind}{ifindex}"), kind: kind.to_owned(), ..Link::default() }
}

fn on(ifindex: u32, kind: &str, lower: u32, peer_netns: Option<i32>) -> Link {
    Link { lower: Some(lower), peer_netns, ..link(ifindex, kind) }
}

fn loopback() -> Link {
    Link { loopback: true, ..link(1, "") }
}

/// What is judged where the host and the agent's namespace also have these interfaces.
fn found(host: &[Link], inside: &[Link], others: &[Namespace]) -> Findings {
    let host = [&[loopback(), on(10, "veth", 2, Some(3))], host].concat();
    let links = [&[loopback(), on(2, "veth", 10, Some(0))], inside].concat();
    let own = Namespace { inode: 300, nsid: Some(3), host_nsid: Some(0), links, ..Namespace::default() };
    judge(&host, &[&[own], others].concat(), &BTreeMap::from([(10, SLOT)]))
}

fn second(ifindex: u32) -> Findings {
    let name = format!("veth{ifindex}");
    Findings { seconds: vec![Second { ifindex, name, slot: SLOT }], ..Findings::default() }
}

fn uncovered(ifindex: u32, kind: &str, why: Why) -> Findings {
    let way = Uncovered {
        slots: BTreeSet::from([SLOT]),
        namespace: 300,
        ifindex,
        name: format!("{kind}{ifindex}"),
        kind: kind.to_owned(),
        why,
    };
    Findings { uncovered: vec![way], ..Findings::default() }
}

fn child(namespace: Option<u64>, ifindex: u32, kind: &str) -> Findings {
    let (name, kind) = (format!("{kind}{ifindex}"), kind.to_owned());
    let child = Child { namespace, ifindex, name, kind, on: 10, slot: SLOT };
    Findings { children: vec![child], ..Findings::default() }
}

#[test]
fn ways_out_of_an_agents_namespace_are_told_by_where_they_lead() {
    let nothing = Findings::default();
    for (about, inside, expected) in [
        ("only the agent's own pair", vec![], nothing.clone()),
        ("a pair inside", vec![on(7, "veth", 8, None), on(8, "veth", 7, None)], nothing.clone()),
        ("a bridge and a fallback tunnel", vec![link(7, "bridge"), link(8, "sit")], nothing.clone()),
        ("a VLAN on the agent's own pair", vec![on(7, "vlan", 2, None)], nothing.clone()),
        ("something unknown on the agent's own pair", vec![on(7, "new", 2, None)], nothing),
        (
            "a macvlan on the host's wire",
            vec![on(7, "macvlan", 20, Some(0))],
            uncovered(7, "macvlan", Why::HostInterface(20)),
        ),
        (
            "an ipvlan on the host's wire",
            vec![on(7, "ipvlan", 20, Some(0))],
            uncovered(7, "ipvlan", Why::HostInterface(20)),
        ),
        (
            "a VLAN on the host's wire",
            vec![on(7, "vlan", 20, Some(0))],
            uncovered(7, "vlan", Why::HostInterface(20)),
        ),
        (
            "a macvlan on the agent's host side",
            vec![on(7, "macvlan", 10, Some(0))],
            child(Some(300), 7, "macvlan"),
        ),
        (
            "a macvlan on somebody else's wire",
            vec![on(7, "macvlan", 10, Some(1))],
            uncovered(7, "macvlan", Why::ThirdNamespace),
        ),
        (
            "wireguard by way of the host",
            vec![Link { peer_netns: Some(0), ..link(7, "wireguard") }],
            uncovered(7, "wireguard", Why::HostRoutes),
        ),
        ("wireguard by way of the namespace", vec![link(7, "wireguard")], Findings::default()),
        ("a tun", vec![link(7, "tun")], uncovered(7, "tun", Why::Process)),
        ("a wire", vec![link(7, "")], uncovered(7, "", Why::Physical)),
        (
            "a pair into a third namespace",
            vec![on(7, "veth", 2, Some(4))],
            uncovered(7, "veth", Why::ThirdNamespace),
        ),
        (
            "a pair to a namespace without a number",
            vec![on(7, "veth", 2, Some(-1))],
            uncovered(7, "veth", Why::ThirdNamespace),
        ),
        ("something unknown", vec![link(7, "new")], uncovered(7, "new", Why::UnknownKind)),
    ] {
        assert_eq!(found(&[], &inside, &[]), expected, "{about}");
    }
}

#[test]
fn interfaces_of_the_host_are_told_by_what_they_have_to_do_with_an_agent() {
    let stranger = Namespace { inode: 400, nsid: Some(4), host_nsid: Some(0), ..Namespace::default() };
    let with = |links| vec![Namespace { links, ..stranger.clone() }];
    for (about, host, inside, others, expected) in [
        (
            "a second pair",
            vec![on(11, "veth", 7, Some(3))],
            vec![on(7, "veth", 11, Some(0))],
            vec![],
            second(11),
        ),
        (
            "a pair into another namespace",
            vec![on(11, "veth", 7, Some(4))],
            vec![],
            with(vec![on(7, "veth", 11, Some(0))]),
            Findings::default(),
        ),
        (
            "a macvlan with its wire in there is no pair",
            vec![on(11, "macvlan", 2, Some(3))],
            vec![],
            vec![],
            Findings::default(),
        ),
        (
            "a VLAN on the agent's host side",
            vec![on(11, "vlan", 10, None)],
            vec![],
            vec![],
            child(None, 11, "vlan"),
        ),
        ("a VLAN on another interface", vec![on(11, "vlan", 1, None)], vec![], vec![], Findings::default()),
        (
            "a stranger's macvlan on the agent's host side",
            vec![],
            vec![],
            with(vec![on(7, "macvlan", 10, Some(0))]),
            child(Some(400), 7, "macvlan"),
        ),
        (
            "a stranger's wire is nobody's business",
            vec![],
            vec![],
            with(vec![link(7, ""), link(8, "tun")]),
            Findings::default(),
        ),
    ] {
        assert_eq!(found(&host, &inside, &others), expected, "{about}");
    }
}

#[test]
fn what_sits_on_a_second_pair_sits_on_the_agent() {
    let host = [on(11, "veth", 7, Some(3)), on(12, "vlan", 11, None)];
    let findings = found(&host, &[on(7, "veth", 11, Some(0))], &[]);
    assert_eq!(findings.seconds, second(11).seconds);
    assert_eq!(
        findings.children.iter().map(|child| (child.ifindex, child.on)).collect::<Vec<_>>(),
        [(12, 11)]
    );
    assert_eq!(findings.uncovered, []);
}

#[test]
fn a_pair_into_a_namespace_of_two_agents_is_neithers_and_told() {
    let host = [on(10, "veth", 2, Some(3)), on(11, "veth", 7, Some(3)), on(12, "veth", 8, Some(3))];
    let inside = vec![on(2, "veth", 10, Some(0)), on(7, "veth", 11, Some(0)), on(8, "veth", 12, Some(0))];
    let own =
        Namespace { inode: 300, nsid: Some(3), host_nsid: Some(0), links: inside, ..Namespace::default() };
    let findings = judge(&host, &[own], &BTreeMap::from([(10, SLOT), (11, 6)]));
    assert_eq!(findings.seconds, []);
    let ways: Vec<_> = findings.uncovered.iter().map(|way| (way.ifindex, way.why, way.slots.len())).collect();
    assert_eq!(ways, [(8, Why::SeveralAgents(12), 2)]);
}

#[test]
fn two_pairs_of_one_agent_that_are_attached_are_no_finding() {
    let host = [on(10, "veth", 2, Some(3)), on(11, "veth", 7, Some(3))];
    let links = vec![on(2, "veth", 10, None), on(7, "veth", 11, Some(0))];
    let own = Namespace { inode: 300, nsid: Some(3), links, ..Namespace::default() };
    assert_eq!(judge(&host, &[own], &BTreeMap::from([(10, SLOT), (11, SLOT)])), Findings::default());
}

#[test]
fn ports_and_namespaces_that_nobody_has_looked_into_are_told() {
    let port = Link { master: Some(20), ..on(10, "veth", 2, Some(3)) };
    let host = [port, Link { master: Some(20), ..on(11, "veth", 2, Some(4)) }, on(12, "tun", 0, None)];
    let findings = judge(&host, &[], &BTreeMap::from([(10, SLOT), (12, 6)]));
    assert_eq!(findings.bridged, [Bridged { ifindex: 10, master: 20, slot: SLOT }]);
    assert_eq!(findings.unseen, [Unseen { ifindex: 10, slot: SLOT }]);
}
