//! What the agents do: ordinary work, theft, and scouting; and the services that they talk to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::plan::{DROP_TCP_PORT, DROP_UDP_PORT, HTTP_PORT, LONGEST, Role};
use crate::lab::{Lab, Node};
use crate::traffic::http::{HttpClient, HttpServer};
use crate::traffic::sweep;
use crate::traffic::task::{Stop, Task};
use crate::traffic::tcp::{self, TcpPlan, TcpSent, TcpSink};
use crate::traffic::udp::{self, UdpPlan, UdpReceiver, UdpSent};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What the world offers, to honest agents and to thieves.
#[derive(Debug)]
pub(super) struct Services {
    _http: HttpServer,
    _tcp: TcpSink,
    _udp: UdpReceiver,
}

impl Services {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let world = &lab.world().namespace;
        Ok(Self {
            _http: HttpServer::start(world, (ANY, HTTP_PORT), LONGEST)?,
            _tcp: TcpSink::start(world, (ANY, DROP_TCP_PORT), LONGEST)?,
            _udp: UdpReceiver::start(world, (ANY, DROP_UDP_PORT), LONGEST)?,
        })
    }
}

/// One request as its client saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// When it began.
    pub(super) at: Instant,
    /// How long it took.
    pub(super) latency: Duration,
    /// Whether it was answered with 200.
    pub(super) ok: bool,
}

/// Requests so far, shared between who makes them and who shows them.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal(Arc<Mutex<Vec<Sample>>>);

impl Journal {
    fn add(&self, sample: Sample) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
    }

    /// Those that began in `[from, to)`.
    pub(super) fn between(&self, from: Instant, to: Instant) -> Vec<Sample> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().filter(|sample| sample.at >= from && sample.at < to).copied().collect()
    }
}

/// An agent's honest work: requests on kept-alive connections. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Work {
    _tasks: Vec<Task<()>>,
}

impl Work {
    /// Starts the work of a `role`, which is written down in `journal`.
    pub(super) fn start(lab: &Lab, node: &Node, role: Role, journal: &Journal) -> Result<Self> {
        let mut kinds = vec![("/", Duration::from_millis(25))];
        if role == Role::Downloads {
            kinds.push(("/bytes/200000", Duration::from_millis(200)));
        }
        let server = SocketAddr::new(lab.world().v4.into(), HTTP_PORT);
        let start = |(path, interval)| ask_steadily(node, server, path, interval, journal.clone());
        Ok(Self { _tasks: kinds.into_iter().map(start).collect::<Result<_>>()? })
    }
}

fn ask_steadily(
    node: &Node,
    server: SocketAddr,
    path: &'static str,
    interval: Duration,
    journal: Journal,
) -> Result<Task<()>> {
    // An agent that is cut off notices within half a second, so that dropping its work does not wait long.
    let mut client = HttpClient::new(&node.namespace, server).timeout(Duration::from_millis(500));
    Task::start(&node.namespace, "work", LONGEST, move |stop| {
        while !stop.now() {
            let at = Instant::now();
            let ok = client.get(path).is_ok_and(|response| response.status == 200);
            let latency = at.elapsed();
            journal.add(Sample { at, latency, ok });
            stop.sleep(interval.saturating_sub(latency));
        }
    })
}

/// Four TCP flows and a flood of UDP, each as fast as it can. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Theft {
    _tcp: Task<Vec<TcpSent>>,
    _udp: Task<UdpSent>,
}

impl Theft {
    pub(super) fn start(lab: &Lab, node: &Node) -> Result<Self> {
        let at = |port| SocketAddr::new(lab.world().v4.into(), port);
        let flows = TcpPlan {
            flows: 4,
            bytes_per_flow: u64::MAX,
            connect_timeout: Duration::from_millis(500),
            longest: LONGEST,
        };
        let flood =
            UdpPlan { datagrams: u64::MAX, payload_bytes: 1400, interval: Duration::ZERO, longest: LONGEST };
        Ok(Self {
            _tcp: tcp::send(&node.namespace, at(DROP_TCP_PORT), flows)?,
            _udp: udp::numbered(&node.namespace, at(DROP_UDP_PORT), flood)?,
        })
    }
}

/// Knocking on the doors of neighbours and strangers. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Scouting {
    reached: Arc<AtomicU64>,
    tried: Arc<AtomicU64>,
    _task: Task<()>,
}

impl Scouting {
    /// Begins with the other agents, then goes through the crowd behind the world.
    pub(super) fn start(lab: &Lab, node: &Node) -> Result<Self> {
        let neighbours = lab.agents().iter().map(|other| other.v4).filter(|other| *other != node.v4);
        let strangers = (1..200).map(|index| lab.crowd_v4(index));
        let addresses = neighbours.chain(strangers).map(IpAddr::from);
        let targets = sweep::targets(addresses, &[22, 443, 3306, 5432, 6379, 8080]);
        let (reached, tried) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counts = (Arc::clone(&reached), Arc::clone(&tried));
        let task = Task::start(&node.namespace, "scouting", LONGEST, move |stop| {
            knock_on_all(&targets, stop, &counts.0, &counts.1);
        })?;
        Ok(Self { reached, tried, _task: task })
    }

    /// Doors that answered, by opening or by refusing: what a sweep wants to know.
    pub(super) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    /// Doors knocked on.
    pub(super) fn tried(&self) -> u64 {
        self.tried.load(Ordering::Relaxed)
    }
}

fn knock_on_all(targets: &[SocketAddr], stop: &Stop, reached: &AtomicU64, tried: &AtomicU64) {
    for target in targets.iter().take_while(|_| !stop.now()) {
        tried.fetch_add(1, Ordering::Relaxed);
        let answer = std::net::TcpStream::connect_timeout(target, Duration::from_millis(50));
        let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        if answer.as_ref().err().is_none_or(refused) {
            reached.fetch_add(1, Ordering::Relaxed);
        }
        // Slow enough that people see the risk rise.
        stop.sleep(Duration::from_millis(20));
    }
}
