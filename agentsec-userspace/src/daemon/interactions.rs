//! Interactions: takes what the kernel tells of connections, and records what the book makes of it.

use std::collections::BTreeMap;

use agentsec_common::agent::Slot;
use agentsec_common::flow::{Flow, FlowKey, FlowRecord, OPENING_BYTES};
use agentsec_common::gate::state_in_force;
use agentsec_common::policy::{Mode, State};
use agentsec_common::profile::TELL_FLOWS;
use anyhow::Result;

use crate::clock;
use crate::config::Interactions as Wanted;
use crate::core::Time;
use crate::core::interaction::{Book, BookSettings, Remembered, Standing, Teller, opening};
use crate::kernel::ring::FlowTold;
use crate::record::writer::QUEUE_EVENTS;

use super::roster::{Key, Member};
use super::saver::Saver;
use super::{Daemon, told};

/// Records handled before anything else gets its turn: more than come within a tick.
const RECORDS_PER_TURN: usize = 8192;
/// Turns in which a full ring is read.
const RING_TURNS: usize = 4;
/// Bits of an address prefix that is one address.
const WHOLE: u32 = 128;

/// What the daemon keeps about interactions.
pub(super) struct Interactions {
    book: Book,
    /// Agents whose connections are told, as of the latest look at all of them.
    tellers: BTreeMap<Slot, Known>,
    /// What keeps what was told.
    saver: Saver,
}

/// What is needed of an agent while its connections are looked at.
struct Known {
    agent: String,
    owns_addresses: bool,
    is_open: bool,
}

impl Known {
    fn teller(&self) -> Teller<'_> {
        Teller { agent: &self.agent, owns_addresses: self.owns_addresses, is_open: self.is_open }
    }
}

impl Interactions {
    pub(super) fn new(settings: BookSettings, saver: Saver) -> Self {
        let mut seed = [0; 8];
        // Without it agents could foresee what is sampled, and nothing worse.
        let _ = getrandom::fill(&mut seed);
        Self { book: Book::new(settings, u64::from_ne_bytes(seed)), tellers: BTreeMap::new(), saver }
    }

    pub(super) fn configure(&mut self, settings: BookSettings) {
        self.book.configure(settings);
    }

    /// A connection that lives.
    pub(super) fn living(&mut self, now: Time, key: FlowKey, flow: &Flow) {
        if let Some(known) = self.tellers.get(&key.slot()) {
            self.book.living(now, known.teller(), key, flow);
        }
    }

    /// A connection that the daemon itself has found to be over.
    pub(super) fn found_over(&mut self, now: Time, key: FlowKey, flow: &Flow) {
        if let Some(known) = self.tellers.get(&key.slot()) {
            self.book.ended(now, known.teller(), &FlowRecord::of(key, flow));
        }
    }

    /// All connections were looked at.
    pub(super) fn looked(&mut self, now: Time) {
        self.book.saw_all(now);
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.tellers.remove(&slot);
        self.book.forget(slot);
    }
}

/// Whether the addresses that an agent uses are its own: those of a cgroup are its host's.
fn owns_addresses(member: &Member) -> bool {
    !member.seats.keys().any(|key| matches!(key, Key::Cgroup(_)))
}

impl Daemon {
    /// Notes whose connections are told, before all of them are looked at.
    pub(super) fn note_tellers(&mut self, now: Time) {
        let mut tellers = BTreeMap::new();
        for (slot, member) in self.roster.iter() {
            for key in member.seats.keys() {
                if let Key::Address(prefix) = key
                    && prefix.bits == WHOLE
                {
                    self.interactions.book.has_address(now, slot, prefix.address);
                }
            }
            if member.settings.profile.flags & TELL_FLOWS == 0 {
                continue;
            }
            let trip_seq = self.kernel.collector.ledger(slot).trip_seq;
            let is_open = self.kernel.enforcer.control(slot).is_some_and(|control| {
                control.mode == Mode::Enforce && state_in_force(control, trip_seq) == State::Open
            });
            let (agent, owns_addresses) = (member.id.clone(), owns_addresses(member));
            tellers.insert(slot, Known { agent, owns_addresses, is_open });
        }
        self.interactions.tellers = tellers;
    }

    /// Takes what the kernel tells of connections; true when nothing is left.
    pub(super) fn take_flows(&mut self) -> bool {
        let now = clock::now();
        for _ in 0..RECORDS_PER_TURN {
            let Some(told) = self.kernel.flows.take_told() else { return true };
            self.take_flow(now, told);
        }
        false
    }

    fn take_flow(&mut self, now: Time, told: FlowTold) {
        match told {
            FlowTold::Ended(record) => {
                let slot = record.key.slot();
                let Interactions { book, tellers, .. } = &mut self.interactions;
                let teller = match (self.roster.get(slot), tellers.get(&slot)) {
                    (Some(member), _) => {
                        let owns_addresses = owns_addresses(member);
                        Teller { agent: &member.id, owns_addresses, is_open: false }
                    }
                    // It has just been let go.
                    (None, Some(known)) => known.teller(),
                    (None, None) => return,
                };
                book.ended(now, teller, &record);
            }
            FlowTold::Opened(record) => {
                let length = (record.length as usize).min(OPENING_BYTES);
                let opening = opening::read(&record.bytes[..length]);
                self.interactions.book.opened(now, record.key, record.first_seen_ns, opening);
            }
        }
    }

    /// Records what has waited since the last tick.
    pub(super) fn keep_interactions(&mut self, now: Time) {
        let (standings, room) = (self.standings(now), self.room());
        let drafts = self.interactions.book.turn(now, &standings, room);
        self.record_all(now, drafts);
        if let Some(flows) = self.interactions.book.take_for_keeping() {
            self.keep_told(&flows);
        }
        self.tell_trouble("flows.json", self.interactions.saver.trouble());
    }

    /// Takes up what an earlier daemon has told of connections that live, and takes what has ended since, while it is known
    /// whose that was: some agents may not be configured any more.
    ///
    /// # Errors
    ///
    /// When the pins cannot be read.
    pub(super) fn remember_flows(&mut self, now: Time) -> Result<()> {
        match told::read(&self.options.state_dir, &self.boot_id) {
            Ok(flows) => self.interactions.book.remember(now, flows),
            Err(error) => self.complain("interactions", &error.context("some are told twice")),
        }
        for (slot, agent, _) in self.kernel.enforcer.agents()? {
            self.interactions.tellers.insert(slot, Known { agent, owns_addresses: false, is_open: false });
        }
        self.take_all_flows();
        Ok(())
    }

    /// Takes everything that waits; of a ring that fills up as quickly as it is read, as much as it holds.
    pub(super) fn take_all_flows(&mut self) {
        for _ in 0..RING_TURNS {
            if self.take_flows() {
                return;
            }
        }
    }

    fn keep_told(&mut self, flows: &[Remembered]) {
        match told::document(&self.boot_id, flows) {
            Ok(bytes) => {
                self.interactions.saver.save(bytes);
                self.alerts.retain(|alert| !alert.starts_with("interactions:"));
            }
            Err(error) => self.complain("interactions", &error),
        }
    }

    /// Records everything that waits, since the daemon stops.
    pub(super) fn finish_interactions(&mut self, now: Time) {
        self.take_all_flows();
        let (standings, room) = (self.standings(now), self.room());
        let drafts = self.interactions.book.finish(now, &standings, room);
        self.record_all(now, drafts);
        let flows = self.interactions.book.remembered();
        self.keep_told(&flows);
        self.interactions.saver.wait(super::LAST_SAVE);
    }

    /// How every agent stands; nothing when nobody asks.
    fn standings(&self, now: Time) -> BTreeMap<Slot, Standing> {
        if self.interactions.book.is_idle() {
            return BTreeMap::new();
        }
        let standing = |(slot, member): (Slot, &Member)| {
            let (state, risk_milli) = self.engine.standing(now, slot)?;
            let profile = self.config.profiles.get(&member.settings.profile_name);
            let complete = profile.is_some_and(|profile| profile.interactions == Wanted::All);
            Some((slot, Standing { agent: member.id.clone(), state, risk_milli, complete }))
        };
        self.roster.iter().filter_map(standing).collect()
    }

    /// How many interactions the journal has room for. While the log takes none, the greater part of the room is for what
    /// matters more.
    pub(super) fn room(&self) -> usize {
        (QUEUE_EVENTS / 4).saturating_sub(self.log.counts().queued) as usize
    }
}
