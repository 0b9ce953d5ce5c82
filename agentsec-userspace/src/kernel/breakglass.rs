//! What works without a daemon, from the pins alone: release everybody, remove everything.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use agentsec_common::agent::AgentName;
use agentsec_common::gate::state_in_force;
use agentsec_common::ledger::Ledger;
use agentsec_common::maps;
use agentsec_common::policy::{Control, EPOCH_MASK, Mode, Policy, State, TRIP_MASK};
use anyhow::{Context, Result, bail};
use aya::maps::{Array, Map, MapData};

use super::filters::Filters;
use super::hook::LinkName;
use super::layout::{Capacities, shapes};
use super::pins::{self, Pins};
use super::rcu::Expedited;
use super::words::{Access, MappedArray};

/// What [`unload`] has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unloaded {
    /// Links and filters, two per attachment.
    pub links: usize,
    /// Maps.
    pub maps: usize,
}

/// Sets every agent that is OPEN or HALF_OPEN to CLOSED; gives their names.
///
/// The next daemon finds the agents CLOSED and keeps them so.
///
/// # Errors
///
/// When a daemon runs on the pins, or when there are none.
pub fn release_all(pin_path: &Path) -> Result<Vec<String>> {
    let pins = Pins::new(pin_path);
    if !pins.map(maps::POLICY).exists() {
        bail!("nothing is loaded at {}", pin_path.display());
    }
    let _lock = pins.lock_existing()?;
    let (policy, agents) = open_array::<Policy>(&pins, maps::POLICY, Access::Write)?;
    let (ledger, _) = open_array::<Ledger>(&pins, maps::LEDGER, Access::Read)?;
    let names = open_map(&pins, maps::AGENTS)?;
    let names: Array<_, AgentName> = Map::Array(names).try_into().context("the agents' names")?;
    let mut released = Vec::new();
    for slot in 0..agents {
        let word = policy.word(slot, 0);
        let Some(control) = Control::from_word(word.load(Ordering::Acquire)) else { continue };
        let trip_seq = ledger.word(slot, 0).load(Ordering::Acquire);
        if state_in_force(control, trip_seq) == State::Closed || control.mode == Mode::Exempt {
            continue;
        }
        let closed = Control {
            state: State::Closed,
            epoch: (control.epoch + 1) & EPOCH_MASK,
            acked_trip: trip_seq as u32 & TRIP_MASK,
            ..control
        };
        word.store(closed.to_word(), Ordering::Release);
        let name = names.get(&slot, 0).ok().and_then(|name| name.as_str().map(str::to_owned));
        released.push(name.unwrap_or_else(|| format!("slot {slot}")));
    }
    Ok(released)
}

/// Removes every link, filter and map that agentsec has pinned or remembers at `pin_path`, and nothing else. Enforcement
/// ends. Filters are those of the caller's network namespace.
///
/// # Errors
///
/// When a daemon runs on the pins, or when something cannot be removed: what could be is removed.
pub fn unload(pin_path: &Path) -> Result<Unloaded> {
    let pins = Pins::new(pin_path);
    if !pin_path.exists() {
        return Ok(Unloaded::default());
    }
    let lock = pins.lock_existing()?;
    let _expedited = Expedited::new();
    let mut unloaded = Unloaded::default();
    let layouts = pins.foreign_layouts().into_iter().map(|layout| pin_path.join(layout));
    for layout in layouts.chain([pins.layout()]) {
        unloaded.links += Filters::new(&layout).remove_all()?;
        unloaded.links += remove_all(&layout.join("links"), is_link_name)?;
        unloaded.maps += remove_all(&layout.join("maps"), is_map_name)?;
        remove_directory(&layout)?;
    }
    drop(lock);
    remove_directory(pin_path)?;
    Ok(unloaded)
}

fn open_map(pins: &Pins, name: &str) -> Result<MapData> {
    let path = pins.map(name);
    MapData::from_pin(&path).with_context(|| format!("cannot open the pin {}", path.display()))
}

fn open_array<T>(pins: &Pins, name: &str, access: Access) -> Result<(MappedArray, u32)> {
    let map = open_map(pins, name)?;
    let info = map.info().with_context(|| format!("looking at the map {name}"))?;
    if info.value_size() as usize != size_of::<T>() {
        bail!("the pinned map {name} has values of {} bytes, not {}", info.value_size(), size_of::<T>());
    }
    let entries = info.max_entries();
    Ok((MappedArray::new(map.fd(), entries, size_of::<T>(), access)?, entries))
}

/// Removes the files of a directory that are ours by name, then the directory if that leaves it empty.
fn remove_all(directory: &Path, is_ours: fn(&str) -> bool) -> Result<usize> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(0) };
    let mut removed = 0;
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_ours) {
            let path = entry.path();
            pins::remove(&path).with_context(|| format!("cannot remove the pin {}", path.display()))?;
            removed += 1;
        }
    }
    remove_directory(directory)?;
    Ok(removed)
}

/// Removes a directory unless somebody else keeps something in it.
fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::ENOENT)) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", directory.display())),
    }
}

fn is_link_name(name: &str) -> bool {
    LinkName::parse(name).is_some()
}

fn is_map_name(name: &str) -> bool {
    shapes(&Capacities::default()).iter().any(|shape| shape.name == name)
}
