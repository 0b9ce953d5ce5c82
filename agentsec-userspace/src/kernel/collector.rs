//! Reads what the kernel writes: ledgers, counters, endpoints, connections, response times.

use std::os::fd::{AsFd, OwnedFd};

use agentsec_common::agent::Slot;
use agentsec_common::counters::{Counters, Strays};
use agentsec_common::endpoint::{Endpoint, EndpointKey};
use agentsec_common::flow::{Flow, FlowKey};
use agentsec_common::ledger::Ledger;
use agentsec_common::maps;
use agentsec_common::sample::Responses;
use agentsec_common::times::TIME_BUCKETS;
use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{HashMap, IterableMap, MapData, MapError, PerCpuArray, PerCpuValues};

use super::batch::Batch;
use super::beside::Beside;
use super::words::{Access, MappedArray};
use super::{array_data, take};

/// Words of a ledger.
pub(crate) const LEDGER_WORDS: usize = size_of::<Ledger>() / 8;

/// Words of a histogram of response times, two numbers each.
const TIME_WORDS: usize = TIME_BUCKETS / 2;
const _: () = assert!(cfg!(target_endian = "little"), "the first number of a word is its lower half");

/// Whether what was to be removed was there.
fn was_there(removed: Result<(), MapError>) -> Result<bool, MapError> {
    match removed {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        // What a look-up calls a missing key is an error of the system call here.
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

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
    flows: HashMap<MapData, FlowKey, Flow>,
    batch: Batch<FlowKey, Flow>,
    times: MappedArray,
    /// As above.
    _times: MapData,
    responses: HashMap<MapData, EndpointKey, Responses>,
}

impl Collector {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self> {
        let ledger = array_data(take(object, maps::LEDGER)?, maps::LEDGER)?;
        let times = array_data(take(object, maps::TIMES)?, maps::TIMES)?;
        let counters: PerCpuArray<_, Counters> = take(object, maps::COUNTERS)?.try_into()?;
        Ok(Self {
            ledger: MappedArray::new(ledger.fd(), counters.len(), size_of::<Ledger>(), Access::Read)?,
            _ledger: ledger,
            strays: take(object, maps::STRAYS)?.try_into()?,
            endpoints: take(object, maps::ENDPOINTS)?.try_into()?,
            flows: take(object, maps::FLOWS)?.try_into()?,
            batch: Batch::new(),
            times: MappedArray::new(times.fd(), counters.len(), TIME_WORDS * 8, Access::Read)?,
            _times: times,
            counters,
            responses: take(object, maps::RESPONSES)?.try_into()?,
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
        was_there(self.endpoints.remove(key)).context("removing an endpoint")
    }

    /// Shows every connection of every agent to `look`. Those that come and go meanwhile may be missed.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn each_flow(&mut self, look: impl FnMut(FlowKey, Flow)) -> Result<()> {
        let map = IterableMap::<FlowKey, Flow>::map(&self.flows);
        self.batch.read(map.fd().as_fd(), look).context("reading the connections")
    }

    /// The maps of endpoints and connections, for a thread beside the loop.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn beside(&self) -> Result<Beside> {
        let again = |map: &MapData| -> Result<OwnedFd> {
            map.fd().as_fd().try_clone_to_owned().context("duplicating a map's descriptor")
        };
        Ok(Beside {
            endpoints: again(IterableMap::<EndpointKey, Endpoint>::map(&self.endpoints))?,
            flows: again(IterableMap::<FlowKey, Flow>::map(&self.flows))?,
            responses: again(IterableMap::<EndpointKey, Responses>::map(&self.responses))?,
        })
    }

    /// Removes a connection; true when it was there.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn remove_flow(&mut self, key: &FlowKey) -> Result<bool> {
        was_there(self.flows.remove(key)).context("removing a connection")
    }

    /// The agent's histogram of response times since its slot was first used: see [`agentsec_common::times`]. Its numbers
    /// wrap around.
    #[must_use]
    pub fn times(&self, slot: Slot) -> [u32; TIME_BUCKETS] {
        let words = self.times.load::<TIME_WORDS>(slot);
        let half = |index: usize| (words[index / 2] >> (32 * (index % 2))) as u32;
        std::array::from_fn(half)
    }

    /// How an endpoint has answered, if it has.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn responses(&self, key: &EndpointKey) -> Result<Option<Responses>> {
        match self.responses.get(key, 0) {
            Ok(responses) => Ok(Some(responses)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("reading an endpoint's response times"),
        }
    }

    /// Removes an endpoint's response times; true when there were any.
    ///
    /// # Errors
    ///
    /// When the map cannot be written.
    pub fn remove_responses(&mut self, key: &EndpointKey) -> Result<bool> {
        was_there(self.responses.remove(key)).context("removing an endpoint's response times")
    }
}
