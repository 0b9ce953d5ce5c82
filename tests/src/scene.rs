//! A lab with a daemon in it, and what most tests ask of the two.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::{Config, Daemon};
use crate::lab::{Lab, Node};
use crate::traffic::http::{HttpClient, HttpServer};
use crate::traffic::icmp::ping;
use crate::traffic::tcp::{self, TcpPlan, TcpSink};
use crate::traffic::udp::{self, UdpPlan, UdpReceiver, UdpSent};
use crate::wait;

/// Ids of the agents behind `agent-0`, `agent-1`, …
pub const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// More than anything in a test takes, on however slow a machine.
pub const LONG: Duration = Duration::from_secs(60);

/// A daemon in a lab. The daemon goes first: its `unload` needs the host's namespace.
#[derive(Debug)]
pub struct Scene {
    /// The daemon.
    pub daemon: Daemon,
    /// The lab that it runs in.
    pub lab: Lab,
}

/// [`NAMES`] on the first interfaces of a lab, small maps, a quick daemon, and circuits that stay open.
///
/// # Panics
/// When there are not that many names.
#[must_use]
pub fn config(agents: usize) -> Config {
    let base = Config::new()
        .set("daemon.interval", "50ms")
        .set("daemon.max_agents", 16)
        .set("daemon.max_endpoints", 16_384)
        .set("breaker.auto_probe", false);
    NAMES[..agents]
        .iter()
        .enumerate()
        .fold(base, |config, (index, name)| config.agent(name, &format!("agent-{index}")))
}

impl Scene {
    /// A quiet routed lab with this daemon in it.
    pub fn routed(agents: usize, config: &Config) -> Result<Self> {
        Self::around(Lab::routed(agents)?, config)
    }

    /// This lab with a daemon in it.
    pub fn around(lab: Lab, config: &Config) -> Result<Self> {
        let daemon = Daemon::start(lab.host(), config)?;
        Ok(Self { daemon, lab })
    }

    /// The status of the agent behind `agent-<index>`.
    pub fn agent(&self, index: usize) -> Result<Value> {
        self.daemon.agent(NAMES[index])
    }

    /// The world's IPv4 address with this port.
    #[must_use]
    pub fn world(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.lab.world().v4.into(), port)
    }

    /// Sends datagrams to the world as fast as it goes, and waits until they are sent.
    pub fn shoot(&self, index: usize, port: u16, datagrams: u64) -> Result<UdpSent> {
        shoot(self.lab.agent(index), self.world(port), datagrams)
    }

    /// Whether a fresh HTTP exchange with a server in the world works.
    #[must_use]
    pub fn is_served(&self, index: usize, server: &HttpServer) -> bool {
        let to = self.world(server.address().port());
        let mut client = HttpClient::new(&self.lab.agent(index).namespace, to);
        client.get("/").is_ok_and(|response| response.status == 200)
    }

    /// Waits until an event is recorded that `wanted` recognizes, and returns it.
    pub fn wait_for_event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        wait::until(what, LONG, || self.daemon.events().ok()?.into_iter().find(|event| wanted(event)))
            .with_context(|| self.daemon.said())
    }

    /// The states that an agent has entered, in the order of its containment events.
    pub fn states_entered(&self, index: usize) -> Result<Vec<String>> {
        let events = self.daemon.events()?;
        let mine = events.iter().filter(|event| event["agent_id"] == NAMES[index]);
        let moved = mine.filter(|event| is_containment(event));
        Ok(moved.filter_map(|event| Some(event["event_data"]["to"].as_str()?.to_owned())).collect())
    }
}

/// Sends datagrams of 100 bytes from a node as fast as it goes, and waits until they are sent.
pub fn shoot(from: &Node, to: SocketAddr, datagrams: u64) -> Result<UdpSent> {
    let plan = UdpPlan { datagrams, payload_bytes: 100, interval: Duration::ZERO, longest: LONG };
    Ok(udp::numbered(&from.namespace, to, plan)?.wait())
}

/// HTTP, TCP, UDP and ICMP with the world, over both versions of IP; all of it must arrive.
pub fn talk(lab: &Lab, from: &Node) -> Result<()> {
    const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let world = lab.world();
    let server = HttpServer::start(&world.namespace, (ANY, 0), LONG)?;
    let sink = TcpSink::start(&world.namespace, (ANY, 0), LONG)?;
    let receiver = UdpReceiver::start(&world.namespace, (ANY, 0), LONG)?;
    let plan = TcpPlan { flows: 2, bytes_per_flow: 500_000, connect_timeout: LONG, longest: LONG };
    for to in [IpAddr::from(world.v4), world.v6.into()] {
        let at = |address: SocketAddr| SocketAddr::new(to, address.port());
        let mut client = HttpClient::new(&from.namespace, at(server.address())).timeout(LONG);
        ensure!(client.get("/bytes/100000")?.body.len() == 100_000, "HTTP to {to}");
        ensure!(client.post("/upload", &[7; 50_000])?.status == 200, "HTTP to {to}");
        let flows = tcp::send(&from.namespace, at(sink.address()), plan)?.wait();
        ensure!(flows.iter().all(|flow| flow.complete), "TCP to {to}: {flows:?}");
        shoot(from, at(receiver.address()), 500)?;
        ensure!(ping(&from.namespace, to, 3, 700, LONG)?.all_answered(), "ping {to}");
    }
    wait::until("all datagrams", LONG, || (receiver.datagrams() == 1000).then_some(()))
}

/// Bytes and packets of an agent that passed, outbound and inbound.
///
/// # Panics
/// When it is no agent's status.
#[must_use]
pub fn passed(agent: &Value) -> [u64; 4] {
    let (out, inbound) = (&agent["outbound"], &agent["inbound"]);
    [&out["bytes"], &out["packets"], &inbound["bytes"], &inbound["packets"]].map(number)
}

/// Whether an event is a change of a circuit.
#[must_use]
pub fn is_containment(event: &Value) -> bool {
    event["event_type"] == "CONTAINMENT_ACTION"
}

/// Whether an event is an agent's trip.
#[must_use]
pub fn is_trip(event: &Value, id: &str) -> bool {
    is_containment(event) && event["agent_id"] == id && event["event_data"]["action_type"] == "QUARANTINE"
}

/// A number in a status.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a number"))
}
