//! A rig with one interface, on which one agent after the other takes its turn.

use std::ops::{Deref, DerefMut};

use super::frames::address as stored;
use agentsec_common::agent::{Direction, Identity, LinkAddress, LinkIpv4, Slot};
use agentsec_common::counters::Traffic;
use agentsec_common::policy::{Control, Mode, State};
use anyhow::{Context, Result};

use super::door::{Door, Inside};
use super::frames::{AGENT4, AGENT6};
use super::{Fate, LOOPBACK, Rig, Sizes, Skb};

/// Gives every agent a slot of its own, so that rows of a table do not see each other's counts.
pub struct Arena {
    rig: Rig,
    next: Slot,
    door: Door,
    inside: Option<Inside>,
}

/// An agent that has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its slot.
    pub slot: Slot,
    /// Its control word as last written.
    pub control: Control,
}

/// What the counters say about one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes and packets that passed.
    pub passed: (u64, u64),
    /// Bytes and packets that were dropped.
    pub dropped: (u64, u64),
}

impl From<Traffic> for Tally {
    fn from(traffic: Traffic) -> Self {
        Self {
            passed: (traffic.bytes, traffic.packets),
            dropped: (traffic.dropped_bytes, traffic.dropped_packets),
        }
    }
}

impl Arena {
    /// An arena with maps of the default sizes.
    pub fn new() -> Result<Self> {
        Self::sized(Sizes::default())
    }

    /// An arena.
    pub fn sized(sizes: Sizes) -> Result<Self> {
        Ok(Self { rig: Rig::sized(sizes)?, next: 0, door: Door::Interface, inside: None })
    }

    /// An arena whose frames come in by a door. By the door of cgroups, this process goes into one.
    pub fn at(door: Door) -> Result<Self> {
        let mut rig = Rig::with_doors(Sizes::default(), &[door])?;
        let inside = (door == Door::Cgroup).then(Inside::enter).transpose()?;
        if let Some(inside) = &inside {
            let levels = inside.ids.len() as u32;
            let deepest = agentsec::kernel::cgroups::Tree::find()?.is_whole();
            anyhow::ensure!(deepest, "only a part of the cgroup tree is mounted here");
            rig.look_for(1 << levels, false)?;
        }
        Ok(Self { rig, next: 0, door, inside })
    }

    /// The cgroups that this process is in, from the outermost; none by other doors.
    #[must_use]
    pub fn cgroups(&self) -> &[u64] {
        self.inside.as_ref().map_or(&[], |inside| &inside.ids)
    }

    /// The next agent: enforced and CLOSED, on the profile of `row`. From now on frames are its frames.
    pub fn agent(&mut self, row: u16) -> Result<Agent> {
        self.agent_in(State::Closed, Mode::Enforce, row)
    }

    /// The next agent, in a state and mode.
    pub fn agent_in(&mut self, state: State, mode: Mode, row: u16) -> Result<Agent> {
        let slot = self.next;
        self.next += 1;
        // Words of different agents differ, so that one taken for another's shows.
        let agent = Agent { slot, control: Control { state, mode, row, epoch: slot + 1, acked_trip: 0 } };
        self.rig.control(slot, agent.control)?;
        self.turn(&agent)?;
        Ok(agent)
    }

    /// From now on frames are this agent's frames.
    pub fn turn(&mut self, agent: &Agent) -> Result<()> {
        let identity = Identity::of(agent.slot);
        match self.door {
            Door::Interface => self.rig.identify(LOOPBACK, identity),
            Door::Link => {
                let (word, ifindex) = (identity.to_word(), LOOPBACK);
                let address = u32::from_ne_bytes(AGENT4.octets());
                self.rig.maps.ipv4.insert(LinkIpv4 { ifindex, address }, word, 0)?;
                let address = stored(AGENT6.into());
                Ok(self.rig.maps.ipv6.insert(LinkAddress { ifindex, address }, word, 0)?)
            }
            Door::Cgroup => {
                let own = *self.cgroups().last().context("this process is in no cgroup of its own")?;
                self.rig.maps.cgroups.insert(own, identity.to_word(), 0)?;
                self.rig.ask_again()
            }
        }
    }

    /// Rewrites the agent's control word.
    pub fn change(&mut self, agent: &mut Agent, change: impl FnOnce(&mut Control)) -> Result<()> {
        change(&mut agent.control);
        self.rig.control(agent.slot, agent.control)
    }

    /// What the daemon does to let a tripped agent go: acknowledges the trip, in a new epoch.
    pub fn release(&mut self, agent: &mut Agent) -> Result<()> {
        let trip = self.rig.maps.ledger(agent.slot)?.trip_seq as u32;
        self.change(agent, |control| {
            control.acked_trip = trip;
            control.epoch += 1;
            control.state = State::Closed;
        })
    }

    /// Sends a frame as the agent whose turn it is.
    pub fn send(&self, frame: impl Into<Skb>) -> Result<Fate> {
        self.rig.run_at(self.door, Direction::Outbound, &frame.into())
    }

    /// Sends a frame to the agent whose turn it is.
    pub fn receive(&self, frame: impl Into<Skb>) -> Result<Fate> {
        self.rig.run_at(self.door, Direction::Inbound, &frame.into())
    }

    /// What the counters say about one direction of an agent.
    pub fn tally(&self, agent: &Agent, direction: Direction) -> Result<Tally> {
        Ok(self.rig.maps.counters(agent.slot)?.traffic[direction as usize].into())
    }
}

impl Deref for Arena {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut Rig {
        &mut self.rig
    }
}
