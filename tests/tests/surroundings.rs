//! What the daemon sees of interfaces and of the namespaces behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use agentsec::kernel::interfaces::{self, Link};
use agentsec::kernel::namespaces::{self, Scan, Why, cookie_of_this_namespace, judge};
use agentsec_tests::lab::Lab;
use agentsec_tests::link::{self, ip, ip_batch};
use agentsec_tests::netns::Namespace;
use anyhow::{Context, Result};

/// A process that keeps a namespace in sight until it is dropped.
struct Resident(Child);

impl Resident {
    fn of(namespace: &Namespace) -> Result<Self> {
        let mut command: Command = namespace.command("cat");
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn links_in(namespace: &Namespace) -> Result<BTreeMap<String, Link>> {
    let links = namespace.run(interfaces::links)?;
    Ok(links.into_iter().map(|link| (link.name.clone(), link)).collect())
}

/// `ip link add A type veth peer name B` across two namespaces.
fn pair(here: &Namespace, name: &str, there: &Namespace, peer: &str) -> Result<()> {
    ip(here, &format!("link add {name} type veth peer name {peer} netns {}", there.path()))?;
    Ok(())
}

#[test]
fn links_tell_what_they_are_and_where_they_lead() -> Result<()> {
    let (host, agent) = (Namespace::new("host")?, Namespace::new("agent")?);
    pair(&host, "out", &agent, "eth0")?;
    ip_batch(
        &host,
        "link add bridge0 type bridge\nlink set out master bridge0\nlink set out up mtu 1400\n\
                     link add left type veth peer name right\ntuntap add tap0 mode tap\n",
    )?;
    let (near, far) = (links_in(&host)?, links_in(&agent)?);
    let out = &near["out"];
    assert_eq!(
        (out.kind.as_str(), out.mtu, out.up, out.master),
        ("veth", 1400, true, Some(near["bridge0"].ifindex))
    );
    assert_eq!((out.lower, far["eth0"].lower), (Some(far["eth0"].ifindex), Some(out.ifindex)));
    assert!(out.peer_netns.is_some() && far["eth0"].peer_netns.is_some());
    assert_eq!((near["left"].lower, near["left"].peer_netns), (Some(near["right"].ifindex), None));
    assert_eq!(
        (near["bridge0"].kind.as_str(), near["tap0"].kind.as_str(), near["bridge0"].up),
        ("bridge", "tun", false)
    );
    assert!(near["lo"].loopback && near["lo"].kind.is_empty() && !out.loopback);
    Ok(())
}

#[test]
fn a_thousand_interfaces_are_listed_whole() -> Result<()> {
    let lab = Lab::many(1000)?;
    let expected: BTreeSet<String> = link::counters_of_all(lab.host())?.into_keys().collect();
    let (found, took, usual) = lab.host().run(|| -> Result<_> {
        let start = Instant::now();
        let found = interfaces::links()?;
        let took = start.elapsed();
        let start = Instant::now();
        let usual = nix::net::if_::if_nameindex()?.iter().count();
        assert_eq!(usual, found.len());
        Ok((found, took, start.elapsed()))
    })?;
    println!("{} links in {took:?}; if_nameindex takes {usual:?}", found.len());
    assert!(found.is_sorted_by_key(|link| link.ifindex));
    assert_eq!(found.into_iter().map(|link| link.name).collect::<BTreeSet<_>>(), expected);
    Ok(())
}

#[test]
fn what_stays_is_listed_while_others_come_and_go() -> Result<()> {
    let host = Namespace::new("host")?;
    let pairs: String = (0..150).map(|n| format!("link add stay{n} type veth peer name peer{n}\n")).collect();
    ip_batch(&host, &pairs)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| -> Result<()> {
            let round: String = (0..50)
                .map(|n| format!("link add go{n} type veth peer name gone{n}\nlink del go{n}\n"))
                .collect();
            while !done.load(Ordering::Relaxed) {
                ip_batch(&host, &round)?;
            }
            Ok(())
        });
        let looked = (|| -> Result<()> {
            for _ in 0..300 {
                let names = links_in(&host)?;
                let missing: Vec<_> = (0..150).filter(|n| !names.contains_key(&format!("stay{n}"))).collect();
                assert!(missing.is_empty(), "{missing:?}");
            }
            Ok(())
        })();
        done.store(true, Ordering::Relaxed);
        churn.join().map_err(|_| anyhow::anyhow!("the churn panicked"))?.and(looked)
    })
}

fn scan_from(host: &Namespace) -> Result<Scan> {
    let before = std::fs::read_link("/proc/thread-self/ns/net")?;
    let scan = host.run(|| -> Result<Scan> {
        let inside = std::fs::read_link("/proc/thread-self/ns/net")?;
        let scan = namespaces::scan()?;
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net")?, inside, "scanning moves nobody");
        Ok(scan)
    })?;
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net")?, before);
    Ok(scan)
}

#[test]
fn namespaces_are_found_by_their_processes_and_names() -> Result<()> {
    let (host, agent, named) =
        (Namespace::new("host")?, Namespace::new("agent")?, Namespace::named("named")?);
    pair(&host, "out", &agent, "eth0")?;
    let inode = agent.inode()?;
    assert!(!scan_from(&host)?.namespaces.iter().any(|found| found.inode == inode), "nobody is there yet");
    let resident = Resident::of(&agent)?;
    let scan = scan_from(&host)?;
    let of = |inode| scan.namespaces.iter().find(|found| found.inode == inode).context("not found");
    let (found, other) = (of(inode)?, of(named.inode()?)?);
    assert_eq!(found.cookie, agent.run(cookie_of_this_namespace)?);
    assert_eq!(other.cookie, named.run(cookie_of_this_namespace)?);
    assert_ne!(found.cookie, host.run(cookie_of_this_namespace)?);
    let out = scan.host.iter().find(|link| link.name == "out").context("our end")?;
    let eth0 = found.links.iter().find(|link| link.name == "eth0").context("the agent's end")?;
    assert_eq!((out.peer_netns, out.lower), (found.nsid, Some(eth0.ifindex)));
    assert_eq!((eth0.peer_netns, eth0.lower), (found.host_nsid, Some(out.ifindex)));
    assert!(found.nsid.is_some() && found.host_nsid.is_some());
    assert_eq!(
        (other.nsid, other.host_nsid, other.links.len()),
        (None, None, 1),
        "it is connected with nobody"
    );
    assert!(!scan.namespaces.iter().any(|found| Some(found.inode) == host.inode().ok()), "not our own");
    drop(resident);
    Ok(())
}

#[test]
fn an_agents_second_pair_and_its_ways_past_us_are_found() -> Result<()> {
    let (host, agent, third) = (Namespace::new("host")?, Namespace::new("agent")?, Namespace::new("third")?);
    pair(&host, "first", &agent, "eth0")?;
    pair(&host, "second", &agent, "eth1")?;
    pair(&host, "other", &third, "eth0")?;
    pair(&agent, "beyond", &third, "eth1")?;
    ip(&agent, "tuntap add tun0 mode tun")?;
    let _residents = (Resident::of(&agent)?, Resident::of(&third)?);
    let scan = scan_from(&host)?;
    let index = |name: &str| scan.host.iter().find(|link| link.name == name).map(|link| link.ifindex);
    let first = index("first").context("the attached one")?;
    let findings = judge(&scan.host, &scan.namespaces, &BTreeMap::from([(first, 9)]));
    let seconds: Vec<_> = findings.seconds.iter().map(|found| (found.name.as_str(), found.slot)).collect();
    assert_eq!(seconds, [("second", 9)]);
    let mut ways: Vec<_> = findings.uncovered.iter().map(|way| (way.name.as_str(), way.why)).collect();
    ways.sort_unstable();
    assert_eq!(ways, [("beyond", Why::ThirdNamespace), ("tun0", Why::Process)]);
    assert!(findings.uncovered.iter().all(|way| Some(way.namespace) == agent.inode().ok()));
    assert_eq!((findings.unseen.len(), findings.children.len()), (0, 0));
    Ok(())
}

#[test]
fn many_agents_in_namespaces_of_their_own_are_each_found() -> Result<()> {
    let host = Namespace::new("host")?;
    let agents = (0..200).map(|_| Namespace::new("agent")).collect::<Result<Vec<_>>>()?;
    let end = |(n, agent): (usize, &Namespace)| {
        format!("link add a{n} type veth peer name eth0 netns {}\n", agent.path())
    };
    ip_batch(&host, &agents.iter().enumerate().map(end).collect::<String>())?;
    let _residents = agents.iter().map(Resident::of).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let scan = scan_from(&host)?;
    println!("looking into {} namespaces took {:?}", scan.namespaces.len(), start.elapsed());
    let slots =
        scan.host.iter().filter(|link| !link.loopback).map(|link| (link.ifindex, link.ifindex)).collect();
    assert_eq!(judge(&scan.host, &scan.namespaces, &slots), namespaces::Findings::default());
    for agent in &agents {
        let inode = agent.inode()?;
        let found = scan.namespaces.iter().find(|found| found.inode == inode).context("not found")?;
        let ends: Vec<_> = scan.host.iter().filter(|link| link.peer_netns == found.nsid).collect();
        assert!(matches!(ends[..], [end] if end.kind == "veth"), "{ends:?}");
    }
    Ok(())
}
