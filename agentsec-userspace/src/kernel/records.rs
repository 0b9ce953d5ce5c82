//! Reads recorders: the latest packets of an agent, each whole or not at all.

use std::sync::atomic::{Ordering, fence};

use agentsec_common::agent::Slot;
use agentsec_common::maps;
use agentsec_common::recorder::{Entry, Orders, is_busy};
use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{MapData, MapInfo};

use super::words::{Access, MappedArray};
use super::{array_data, take};

const ENTRY_WORDS: usize = size_of::<Entry>() / 8;

/// The reader of recorders.
pub struct Records {
    entries: MappedArray,
    /// Programs that are loaded later still name it by this descriptor.
    _entries: MapData,
}

/// What a recorder held.
#[derive(Debug, Default)]
pub struct Held {
    /// The agent's entries, in no order.
    pub entries: Vec<Entry>,
    /// Entries that a CPU was writing to, or that changed while they were read.
    pub torn: u32,
}

impl Records {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self> {
        let data = array_data(take(object, maps::RECORDS)?, maps::RECORDS)?;
        let info: MapInfo = data.info().context("asking for the size of the recorders")?;
        let entries = MappedArray::new(data.fd(), info.max_entries(), size_of::<Entry>(), Access::Read)?;
        Ok(Self { entries, _entries: data })
    }

    /// What is recorded of the agent of `slot`, for which the kernel has these orders. What another agent left in the same
    /// recorder, or in the same slot, is not among it.
    #[must_use]
    pub fn read(&self, slot: Slot, orders: Orders) -> Held {
        let mut held = Held::default();
        for place in 0..1u64 << orders.depth_log2 {
            let index = orders.index(place);
            if index >= self.entries.entries() {
                break;
            }
            match self.entry(index) {
                Some(entry) if entry.word == 0 => {}
                Some(entry) if entry.slot == slot && entry.generation == orders.generation => {
                    held.entries.push(entry);
                }
                Some(_) => {}
                None => held.torn += 1,
            }
        }
        held
    }

    /// An entry; `None` when it is written to.
    fn entry(&self, index: u32) -> Option<Entry> {
        let words = self.entries.load::<ENTRY_WORDS>(index);
        // The word is loaded first and once more after all others: unchanged and not busy, it vouches for them.
        fence(Ordering::Acquire);
        let again = self.entries.word(index, 0).load(Ordering::Relaxed);
        (again == words[0] && !is_busy(again)).then(|| entry_of(words))
    }
}

/// An entry of its words.
const fn entry_of(words: [u64; ENTRY_WORDS]) -> Entry {
    // SAFETY: the same size, and an entry is integers only.
    unsafe { std::mem::transmute::<[u64; ENTRY_WORDS], Entry>(words) }
}
