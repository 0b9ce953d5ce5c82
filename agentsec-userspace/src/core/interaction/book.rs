//! From what the kernel tells of flows to events.
//!
//! A flow is told when it is over, and at an interval while it lives: what passed since it was last told, and all at once
//! when its agent's circuit is OPEN. Each waits for one turn, so that what an agent on the other side saw of it is known by
//! then. How many events there are in a turn is bounded, and the bound shared fairly between agents; what goes beyond is
//! counted, and told.

use super::memory::Copied;
use super::opening::Opening;
use super::peers::Peers;
use super::record::{Told, summary};
use super::sample::{LeftOut, told};
use super::{FlowSummary, Peer, Sampler, SamplingSettings, Standing};
use crate::core::draft::Draft;
use crate::core::time::Time;
use agentsec_common::agent::Slot;
use agentsec_common::endpoint::Address;
use agentsec_common::flow::{Flow, FlowKey, FlowRecord};
use std::collections::{BTreeMap, HashMap};

const SECOND_NS: u64 = 1_000_000_000;
/// Flows that wait for their turn, at most.
const WAITING: usize = 65_536;
/// What is known of a flow that was not seen for so long is forgotten, nanoseconds.
const UNSEEN_NS: u64 = 5 * SECOND_NS;
/// Least time between two events of what went beyond the bound, of one agent, nanoseconds.
const QUIET_NS: u64 = 5 * SECOND_NS;

/// How interactions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookSettings {
    /// What of calm agents is left out.
    pub sampling: SamplingSettings,
    /// A flow that lives is told so often, nanoseconds.
    pub tell_every_ns: u64,
    /// The most events a second, of all agents.
    pub max_per_second: u32,
}

impl Default for BookSettings {
    fn default() -> Self {
        Self { sampling: SamplingSettings::default(), tell_every_ns: 60 * SECOND_NS, max_per_second: 1000 }
    }
}

/// An agent whose flow is told.
#[derive(Clone, Copy, Debug)]
pub struct Teller<'a> {
    /// Its id.
    pub agent: &'a str,
    /// Whether the addresses that it uses are its own: not in a cgroup.
    pub owns_addresses: bool,
    /// Whether its circuit is OPEN: all is told at once.
    pub is_open: bool,
}

/// What is known of a flow between its records.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) first_seen_ns: u64,
    pub(super) opening: Option<Opening>,
    pub(super) told: Told,
    pub(super) told_ns: u64,
    pub(super) seen_ns: u64,
}

/// A flow that waits for its turn.
#[derive(Clone, Debug)]
struct Waiting {
    key: FlowKey,
    local: Address,
    summary: FlowSummary,
}

/// A flow that is to be recorded.
struct Admitted {
    summary: FlowSummary,
    peer: Option<Peer>,
}

/// What is kept between records and events.
#[derive(Clone, Debug)]
pub struct Book {
    settings: BookSettings,
    sampler: Sampler,
    peers: Peers,
    pub(super) known: HashMap<FlowKey, Known>,
    fresh: Vec<Waiting>,
    ripe: Vec<Waiting>,
    /// What went beyond the bound, by agent, with when the first of it did.
    beyond: BTreeMap<String, (u64, LeftOut)>,
    /// How much of a second's events may be recorded at once, nanoseconds.
    credit_ns: u64,
    turned_ns: u64,
    pub(super) turns: u64,
    /// Something was told of a flow that lives, or of one of which something was told.
    pub(super) has_told: bool,
    pub(super) copied: Option<Copied>,
}

impl Book {
    /// An empty one. The seed is nobody else's to know.
    #[must_use]
    pub fn new(settings: BookSettings, seed: u64) -> Self {
        Self {
            settings,
            sampler: Sampler::new(settings.sampling, seed),
            peers: Peers::default(),
            known: HashMap::new(),
            fresh: Vec::new(),
            ripe: Vec::new(),
            beyond: BTreeMap::new(),
            credit_ns: SECOND_NS,
            turned_ns: 0,
            turns: 0,
            has_told: false,
            copied: None,
        }
    }

    /// Other settings from now on.
    pub fn configure(&mut self, settings: BookSettings) {
        self.settings = settings;
        self.sampler.configure(settings.sampling);
    }

    /// What a flow began with.
    pub fn opened(&mut self, now: Time, key: FlowKey, first_seen_ns: u64, opening: Opening) {
        let known = Known {
            first_seen_ns,
            opening: Some(opening),
            told: Told::default(),
            told_ns: first_seen_ns,
            seen_ns: now.mono_ns,
        };
        self.known.insert(key, known);
    }

    /// A flow is over.
    pub fn ended(&mut self, now: Time, teller: Teller<'_>, record: &FlowRecord) {
        self.saw(now, teller, &record.key, record.local, record.packets);
        let known =
            self.known.remove(&record.key).filter(|known| known.first_seen_ns == record.first_seen_ns);
        let (told, opening) = known.map_or_else(Default::default, |known| (known.told, known.opening));
        self.has_told |= told != Told::default();
        if told.is_behind(record) {
            let summary = summary(teller.agent, record, &told, opening, true);
            self.wait(now, Waiting { key: record.key, local: record.local, summary });
        }
    }

    /// A flow lives: tells it when it is time.
    pub fn living(&mut self, now: Time, teller: Teller<'_>, key: FlowKey, flow: &Flow) {
        self.saw(now, teller, &key, flow.local, flow.packets);
        let known = self.known.get_mut(&key).filter(|known| known.first_seen_ns == flow.first_seen_ns);
        let told_ns = match known {
            Some(known) => {
                known.seen_ns = now.mono_ns;
                known.told_ns
            }
            None => flow.first_seen_ns,
        };
        if !teller.is_open && now.mono_ns.saturating_sub(told_ns) < self.settings.tell_every_ns {
            return;
        }
        let record = FlowRecord::of(key, flow);
        let known = self.known.remove(&key).filter(|known| known.first_seen_ns == flow.first_seen_ns);
        let (told, opening) = known.map_or_else(Default::default, |known| (known.told, known.opening));
        if told.is_behind(&record) {
            let summary = summary(teller.agent, &record, &told, opening.clone(), false);
            self.wait(now, Waiting { key, local: flow.local, summary });
        }
        let known = Known {
            first_seen_ns: flow.first_seen_ns,
            opening,
            told: Told::all(&record),
            told_ns: now.mono_ns,
            seen_ns: now.mono_ns,
        };
        self.known.insert(key, known);
        self.has_told = true;
    }

    /// All living flows were seen: what was told of others will not be needed any more.
    pub fn saw_all(&mut self, now: Time) {
        self.known.retain(|_, known| now.mono_ns.saturating_sub(known.seen_ns) <= UNSEEN_NS);
        self.copy();
    }

    /// An address is configured as an agent's.
    pub fn has_address(&mut self, now: Time, slot: Slot, address: Address) {
        self.peers.has_address(now.mono_ns, slot, address);
    }

    fn saw(&mut self, now: Time, teller: Teller<'_>, key: &FlowKey, local: Address, packets: [u64; 2]) {
        let both_ways = packets.iter().all(|count| *count > 0);
        self.peers.saw(now.mono_ns, key, local, teller.owns_addresses && both_ways);
    }

    fn wait(&mut self, now: Time, waiting: Waiting) {
        if self.fresh.len() < WAITING {
            self.fresh.push(waiting);
        } else {
            self.goes_beyond(now, &waiting.summary);
        }
    }

    fn goes_beyond(&mut self, now: Time, flow: &FlowSummary) {
        let (_, left_out) =
            self.beyond.entry(flow.agent.clone()).or_insert_with(|| (now.mono_ns, LeftOut::default()));
        left_out.add(flow);
    }

    /// Whether a turn would do nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ripe.is_empty() && self.fresh.is_empty()
    }

    /// The events of what has waited since the turn before this one, at most `room`.
    pub fn turn(&mut self, now: Time, standings: &BTreeMap<Slot, Standing>, room: usize) -> Vec<Draft> {
        self.credit_ns = SECOND_NS.min(self.credit_ns + now.mono_ns.saturating_sub(self.turned_ns));
        self.turned_ns = now.mono_ns;
        self.turns += 1;
        self.peers.clean(now.mono_ns);
        let ripe = std::mem::replace(&mut self.ripe, std::mem::take(&mut self.fresh));
        // First, so that an interval that is over is over for both sides of what is recorded now.
        let mut drafts = self.sampler.end_intervals(now);
        let room = room.saturating_sub(drafts.len());
        drafts.extend(self.record(now, ripe, standings, room));
        drafts.extend(self.tell_beyond(now, QUIET_NS));
        drafts
    }

    /// The events of all that waits, and of all that was counted: the daemon stops.
    pub fn finish(&mut self, now: Time, standings: &BTreeMap<Slot, Standing>, room: usize) -> Vec<Draft> {
        let mut drafts = self.turn(now, standings, room);
        drafts.extend(self.turn(now, standings, room.saturating_sub(drafts.len())));
        drafts.extend(self.sampler.end_all(now));
        drafts.extend(self.tell_beyond(now, 0));
        drafts
    }

    fn record(
        &mut self,
        now: Time,
        ripe: Vec<Waiting>,
        standings: &BTreeMap<Slot, Standing>,
        room: usize,
    ) -> Vec<Draft> {
        let mut admitted = Vec::new();
        for Waiting { key, local, summary } in ripe {
            let found = self.peers.of(&key, local);
            let peer = found.and_then(|(slot, by)| Some((standings.get(&slot)?, by)));
            // Of who is known no more everything is recorded: nobody knows how risky it was.
            let admits = standings.get(&key.slot()).is_none_or(|standing| {
                self.sampler.admits(now, &summary, standing, peer.map(|(standing, _)| standing))
            });
            if admits {
                let peer = peer.map(|(standing, by)| Peer { agent: standing.agent.clone(), by });
                admitted.push(Admitted { summary, peer });
            }
        }
        self.bound(now, admitted, room)
    }

    /// Records as many as may be.
    fn bound(&mut self, now: Time, admitted: Vec<Admitted>, room: usize) -> Vec<Draft> {
        let rate = u64::from(self.settings.max_per_second.max(1));
        let bound = usize::try_from(self.credit_ns.saturating_mul(rate) / SECOND_NS).unwrap_or(usize::MAX);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        admitted.iter().for_each(|one| *counts.entry(&one.summary.agent).or_default() += 1);
        let mut shares: BTreeMap<String, usize> = shares(&counts, bound.min(room));
        let mut drafts = Vec::new();
        for Admitted { summary, peer } in admitted {
            match shares.get_mut(&summary.agent).filter(|share| **share > 0) {
                Some(share) => {
                    *share -= 1;
                    drafts.push(summary.draft(now, peer.as_ref()));
                }
                None => self.goes_beyond(now, &summary),
            }
        }
        self.credit_ns = self.credit_ns.saturating_sub(drafts.len() as u64 * SECOND_NS / rate);
        drafts
    }

    fn tell_beyond(&mut self, now: Time, after_ns: u64) -> Vec<Draft> {
        let is_due = |since_ns: u64| now.mono_ns.saturating_sub(since_ns) >= after_ns;
        let due = self.beyond.extract_if(.., |_, (since_ns, _)| is_due(*since_ns));
        due.map(|(agent, (since_ns, left_out))| {
            told(now, agent, "interactions_dropped", left_out, since_ns, 1)
        })
        .collect()
    }

    /// Forgets an agent, but for what waits to be recorded.
    pub fn forget(&mut self, slot: Slot) {
        self.known.retain(|key, _| key.slot() != slot);
        self.peers.forget(slot);
    }
}

/// How many of its flows each agent may record, of `bound` together: who has few has all of them.
fn shares(counts: &BTreeMap<&str, usize>, bound: usize) -> BTreeMap<String, usize> {
    let mut by_count: Vec<(usize, &str)> = counts.iter().map(|(agent, count)| (*count, *agent)).collect();
    by_count.sort_unstable();
    let (mut left, mut agents) = (bound, by_count.len());
    let mut shares = BTreeMap::new();
    for (count, agent) in by_count {
        let share = count.min(left.div_ceil(agents.max(1)));
        left -= share;
        agents -= 1;
        shares.insert(agent.to_owned(), share);
    }
    shares
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
