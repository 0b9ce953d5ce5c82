//! Looks at the connections once a second: forgets those that are over, and finds answers that are late. And says the
//! signals that only the daemon sees, whoever has found them.

use std::collections::{BTreeMap, HashMap};

use agentsec_common::agent::Slot;
use agentsec_common::endpoint::EndpointKey;
use agentsec_common::flow::{Flow, FlowKey};
use agentsec_common::profile::FOLLOW_FLOWS;
use agentsec_common::window::Moment;
use anyhow::Result;

use crate::clock;
use crate::core::flows::{Expected, Finding, Late, Untold, endpoint_of, look};
use crate::core::slow::Slow;
use crate::core::{Input, Time};

use super::Daemon;
use super::endpoints::{List, pressing};

/// Between two looks at all connections, nanoseconds.
const INTERVAL_NS: u64 = 1_000_000_000;

/// What the daemon keeps about connections.
#[derive(Debug, Default)]
pub(super) struct Flows {
    next_look_ns: u64,
    slow: BTreeMap<Slot, Slow>,
    /// What has passed on connections that are over and were never told to their endpoints: only the kernel writes there.
    owed: HashMap<EndpointKey, Untold>,
}

impl Flows {
    /// What the endpoints of an agent are owed.
    pub(super) fn owed_to(&self, slot: Slot) -> impl Iterator<Item = (EndpointKey, Untold)> + '_ {
        self.owed.iter().filter(move |(key, _)| key.slot == slot).map(|(key, untold)| (*key, *untold))
    }

    /// An endpoint is forgotten, and what it is owed.
    pub(super) fn forget_owed(&mut self, key: &EndpointKey) {
        self.owed.remove(key);
    }
}

impl Flows {
    /// Counts failed authentications that somebody found, at a moment of the agent's windows.
    pub(super) fn fail(&mut self, slot: Slot, moment: Moment, failures: u32) {
        self.slow.entry(slot).or_default().fail(moment, failures);
    }
}

impl Daemon {
    /// Looks at the connections when it is time, and says the slow signals.
    pub(super) fn keep_flows(&mut self, now: Time) {
        self.note_epochs(now);
        if now.mono_ns >= self.flows.next_look_ns {
            self.flows.next_look_ns = now.mono_ns + INTERVAL_NS;
            self.look_at_flows(now);
        }
        self.say_slow_signals(now);
    }

    /// Notes every agent's epoch as soon as it begins, whether it has connections or not.
    fn note_epochs(&mut self, now: Time) {
        for slot in self.roster.slots() {
            if let Some(control) = self.kernel.enforcer.control(slot) {
                self.flows.slow.entry(slot).or_default().since_ns(now.mono_ns, control.epoch);
            }
        }
    }

    fn look_at_flows(&mut self, now: Time) {
        let expected = self.expected(now);
        self.note_tellers(now);
        let mut late: BTreeMap<Slot, Late> = expected.keys().map(|slot| (*slot, Late::default())).collect();
        let mut over = Vec::new();
        if !expected.is_empty() {
            let interactions = &mut self.interactions;
            let read = self.kernel.collector.each_flow(|key, flow| {
                // What is nobody's is emptied when its slot is let go.
                let Some(expected) = expected.get(&key.slot()) else { return };
                let finding = look(now.mono_ns, &key, &flow, expected);
                if let Finding::Late(deviation_ns) = finding {
                    late.entry(key.slot()).or_default().add(deviation_ns);
                }
                match finding {
                    Finding::Over => over.push((key, flow)),
                    Finding::Fine | Finding::Late(_) => interactions.living(now, key, &flow),
                }
            });
            if let Err(error) = read {
                self.complain("connections", &error);
            }
        }
        self.forget_over(now, &over);
        self.interactions.looked(now);
        for (slot, late) in late {
            self.set_late(now, slot, late);
        }
    }

    /// What is expected of the agents that have connections.
    fn expected(&mut self, now: Time) -> BTreeMap<Slot, Expected> {
        let lists: Vec<List> =
            self.roster.slots().into_iter().filter_map(|slot| self.flow_list(slot)).collect();
        let pressing = pressing(&lists, u64::from(self.config.daemon.max_flows));
        let mut expected = BTreeMap::new();
        // Who has none any more has no answer that is late.
        self.flows.slow.iter_mut().for_each(|(_, slow)| slow.set_deviation_100us(0));
        for slot in lists.iter().filter(|list| list.live[0] > 0).map(|list| list.slot) {
            let (Some(profile), Some(window_ns), Some(control)) =
                (self.roster.profile(slot), self.roster.window_ns(slot), self.kernel.enforcer.control(slot))
            else {
                continue;
            };
            let slow = self.flows.slow.entry(slot).or_default();
            let since_ns = slow.since_ns(now.mono_ns, control.epoch);
            expected.insert(slot, Expected::by(profile, window_ns, since_ns, pressing.contains(&slot)));
        }
        expected
    }

    fn flow_list(&self, slot: Slot) -> Option<List> {
        let profile = self.roster.profile(slot)?;
        let live = self.live_flows(slot);
        // Who is followed no more still has a list that has to be emptied.
        let is_followed = profile.flags & FOLLOW_FLOWS != 0 || live > 0;
        is_followed.then(|| List { slot, live: [live, 0], cap: profile.flow_cap.into() })
    }

    /// Connections in an agent's list.
    pub(super) fn live_flows(&self, slot: Slot) -> u64 {
        let ledger = self.kernel.collector.ledger(slot);
        let removed = self.kernel.enforcer.flows_removed(slot);
        // The three are read one after the other: for a moment more may have ended than were there.
        let live = ledger.flows_inserted.wrapping_sub(ledger.flows_ended).wrapping_sub(removed);
        if live > u64::MAX / 2 { 0 } else { live }
    }

    fn forget_over(&mut self, now: Time, over: &[(FlowKey, Flow)]) {
        let mut removed: BTreeMap<Slot, u64> = BTreeMap::new();
        for (key, flow) in over {
            match self.kernel.collector.remove_flow(key) {
                Ok(true) => {
                    *removed.entry(key.slot()).or_default() += 1;
                    self.owe(key, flow);
                    self.interactions.found_over(now, *key, flow);
                }
                Ok(false) => {}
                Err(error) => self.complain("connections", &error),
            }
        }
        for (slot, count) in removed {
            self.kernel.enforcer.add_flows_removed(slot, count);
        }
    }

    /// Keeps what a connection that is over has not told its endpoint.
    fn owe(&mut self, key: &FlowKey, flow: &Flow) {
        let untold = Untold::of(flow);
        // Endpoints that found no room are owed nothing that anybody would show.
        let has_room = self.flows.owed.len() < self.config.daemon.max_endpoints as usize;
        if untold.any() && has_room {
            self.flows.owed.entry(endpoint_of(key, flow)).or_default().add(&untold);
        }
    }

    fn set_late(&mut self, now: Time, slot: Slot, late: Late) {
        let (Some(profile), Some(control)) = (self.roster.profile(slot), self.kernel.enforcer.control(slot))
        else {
            return;
        };
        let moment = profile.bucket_clock().moment(now.mono_ns, control.epoch);
        let ledger = self.kernel.collector.ledger(slot);
        let deviation = late.deviation_100us(moment.sum(&ledger.deviation), moment.sum(&ledger.responses));
        self.flows.slow.entry(slot).or_default().set_deviation_100us(deviation);
    }

    /// Says what lasts of the signals that only the daemon sees.
    pub(super) fn say_slow_signals(&mut self, now: Time) {
        let mut said = Vec::new();
        for (slot, slow) in &mut self.flows.slow {
            let (Some(profile), Some(control)) =
                (self.roster.profile(*slot), self.kernel.enforcer.control(*slot))
            else {
                continue;
            };
            let signals = slow.say(now.mono_ns, profile.bucket_clock(), control.epoch);
            said.extend(signals.map(|signals| Input::Signals { slot: *slot, signals }));
        }
        for input in said {
            self.handle(now, input);
        }
    }

    /// Empties the list of a slot for which no program runs any more, and makes its counts even.
    pub(super) fn forget_flows(&mut self, slot: Slot) -> Result<()> {
        let now = clock::now();
        self.take_all_flows();
        self.flows.slow.remove(&slot);
        self.flows.owed.retain(|key, _| key.slot != slot);
        self.samples.forget(slot);
        self.recent.remove(&slot);
        let mut left = Vec::new();
        self.kernel
            .collector
            .each_flow(|key, flow| left.extend((key.slot() == slot).then_some((key, flow))))?;
        for (key, flow) in left {
            self.kernel.collector.remove_flow(&key)?;
            self.interactions.found_over(now, key, &flow);
        }
        self.interactions.forget(slot);
        self.kernel.enforcer.add_flows_removed(slot, self.live_flows(slot));
        Ok(())
    }
}
