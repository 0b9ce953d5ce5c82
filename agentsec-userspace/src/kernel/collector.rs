//! Reads what the kernel writes: ledgers, counters, endpoints.

use agentsec_common::agent::Slot;
use agentsec_common::counters::{Counters, Strays};
use agentsec_common::endpoint::{Endpoint, EndpointKey};
use agentsec_common::ledger::Ledger;
use agentsec_common::maps;
use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{HashMap, MapData, PerCpuArray, PerCpuValues};

use super::words::{Access, MappedArray};
use super::{array_data, take};

/// Words of a ledger.
pub(crate) const LEDGER_WORDS: usize = size_of::<Ledger>() / 8;

/// A ledger of its words.
pub(crate) const fn ledger_of(words: [u64; LEDGER_WORDS]) -> Ledger {
    // SAFETY: the same size, and a ledger is integers only.
    unsafe { std::mem::transmute::<[u64; LEDGER_WORDS], Ledger>(words) }
}

/// The reader of the kernel's words.
pub struct Collector {
    ledger: MappedArray,
    /// Programs that are loaded later still name it by this descriptor.
    _ledger: MapData,
    counters: PerCpuArray<MapData, Counters>,
    strays: PerCpuArray<MapData, Strays>,
    endpoints: HashMap<MapData, EndpointKey, Endpoint>,
}

impl Collector {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self> {
        let ledger = array_data(take(object, maps::LEDGER)?, maps::LEDGER)?;
        let counters: PerCpuArray<_, Counters> = take(object, maps::COUNTERS)?.try_into()?;
        Ok(Self {
            ledger: MappedArray::new(ledger.fd(), counters.len(), size_of::<Ledger>(), Access::Read)?,
            _ledger: ledger,
            counters,
            strays: take(object, maps::STRAYS)?.try_into()?,
            endpoints: take(object, maps::ENDPOINTS)?.try_into()?,
        })
    }

    /// The agent's ledger. Its words are each whole; a trip record is whole when it names the ledger's trip.
    #[must_use]
    pub fn ledger(&self, slot: Slot) -> Ledger {
        ledger_of(self.ledger.load(slot))
    }

    /// The agent's counters, over all CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn counters(&self, slot: Slot) -> Result<Counters> {
        let mut sum = Counters::default();
        for part in self.counters.get(&slot, 0).context("reading an agent's counters")?.iter() {
            sum.add(part);
        }
        Ok(sum)
    }

    /// Starts the counters of a slot from nothing. Nothing may be attached to it.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn clear_counters(&mut self, slot: Slot) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
        let zero =
            PerCpuValues::try_from(vec![Counters::default(); cpus]).context("as many values as CPUs")?;
        self.counters.set(slot, zero, 0).context("clearing an agent's counters")
    }

    /// Packets at our hooks that no agent owns, over all CPUs.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn strays(&self) -> Result<Strays> {
        let mut sum = Strays::default();
        for part in self.strays.get(&0, 0).context("reading the stray packets")?.iter() {
            sum.unidentified_packets += part.unidentified_packets;
            sum.unpoliced_packets += part.unpoliced_packets;
        }
        Ok(sum)
    }

    /// Every endpoint of every agent. Entries that come and go meanwhile may be missed.
    pub fn endpoints(&self) -> impl Iterator<Item = (EndpointKey, Endpoint)> + '_ {
        self.endpoints.iter().flatten()
    }

    /// Removes an endpoint; true when it was there.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn remove_endpoint(&mut self, key: &EndpointKey) -> Result<bool> {
        match self.endpoints.remove(key) {
            Ok(()) => Ok(true),
            Err(aya::maps::MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(error).context("removing an endpoint"),
        }
    }
}
