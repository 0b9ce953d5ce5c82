//! DNS over UDP: a responder that answers by a script, and a client that measures each question.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};

use crate::netns::Namespace;
use crate::traffic::task::{Stop, Task};
use crate::traffic::udp::connected;
use crate::traffic::{TICK, timed_out};
use crate::wait::patient;

/// What every name resolves to.
pub const ADDRESS4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// What every name resolves to in IPv6.
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);

/// Answers that one responder keeps back at the same time; more questions get none.
const MOST_AT_ONCE: usize = 256;
/// Longer than any message of these.
const LONGEST: usize = 1500;

/// What a question gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address of the kind that was asked for.
    Address,
    /// An error.
    Error(RCODE),
    /// Nothing: as if the answer was lost.
    Lost,
    /// An address under another transaction's id.
    Misnumbered,
}

/// What a question gets, when, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// What it gets.
    pub answer: Answer,
    /// How long after the question.
    pub pause: Duration,
    /// How many times: more than one are duplicates.
    pub times: usize,
}

impl Reply {
    /// This answer once and at once.
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self { answer, pause: Duration::ZERO, times: 1 }
    }

    /// An address after each of these delays.
    #[must_use]
    pub fn delayed(delays: &[Duration]) -> Vec<Self> {
        delays.iter().map(|pause| Self { pause: *pause, ..Self::new(Answer::Address) }).collect()
    }
}

/// A responder that answers until it is dropped or its time is over.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    questions: Arc<AtomicU64>,
    _task: Task<()>,
}

impl DnsServer {
    /// Starts one that gives the n-th question the n-th reply, and begins anew after the last.
    pub fn start(
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        longest: Duration,
        script: Vec<Reply>,
    ) -> Result<Self> {
        let address = address.into();
        let socket = namespace.run(|| UdpSocket::bind(address));
        let socket = socket.with_context(|| format!("binding to {address}"))?;
        socket.set_read_timeout(Some(TICK))?;
        let address = socket.local_addr()?;
        let questions = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&questions);
        let task = Task::start(namespace, "dns-server", longest, move |stop| {
            respond(&socket, &script, stop, &counter);
        })?;
        Ok(Self { address, questions, _task: task })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Questions so far, answered or not.
    #[must_use]
    pub fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }
}

fn respond(socket: &UdpSocket, script: &[Reply], stop: &Stop, questions: &AtomicU64) {
    let mut replies = script.iter().cycle();
    let mut buffer = [0; LONGEST];
    let waiting = &AtomicUsize::new(0);
    std::thread::scope(|scope| {
        while !stop.now() {
            // An error here is a client's port that was closed before its answer came.
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            questions.fetch_add(1, Ordering::Relaxed);
            let Some(reply) = replies.next() else { return };
            let Some(message) = answer(&buffer[..length], reply.answer) else { continue };
            let send = move || {
                stop.sleep(reply.pause);
                for _ in 0..reply.times {
                    let _ = socket.send_to(&message, from);
                }
            };
            if reply.pause.is_zero() {
                send();
            } else if waiting.load(Ordering::Relaxed) < MOST_AT_ONCE {
                waiting.fetch_add(1, Ordering::Relaxed);
                scope.spawn(move || {
                    send();
                    waiting.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    });
}

/// The answer to a question; none if it is lost or the question is none.
fn answer(question: &[u8], answer: Answer) -> Option<Vec<u8>> {
    let mut message = Packet::parse(question).ok()?.into_reply();
    message.set_flags(PacketFlag::RECURSION_AVAILABLE);
    let asked = message.questions.first()?;
    let data = match asked.qtype {
        QTYPE::TYPE(TYPE::AAAA) => RData::AAAA(AAAA::from(ADDRESS6)),
        _ => RData::A(A::from(ADDRESS4)),
    };
    let record = ResourceRecord::new(asked.qname.clone(), CLASS::IN, 60, data);
    match answer {
        Answer::Lost => return None,
        Answer::Error(code) => *message.rcode_mut() = code,
        Answer::Address => message.answers.push(record),
        Answer::Misnumbered => {
            message.answers.push(record);
            message.set_id(!message.id());
        }
    }
    message.build_bytes_vec().ok()
}

/// One question as the client saw it.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// Whether it asked for an IPv6 address; else it was an IPv4 one.
    pub v6: bool,
    /// When it was handed to the kernel.
    pub written: Instant,
    /// From then to its first answer; none if it got none.
    pub answered: Option<Duration>,
    /// What the first answer said.
    pub code: Option<RCODE>,
    /// The addresses in it.
    pub addresses: Vec<IpAddr>,
    /// Answers after the first.
    pub duplicates: u64,
}

/// A client with one socket.
#[derive(Debug)]
pub struct DnsProbe {
    socket: UdpSocket,
    timeout: Duration,
    next_id: u16,
    strangers: u64,
}

impl DnsProbe {
    /// Opens one inside `namespace` that waits `timeout` for the answers to what is asked together.
    pub fn open(namespace: &Namespace, server: SocketAddr, timeout: Duration) -> Result<Self> {
        let socket = connected(namespace, server).with_context(|| format!("connecting to {server}"))?;
        Ok(Self { socket, timeout: patient(timeout), next_id: 1, strangers: 0 })
    }

    /// The port on this side.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// Messages that answered no question that was waited for.
    #[must_use]
    pub fn strangers(&self) -> u64 {
        self.strangers
    }

    /// Asks for the IPv4 address of `name`.
    pub fn ask(&mut self, name: &str) -> Result<Lookup> {
        let lookups = self.ask_together(&[(name, false)])?;
        lookups.into_iter().next().context("one question is one lookup")
    }

    /// Asks for both addresses of `name` without waiting in between, as resolvers do.
    pub fn ask_both(&mut self, name: &str) -> Result<Vec<Lookup>> {
        self.ask_together(&[(name, false), (name, true)])
    }

    /// Asks for several names and kinds of address (`true` is IPv6) before waiting for any answer. Each has an id
    /// of its own. Returns when all are answered.
    pub fn ask_together(&mut self, questions: &[(&str, bool)]) -> Result<Vec<Lookup>> {
        let mut lookups = BTreeMap::new();
        for (name, v6) in questions {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            let message = question(id, name, *v6)?;
            let written = Instant::now();
            self.socket.send(&message).context("sending a question")?;
            let unanswered =
                Lookup { v6: *v6, written, answered: None, code: None, addresses: Vec::new(), duplicates: 0 };
            lookups.insert(id, unanswered);
        }
        self.listen(&mut lookups, |lookups| lookups.values().all(|lookup| lookup.answered.is_some()))?;
        Ok(lookups.into_values().collect())
    }

    /// Waits the whole timeout for what still comes, and counts it among the [`strangers`](Self::strangers).
    pub fn listen_on(&mut self) -> Result<()> {
        self.listen(&mut BTreeMap::new(), |_| false)
    }

    fn listen(
        &mut self,
        lookups: &mut BTreeMap<u16, Lookup>,
        done: impl Fn(&BTreeMap<u16, Lookup>) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + self.timeout;
        let mut buffer = [0; LONGEST];
        while !done(lookups) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let at = Instant::now();
                    self.strangers += u64::from(!note(&buffer[..length], at, lookups));
                }
                Err(error) if timed_out(&error) => {}
                Err(error) => return Err(error).context("receiving answers"),
            }
        }
        Ok(())
    }
}

fn question(id: u16, name: &str, v6: bool) -> Result<Vec<u8>> {
    let mut message = Packet::new_query(id);
    message.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = if v6 { TYPE::AAAA } else { TYPE::A };
    let name = Name::new(name).with_context(|| format!("{name:?} is no name"))?;
    message.questions.push(Question::new(name, kind.into(), QCLASS::CLASS(CLASS::IN), false));
    message.build_bytes_vec().context("writing a question")
}

/// Notes an answer; false if no question is waiting for it.
fn note(message: &[u8], at: Instant, lookups: &mut BTreeMap<u16, Lookup>) -> bool {
    let Ok(message) = Packet::parse(message) else { return false };
    let Some(lookup) = lookups.get_mut(&message.id()) else { return false };
    if lookup.answered.is_some() {
        lookup.duplicates += 1;
        return true;
    }
    lookup.answered = Some(at.duration_since(lookup.written));
    lookup.code = Some(message.rcode());
    lookup.addresses = message.answers.iter().filter_map(|record| address(&record.rdata)).collect();
    true
}

fn address(data: &RData<'_>) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
        RData::AAAA(aaaa) => Some(Ipv6Addr::from(aaaa.address).into()),
        _ => None,
    }
}
