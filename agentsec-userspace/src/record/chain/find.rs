//! From facts to a chain.

use super::cast::Belief;
use super::common::Clients;
use super::contact::{Contact, contacts};
use super::reach::{Arrival, earliest};
use super::report::{Chain, Counts, Excluded, Hop, Moment, Outflow};
use super::story::{AddressNumber, AgentNumber, Mark, Sighting, Story};
use crate::core::community_id::{DEFAULT_SEED, FlowTuple};
use crate::core::protocol::protocol_name;
use crate::record::timestamp::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

/// Bytes to one endpoint that are much.
const MUCH: u64 = 1 << 20;
/// … if they are so many times what came back.
const TIMES: u64 = 4;

/// How to follow.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it begins.
    pub agent: String,
    /// From when, milliseconds since 1970: the agent counts as compromised from here on.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Per cent of all agents that make a service common.
    pub common_percent: u8,
}

/// An endpoint that is no agent.
type Outside = (u8, AddressNumber, u16);

/// The chain of a story; `None` if the agent is not in it.
#[must_use]
pub fn find(story: &Story, settings: &Settings) -> Option<Chain> {
    let start = story.number_of(&settings.agent)?;
    let (contacts, outside) = contacts(story);
    let pairs = contacts.iter().map(|contact| (contact.from, contact.to));
    let clients = Clients::count(pairs, story.agents(), settings.common_percent);
    let signs = signs(story);
    let admits = |agent: AgentNumber, at: u64| {
        !clients.is_common(agent) || signs.get(&agent).is_some_and(|last| *last >= at)
    };
    let arrivals = earliest(story.agents(), &contacts, start, settings.from.0, admits);
    let search = Search { story, contacts: &contacts, arrivals: &arrivals, clients: &clients, start };
    let (exfiltration, mut excluded, other_endpoints) = search.outflows(&outside, settings.common_percent);
    excluded.extend(search.common_agents());
    excluded.sort_by(|a, b| (b.clients, &a.what).cmp(&(a.clients, &b.what)));
    let sampled = story.sampled.iter().filter(|(agent, _)| arrivals[**agent as usize].is_some());
    Some(Chain {
        agent: settings.agent.clone(),
        earlier_signs: None,
        from: settings.from,
        to: settings.to,
        initial_compromise: search.moments(|mark| mark.agent == start && !is_containment(mark)),
        lateral_movement: search.hops(),
        exfiltration,
        containment: search.moments(is_containment),
        excluded,
        counts: Counts {
            agents: story.agents(),
            interactions: story.interactions(),
            left_out: story.left_out,
            sampled_out: sampled.map(|(_, count)| count).sum(),
            other_endpoints,
        },
    })
}

fn is_containment(mark: &Mark) -> bool {
    mark.noticed.kind == "CONTAINMENT_ACTION"
}

/// The latest sign of compromise of each agent that has any.
fn signs(story: &Story) -> BTreeMap<AgentNumber, u64> {
    let mut latest = BTreeMap::new();
    let signs = story.marks.iter().filter(|mark| super::SIGNS.contains(&mark.noticed.kind.as_str()));
    for mark in signs {
        let known = latest.entry(mark.agent).or_insert(0);
        *known = mark.noticed.at.max(*known);
    }
    latest
}

struct Search<'a> {
    story: &'a Story,
    contacts: &'a [Contact],
    arrivals: &'a [Option<Arrival>],
    clients: &'a Clients<AgentNumber>,
    start: AgentNumber,
}

/// Contacts of one agent with another after it was reached.
#[derive(Clone, Debug, Default)]
struct Sum {
    interactions: u64,
    sent: u64,
    received: u64,
    first: u64,
    last: u64,
    first_sighting: u32,
}

impl Sum {
    fn add(&mut self, number: u32, sighting: &Sighting) {
        let (sent, received) = sighting.bytes;
        let (sent, received) = if sighting.opened { (sent, received) } else { (received, sent) };
        if self.interactions == 0 || sighting.span.0 < self.first {
            (self.first, self.first_sighting) = (sighting.span.0, number);
        }
        self.interactions += 1;
        self.sent += sent;
        self.received += received;
        self.last = self.last.max(sighting.span.1);
    }
}

impl Search<'_> {
    fn arrival(&self, agent: AgentNumber) -> Option<Arrival> {
        self.arrivals[agent as usize]
    }

    fn sighting(&self, number: u32) -> &Sighting {
        &self.story.sightings[number as usize]
    }

    /// Marks of reached agents, from when they were reached.
    fn moments(&self, wanted: impl Fn(&Mark) -> bool) -> Vec<Moment> {
        let reached =
            |mark: &&Mark| self.arrival(mark.agent).is_some_and(|arrival| mark.noticed.at >= arrival.at);
        let marks = self.story.marks.iter().filter(|mark| wanted(mark)).filter(reached);
        let mut moments: Vec<_> = marks
            .map(|mark| Moment {
                at: Timestamp(mark.noticed.at),
                agent: mark.noticed.agent.clone(),
                event_type: mark.noticed.kind.clone(),
                what: mark.noticed.what.clone(),
            })
            .collect();
        moments.sort_by_key(|moment| moment.at);
        moments
    }

    /// What every reached agent had to do with every agent that it talked to afterwards. Where both sides tell of a
    /// flow, it is counted as the opening side tells it.
    fn sums(&self) -> BTreeMap<(AgentNumber, AgentNumber), Sum> {
        let mut sums: HashMap<_, [Sum; 2]> = HashMap::new();
        for contact in self.contacts {
            let after = self.arrival(contact.from).is_some_and(|arrival| contact.span.1 >= arrival.at);
            if after {
                let sighting = self.sighting(contact.sighting);
                let side = usize::from(!sighting.opened);
                sums.entry((contact.from, contact.to)).or_default()[side].add(contact.sighting, sighting);
            }
        }
        let told = |[opened, accepted]: [Sum; 2]| if opened.interactions > 0 { opened } else { accepted };
        sums.into_iter().map(|(pair, both)| (pair, told(both))).collect()
    }

    fn hops(&self) -> Vec<Hop> {
        let sums = self.sums();
        let mut reached: Vec<(Arrival, AgentNumber)> = (0..self.arrivals.len() as AgentNumber)
            .filter_map(|agent| Some((self.arrival(agent)?, agent)))
            .filter(|(arrival, _)| arrival.through.is_some())
            .collect();
        reached.sort_by_key(|(arrival, agent)| (arrival.at, arrival.hops, *agent));
        reached.into_iter().filter_map(|(arrival, to)| self.hop(arrival, to, &sums)).collect()
    }

    fn hop(
        &self,
        arrival: Arrival,
        to: AgentNumber,
        sums: &BTreeMap<(AgentNumber, AgentNumber), Sum>,
    ) -> Option<Hop> {
        let contact = &self.contacts[arrival.through? as usize];
        let sighting = self.sighting(contact.sighting);
        let sum = sums.get(&(contact.from, to))?;
        let others = sums.keys().filter(|(from, other)| *other == to && *from != contact.from && *from != to);
        let accepting = if sighting.opened { sighting.remote } else { sighting.local };
        Some(Hop {
            hop: arrival.hops,
            at: Timestamp(arrival.at),
            from: self.story.name(contact.from).into(),
            to: self.story.name(to).into(),
            protocol: protocol_name(sighting.protocol).into(),
            endpoint: self.socket(accepting),
            correlation_id: self.community_id(sighting),
            interactions: sum.interactions,
            bytes_sent: sum.sent,
            bytes_received: sum.received,
            clients: self.clients.of(to),
            because: self.reasons(contact, arrival),
            other_ways: others.map(|(from, _)| self.story.name(*from).to_owned()).collect(),
        })
    }

    fn reasons(&self, contact: &Contact, arrival: Arrival) -> Vec<String> {
        let (from, to) = (self.story.name(contact.from), self.story.name(contact.to));
        let mut reasons = vec![match contact.belief {
            Belief::BothSides => "both sides tell of the same flow".to_owned(),
            Belief::Named => {
                format!("the event names {}", if self.sighting(contact.sighting).opened { to } else { from })
            }
            Belief::Listener => format!("only {to} accepts at that address and port"),
            Belief::Address => format!(
                "only {} is at that address",
                if self.sighting(contact.sighting).opened { to } else { from }
            ),
        }];
        let began = self.arrival(contact.from).map_or(0, |arrival| arrival.at);
        reasons.push(if contact.span.0 < began {
            format!("the flow was open when {from} was reached")
        } else {
            format!("{from} opened it after it was reached")
        });
        let sighting = self.sighting(contact.sighting);
        if sighting.opened {
            reasons.extend(self.naming(contact.from, sighting.remote, began));
        }
        let own = |mark: &&Mark| {
            let is_sign = super::SIGNS.contains(&mark.noticed.kind.as_str());
            mark.agent == contact.to && is_sign && mark.noticed.at >= arrival.at
        };
        if let Some(mark) = self.story.marks.iter().filter(own).min_by_key(|mark| mark.noticed.at) {
            let (kind, at) = (&mark.noticed.kind, Timestamp(mark.noticed.at));
            reasons.push(format!("{to} shows signs of its own afterwards: {kind} at {at}"));
        }
        reasons
    }

    /// A mark of the agent, since it was reached, that names the endpoint.
    fn naming(&self, agent: AgentNumber, remote: (AddressNumber, u16), since: u64) -> Option<String> {
        let endpoint = (self.story.ip(remote.0), remote.1);
        let names = |mark: &&Mark| {
            let same = mark.noticed.endpoint.is_some_and(|(ip, port)| (ip.to_canonical(), port) == endpoint);
            mark.agent == agent && same && mark.noticed.at >= since
        };
        let mark = self.story.marks.iter().find(names)?;
        Some(format!("{} names the endpoint at {}", mark.noticed.kind, Timestamp(mark.noticed.at)))
    }

    /// Suspicious endpoints outside, common ones, and how many others there are.
    fn outflows(&self, outside: &[u32], percent: u8) -> (Vec<Outflow>, Vec<Excluded>, usize) {
        let key =
            |sighting: &Sighting| -> Outside { (sighting.protocol, sighting.remote.0, sighting.remote.1) };
        let opened =
            || outside.iter().map(|&number| (number, self.sighting(number))).filter(|(_, one)| one.opened);
        let pairs = opened().map(|(_, one)| (one.agent, key(one)));
        let clients = Clients::count(pairs, self.story.agents(), percent);
        let mut sums: BTreeMap<(Outside, AgentNumber), (Sum, bool)> = BTreeMap::new();
        let mut had_before = vec![false; self.story.agents()];
        for (number, one) in opened() {
            let Some(arrival) = self.arrival(one.agent) else { continue };
            if one.span.1 >= arrival.at {
                sums.entry((key(one), one.agent)).or_default().0.add(number, one);
            } else {
                had_before[one.agent as usize] = true;
                sums.entry((key(one), one.agent)).or_default().1 = true;
            }
        }
        let (mut outflows, mut common, mut others) = (Vec::new(), BTreeMap::<Outside, Excluded>::new(), 0);
        for ((endpoint, agent), (sum, before)) in
            sums.into_iter().filter(|(_, (sum, _))| sum.interactions > 0)
        {
            let named =
                self.naming(agent, (endpoint.1, endpoint.2), self.arrival(agent).map_or(0, |one| one.at));
            if clients.is_common(endpoint) && named.is_none() {
                let entry = common.entry(endpoint).or_insert_with(|| Excluded {
                    what: format!("{} {}", protocol_name(endpoint.0), self.socket((endpoint.1, endpoint.2))),
                    clients: clients.of(endpoint),
                    talked_to_by: Vec::new(),
                    bytes_sent: 0,
                });
                entry.talked_to_by.push(self.story.name(agent).into());
                entry.bytes_sent += sum.sent;
                continue;
            }
            let earlier = self.story.opened_earlier(agent, endpoint);
            let has_history = had_before[agent as usize] || earlier.is_some();
            let is_new = has_history && !before && earlier != Some(true);
            let because: Vec<String> = named
                .into_iter()
                .chain(is_new.then(|| "not talked to before the agent was reached".to_owned()))
                .chain(is_much(&sum).then(|| {
                    format!("much was sent, and {} times what came back", sum.sent / sum.received.max(1))
                }))
                .collect();
            if because.is_empty() {
                others += 1;
            } else {
                outflows.push(self.outflow(agent, endpoint, &sum, because));
            }
        }
        outflows.sort_by_key(|one| (std::cmp::Reverse(one.bytes_sent), one.first));
        (outflows, common.into_values().collect(), others)
    }

    fn outflow(&self, agent: AgentNumber, endpoint: Outside, sum: &Sum, because: Vec<String>) -> Outflow {
        Outflow {
            agent: self.story.name(agent).into(),
            endpoint: self.socket((endpoint.1, endpoint.2)),
            protocol: protocol_name(endpoint.0).into(),
            first: Timestamp(sum.first),
            last: Timestamp(sum.last),
            interactions: sum.interactions,
            bytes_sent: sum.sent,
            bytes_received: sum.received,
            correlation_id: self.community_id(self.sighting(sum.first_sighting)),
            because,
        }
    }

    /// Common agents that reached ones talked to and that were not followed.
    fn common_agents(&self) -> Vec<Excluded> {
        let mut found: BTreeMap<AgentNumber, Excluded> = BTreeMap::new();
        for ((from, to), sum) in self.sums() {
            if to == self.start || !self.clients.is_common(to) || self.arrival(to).is_some() {
                continue;
            }
            let entry = found.entry(to).or_insert_with(|| Excluded {
                what: self.story.name(to).into(),
                clients: self.clients.of(to),
                talked_to_by: Vec::new(),
                bytes_sent: 0,
            });
            entry.talked_to_by.push(self.story.name(from).into());
            entry.bytes_sent += sum.sent;
        }
        found.into_values().collect()
    }

    fn socket(&self, (address, port): (AddressNumber, u16)) -> String {
        SocketAddr::new(self.story.ip(address), port).to_string()
    }

    fn community_id(&self, sighting: &Sighting) -> Option<String> {
        let flow = FlowTuple {
            protocol: sighting.protocol,
            source: self.story.ip(sighting.local.0),
            destination: self.story.ip(sighting.remote.0),
            source_port: sighting.local.1,
            destination_port: sighting.remote.1,
        };
        (![1, 58].contains(&sighting.protocol)).then(|| flow.community_id(DEFAULT_SEED))
    }
}

fn is_much(sum: &Sum) -> bool {
    sum.sent >= MUCH && sum.sent >= sum.received.saturating_mul(TIMES)
}
