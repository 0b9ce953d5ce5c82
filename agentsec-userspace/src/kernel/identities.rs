//! Who is behind which interface, cgroup and address: the words by which the kernel knows agents.

use std::collections::BTreeMap;

use agentsec_common::agent::{
    CGROUP_LEVELS, Identity, LINK_BITS, LinkAddress, LinkIpv4, Scope, Slot, level_of,
};
use agentsec_common::endpoint::{Address, MAPPED};
use agentsec_common::maps::{self, IDENTITY_NEAR_CAPACITY};
use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError};

use super::take;

/// Bits of an address.
const ADDRESS_BITS: u32 = 8 * size_of::<Address>() as u32;

/// An address or prefix behind a shared link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkPrefix {
    /// Index of the link.
    pub ifindex: u32,
    /// The address; IPv4 is IPv4-mapped.
    pub address: Address,
    /// Bits of it that count, of 128.
    pub bits: u32,
}

/// A cgroup as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupId {
    /// Its id.
    pub id: u64,
    /// Its level in the tree: 1 is a child of the root.
    pub level: u32,
}

/// The writer of identities.
pub struct Identities {
    near: Array<MapData, u64>,
    far: HashMap<MapData, u32, u64>,
    cgroups: HashMap<MapData, u64, u64>,
    ipv4: HashMap<MapData, LinkIpv4, u64>,
    ipv6: HashMap<MapData, LinkAddress, u64>,
    prefixes: LpmTrie<MapData, LinkAddress, u32>,
    scope: Array<MapData, Scope>,
    covered: HashMap<MapData, u64, u64>,
    /// Levels of the cgroups that are agents', with those that an earlier daemon has written.
    levels: BTreeMap<u64, u32>,
    /// How many of them are at each level.
    at_level: [u32; CGROUP_LEVELS as usize + 1],
    /// As the kernel has it.
    generation: u64,
}

impl Identities {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self> {
        let cgroups: HashMap<_, u64, u64> = take(object, maps::IDENTITY_CGROUP)?.try_into()?;
        let scope: Array<_, Scope> = take(object, maps::SCOPE)?.try_into()?;
        let generation = scope.get(&0, 0).context("reading what is looked for")?.generation;
        let mut at_level = [0; CGROUP_LEVELS as usize + 1];
        let mut levels = BTreeMap::new();
        for (id, word) in cgroups.iter().flatten() {
            let level = level_of(word).min(CGROUP_LEVELS);
            at_level[level as usize] += 1;
            levels.insert(id, level);
        }
        Ok(Self {
            near: take(object, maps::IDENTITY_NEAR)?.try_into()?,
            far: take(object, maps::IDENTITY_FAR)?.try_into()?,
            cgroups,
            ipv4: take(object, maps::IDENTITY_IPV4)?.try_into()?,
            ipv6: take(object, maps::IDENTITY_IPV6)?.try_into()?,
            prefixes: take(object, maps::IDENTITY_PREFIX)?.try_into()?,
            scope,
            covered: take(object, maps::COVERED)?.try_into()?,
            levels,
            at_level,
            generation,
        })
    }

    /// Says whose packets cross an interface.
    ///
    /// # Errors
    ///
    /// When the map is full: the error names the interface index.
    pub fn interface(&mut self, ifindex: u32, identity: Identity) -> Result<()> {
        let word = identity.to_word();
        if ifindex < IDENTITY_NEAR_CAPACITY {
            return self.near.set(ifindex, word, 0).context("writing an interface's identity");
        }
        match identity.slot() {
            Some(_) => self
                .far
                .insert(ifindex, word, 0)
                .with_context(|| format!("no room for the identity of interface {ifindex}")),
            None => removed(self.far.remove(&ifindex)),
        }
    }

    /// The cgroups that are agents', with those of an earlier daemon.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn cgroups(&self) -> Result<Vec<(u64, Slot)>> {
        let entries = self.cgroups.iter().map(|entry| {
            let (id, word) = entry.context("reading the cgroups' identities")?;
            Ok(Identity::from_word(word).slot().map(|slot| (id, slot)))
        });
        entries.filter_map(Result::transpose).collect()
    }

    /// Says whose cgroup it is. Packets of sockets made in it or below it are that agent's from now on.
    ///
    /// # Errors
    ///
    /// When the map is full, or when the cgroup is deeper than the programs look.
    pub fn add_cgroup(&mut self, cgroup: CgroupId, slot: Slot) -> Result<()> {
        ensure!(
            (1..=CGROUP_LEVELS).contains(&cgroup.level),
            "a cgroup at level {}: the kernel programs look at levels 1 to {CGROUP_LEVELS}",
            cgroup.level
        );
        self.cgroups
            .insert(cgroup.id, Identity::of(slot).to_word_at(cgroup.level), 0)
            .with_context(|| format!("no room for the identity of cgroup {}", cgroup.id))?;
        if self.levels.insert(cgroup.id, cgroup.level).is_none() {
            self.at_level[cgroup.level as usize] += 1;
        }
        self.forget_answers()
    }

    /// Forgets a cgroup.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn remove_cgroup(&mut self, id: u64) -> Result<()> {
        removed(self.cgroups.remove(&id))?;
        if let Some(level) = self.levels.remove(&id) {
            self.at_level[level as usize] -= 1;
        }
        self.forget_answers()
    }

    /// The addresses and prefixes that are agents', with those of an earlier daemon.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn addresses(&self) -> Result<Vec<(LinkPrefix, Slot)>> {
        const WHAT: &str = "reading the addresses' identities";
        let mut found = Vec::new();
        for entry in self.ipv4.iter() {
            let (LinkIpv4 { ifindex, address }, word) = entry.context(WHAT)?;
            found.push((LinkPrefix { ifindex, address: [0, 0, MAPPED, address], bits: ADDRESS_BITS }, word));
        }
        for entry in self.ipv6.iter() {
            let (LinkAddress { ifindex, address }, word) = entry.context(WHAT)?;
            found.push((LinkPrefix { ifindex, address, bits: ADDRESS_BITS }, word));
        }
        for entry in self.prefixes.iter() {
            let (key, word) = entry.context(WHAT)?;
            let LinkAddress { ifindex, address } = key.data();
            let bits = key.prefix_len() - LINK_BITS;
            found.push((LinkPrefix { ifindex: u32::from_be(ifindex), address, bits }, word.into()));
        }
        let known = |(prefix, word)| Some((prefix, Identity::from_word(word).slot()?));
        Ok(found.into_iter().filter_map(known).collect())
    }

    /// Says whose address or prefix it is.
    ///
    /// # Errors
    ///
    /// When the map is full.
    pub fn add_address(&mut self, prefix: LinkPrefix, slot: Slot) -> Result<()> {
        let LinkPrefix { ifindex, address, bits } = prefix;
        let word = Identity::of(slot).to_word();
        let written = match kind(&prefix) {
            Kind::Ipv4 => self.ipv4.insert(LinkIpv4 { ifindex, address: address[3] }, word, 0),
            Kind::Ipv6 => self.ipv6.insert(LinkAddress { ifindex, address }, word, 0),
            Kind::Prefix => self.prefixes.insert(&trie_key(ifindex, address, bits), word as u32, 0),
        };
        written.context("no room for an address's identity")?;
        self.write_scope()
    }

    /// Forgets an address or prefix.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn remove_address(&mut self, prefix: LinkPrefix) -> Result<()> {
        let LinkPrefix { ifindex, address, bits } = prefix;
        removed(match kind(&prefix) {
            Kind::Ipv4 => self.ipv4.remove(&LinkIpv4 { ifindex, address: address[3] }),
            Kind::Ipv6 => self.ipv6.remove(&LinkAddress { ifindex, address }),
            Kind::Prefix => self.prefixes.remove(&trie_key(ifindex, address, bits)),
        })?;
        self.write_scope()
    }

    /// Sets the network namespaces whose packets are counted on agents' interfaces, by cookie.
    ///
    /// # Errors
    ///
    /// When the map is full or cannot be written.
    pub fn set_covered(&mut self, cookies: &[u64]) -> Result<()> {
        let before: Vec<u64> = self.covered.keys().flatten().collect();
        for cookie in before.iter().filter(|cookie| !cookies.contains(cookie)) {
            removed(self.covered.remove(cookie))?;
        }
        for cookie in cookies.iter().filter(|cookie| !before.contains(cookie)) {
            self.covered.insert(cookie, 1, 0).context("no room for a network namespace")?;
        }
        self.write_scope()
    }

    /// Makes the programs ask again whose a cgroup is. A step of its own: an answer of the new generation must rest
    /// on what is new.
    fn forget_answers(&mut self) -> Result<()> {
        self.write_scope()?;
        self.generation = self.generation.wrapping_add(1);
        self.write_scope()
    }

    /// Says which look-ups can find something, after what can be found is there.
    fn write_scope(&mut self) -> Result<()> {
        let levels = self.at_level.iter().enumerate().filter(|(_, cgroups)| **cgroups > 0);
        let scope = Scope {
            cgroup_levels: levels.fold(0, |levels, (level, _)| levels | 1 << level),
            prefixes: u64::from(self.prefixes.keys().next().is_some()),
            covered: u64::from(self.covered.keys().next().is_some()),
            generation: self.generation,
        };
        self.scope.set(0, scope, 0).context("writing what to look for")
    }
}

enum Kind {
    Ipv4,
    Ipv6,
    Prefix,
}

fn kind(prefix: &LinkPrefix) -> Kind {
    match (prefix.bits, prefix.address) {
        (ADDRESS_BITS, [0, 0, MAPPED, _]) => Kind::Ipv4,
        (ADDRESS_BITS, _) => Kind::Ipv6,
        _ => Kind::Prefix,
    }
}

fn trie_key(ifindex: u32, address: Address, bits: u32) -> Key<LinkAddress> {
    Key::new(LINK_BITS + bits, LinkAddress { ifindex: ifindex.to_be(), address })
}

/// What is not there is as good as removed.
fn removed(result: Result<(), MapError>) -> Result<()> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) => Err(error).context("removing an identity"),
    }
}
