//! Writes what the kernel reads: policies, profiles, identities.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use agentsec_common::agent::{AgentName, Slot};
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::maps;
use agentsec_common::policy::{Control, EPOCH_MASK, Policy, SlowSignals};
use agentsec_common::profile::Profile;
use agentsec_common::recorder::{generation_of, no_recorder};
use agentsec_common::typical::{PortRules, ROW_BITS, TypicalKey};
use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, MapData};

use crate::config::TypicalPrefix;

use super::identities::Identities;
use super::rows::Rows;
use super::words::{Access, MappedArray};
use super::{array_data, take};

/// Words of [`Policy`], by index.
mod word {
    pub(super) const CONTROL: usize = 0;
    pub(super) const SIGNALS: usize = 1;
    pub(super) const ENDPOINTS_REMOVED: usize = 2;
    pub(super) const FLOWS_REMOVED: usize = 4;
    pub(super) const RECORDER: usize = 5;
    pub(super) const RECORDER_SALT: usize = 6;

    const _: () = assert!(
        std::mem::offset_of!(super::Policy, signals) == SIGNALS * 8
            && std::mem::offset_of!(super::Policy, endpoints_removed) == ENDPOINTS_REMOVED * 8
            && std::mem::offset_of!(super::Policy, flows_removed) == FLOWS_REMOVED * 8
            && std::mem::offset_of!(super::Policy, recorder) == RECORDER * 8
            && std::mem::offset_of!(super::Policy, recorder_salt) == RECORDER_SALT * 8
    );
}

/// The writer of policy.
pub struct Enforcer {
    policy: MappedArray,
    /// Programs that are loaded later still name it by this descriptor.
    _policy: MapData,
    profiles: Array<MapData, Profile>,
    typical: LpmTrie<MapData, TypicalKey, PortRules>,
    /// Who is where.
    pub identities: Identities,
    agents: Array<MapData, AgentName>,
    /// Slots without an agent.
    free: BTreeSet<Slot>,
    rows: Rows,
    /// Prefixes of each row, to be removed with it.
    prefixes: BTreeMap<u16, Vec<(u32, TypicalKey)>>,
}

impl Enforcer {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self> {
        let data = array_data(take(object, maps::POLICY)?, maps::POLICY)?;
        let agents: Array<_, AgentName> = take(object, maps::AGENTS)?.try_into()?;
        let policy = MappedArray::new(data.fd(), agents.len(), size_of::<Policy>(), Access::Write)?;
        let profiles: Array<_, Profile> = take(object, maps::PROFILES)?.try_into()?;
        let typical: LpmTrie<_, TypicalKey, PortRules> = take(object, maps::TYPICAL)?.try_into()?;
        let used = (0..policy.entries())
            .filter_map(|slot| Control::from_word(policy.word(slot, word::CONTROL).load(Ordering::Acquire)))
            .map(|control| control.row)
            .collect();
        let mut prefixes: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for key in typical.keys() {
            let key = key.context("reading the typical endpoints that are in force")?;
            let (prefix_len, data) = (key.prefix_len(), key.data());
            prefixes.entry(u32::from_be(data.row) as u16).or_default().push((prefix_len, data));
        }
        let rows = Rows::new(profiles.len(), used);
        let mut free = BTreeSet::new();
        for slot in 0..agents.len() {
            if agents.get(&slot, 0).context("reading the agents' names")? == AgentName::FREE {
                free.insert(slot);
            }
        }
        Ok(Self {
            policy,
            _policy: data,
            profiles,
            typical,
            identities: Identities::new(object)?,
            agents,
            free,
            rows,
            prefixes,
        })
    }

    /// The agents in the pins, with the policy in force for each.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn agents(&self) -> Result<Vec<(Slot, String, Option<Control>)>> {
        let mut found = Vec::new();
        for slot in 0..self.agents.len() {
            let name = self.agents.get(&slot, 0).context("reading the agents' names")?;
            if let Some(name) = name.as_str() {
                found.push((slot, name.to_owned(), self.control(slot)));
            }
        }
        Ok(found)
    }

    /// Number of agents that the maps hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.policy.entries()
    }

    /// Gives a free slot to an agent. It has no policy yet: what comes from it is dropped.
    ///
    /// # Errors
    ///
    /// When all slots are taken: the error names the agent and the setting.
    pub fn assign(&mut self, name: &str) -> Result<Slot> {
        let bytes =
            AgentName::new(name).with_context(|| format!("agent name {name:?} is empty or too long"))?;
        let Some(&slot) = self.free.first() else {
            bail!("agent {name} finds no room: daemon.max_agents is {}", self.agents.len());
        };
        let salt = getrandom::u64().context("no random number for the agent's recorder")?;
        self.agents.set(slot, bytes, 0)?;
        self.free.remove(&slot);
        // Nothing that was recorded of the slot's last agent is this one's.
        self.set_recorder(slot, no_recorder(generation_of(self.recorder(slot)).wrapping_add(1)));
        self.policy.word(slot, word::RECORDER_SALT).store(salt, Ordering::Release);
        Ok(slot)
    }

    /// Frees a slot that nothing is attached to any more. The epoch stays, so that the next agent there starts
    /// with windows of its own.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn release(&mut self, slot: Slot) -> Result<()> {
        let control = self.policy.word(slot, word::CONTROL);
        control.store(control.load(Ordering::Acquire) & !0b11, Ordering::Release);
        self.policy.word(slot, word::SIGNALS).store(0, Ordering::Release);
        self.set_recorder(slot, no_recorder(generation_of(self.recorder(slot))));
        self.agents.set(slot, AgentName::FREE, 0).context("freeing an agent's slot")?;
        self.free.insert(slot);
        Ok(())
    }

    /// The policy in force.
    #[must_use]
    pub fn control(&self, slot: Slot) -> Option<Control> {
        Control::from_word(self.policy.word(slot, word::CONTROL).load(Ordering::Acquire))
    }

    /// The epoch after the one that the slot had last, in use or not.
    #[must_use]
    pub fn next_epoch(&self, slot: Slot) -> u32 {
        // The state's bits are set only so that the rest can be read.
        let last = self.policy.word(slot, word::CONTROL).load(Ordering::Acquire) | 1;
        Control::from_word(last).map_or(0, |control| (control.epoch + 1) & EPOCH_MASK)
    }

    /// Puts a policy in force, with the next packet.
    pub fn set_control(&self, slot: Slot, control: Control) {
        self.policy.word(slot, word::CONTROL).store(control.to_word(), Ordering::Release);
    }

    /// Sets slow signals, until `valid_until_ns` of the monotonic clock.
    pub fn set_signals(&self, slot: Slot, signals: SlowSignals, valid_until_ns: u64) {
        let word = if signals == SlowSignals::default() { 0 } else { signals.to_word(valid_until_ns) };
        self.policy.word(slot, word::SIGNALS).store(word, Ordering::Release);
    }

    /// What is recorded of an agent: a word of [`Orders`](agentsec_common::recorder::Orders).
    #[must_use]
    pub fn recorder(&self, slot: Slot) -> u64 {
        self.policy.word(slot, word::RECORDER).load(Ordering::Acquire)
    }

    /// Says what is recorded of an agent, from the next packet on.
    pub fn set_recorder(&self, slot: Slot, word: u64) {
        self.policy.word(slot, word::RECORDER).store(word, Ordering::Release);
    }

    /// How many endpoints of a kind have been removed from the agent's list.
    #[must_use]
    pub fn endpoints_removed(&self, slot: Slot, kind: EndpointKind) -> u64 {
        self.policy.word(slot, word::ENDPOINTS_REMOVED + kind as usize).load(Ordering::Acquire)
    }

    /// Tells the kernel that endpoints were removed from the agent's list.
    pub fn add_endpoints_removed(&self, slot: Slot, kind: EndpointKind, count: u64) {
        let word = self.policy.word(slot, word::ENDPOINTS_REMOVED + kind as usize);
        word.fetch_add(count, Ordering::AcqRel);
    }

    /// How many connections have been removed from the agent's list.
    #[must_use]
    pub fn flows_removed(&self, slot: Slot) -> u64 {
        self.policy.word(slot, word::FLOWS_REMOVED).load(Ordering::Acquire)
    }

    /// Tells the kernel that connections were removed from the agent's list.
    pub fn add_flows_removed(&self, slot: Slot, count: u64) {
        self.policy.word(slot, word::FLOWS_REMOVED).fetch_add(count, Ordering::AcqRel);
    }

    /// Puts a profile into a row of its own, its typical endpoints first.
    ///
    /// # Errors
    ///
    /// When rows or typical prefixes are exhausted: the error names the setting. Nothing is left behind.
    pub fn install_profile(&mut self, profile: &Profile, typical: &[TypicalPrefix]) -> Result<u16> {
        let capacity = self.profiles.len();
        let row = self
            .rows
            .take()
            .with_context(|| format!("no profile row is free: daemon.max_profiles is {capacity}"))?;
        // A daemon that died while it filled this row has left what nobody refers to.
        self.remove_prefixes(row)?;
        let generation = self.profiles.get(&row.into(), 0)?.generation.wrapping_add(1);
        for prefix in typical {
            let key = TypicalKey { row: u32::from(row).to_be(), remote: prefix.address };
            let length = ROW_BITS + prefix.prefix_len;
            if let Err(error) = self.typical.insert(&Key::new(length, key), prefix.rules, 0) {
                self.clear(row)?;
                self.rows.give_back(row);
                return Err(error)
                    .context("no room for a profile's typical endpoints: see daemon.max_typical_prefixes");
            }
            self.prefixes.entry(row).or_default().push((length, key));
        }
        self.profiles.set(row.into(), Profile { generation, ..*profile }, 0)?;
        Ok(row)
    }

    /// Retires the rows that no policy refers to and that are not in `kept`, and clears those retired long enough ago.
    ///
    /// # Errors
    ///
    /// When a map cannot be written.
    pub fn reclaim_rows(&mut self, kept: impl IntoIterator<Item = u16>, now_ns: u64) -> Result<()> {
        let mut referenced: BTreeSet<u16> = kept.into_iter().collect();
        referenced
            .extend((0..self.capacity()).filter_map(|slot| self.control(slot)).map(|control| control.row));
        self.rows.retire_all_but(&referenced, now_ns);
        for row in self.rows.clearable(now_ns) {
            self.clear(row)?;
        }
        Ok(())
    }

    /// Removes a row's typical endpoints and frees it.
    fn clear(&mut self, row: u16) -> Result<()> {
        let last = self.profiles.get(&row.into(), 0)?;
        self.profiles.set(row.into(), Profile { flags: 0, ..last }, 0)?;
        self.remove_prefixes(row)?;
        self.rows.free(row);
        Ok(())
    }

    fn remove_prefixes(&mut self, row: u16) -> Result<()> {
        for (length, key) in self.prefixes.remove(&row).unwrap_or_default() {
            self.typical.remove(&Key::new(length, key)).context("removing a typical endpoint")?;
        }
        Ok(())
    }
}
