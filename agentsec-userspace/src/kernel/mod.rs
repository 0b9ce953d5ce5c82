//! The kernel's side of the daemon, and the only importer of aya: load and pin programs and maps, attach them
//! to interfaces, write policy, read ledgers.
//!
//! Everything is pinned below one directory and held by file descriptors, so neither the daemon's death nor an
//! unmounted bpffs alone ends enforcement:
//!
//! ```text
//! PIN_PATH/v<layout>/maps/<NAME>
//! PIN_PATH/v<layout>/links/<LINK>       see hook.rs
//! PIN_PATH/v<layout>/filters/<LINK>     on kernels without TCX: see filters.rs
//! ```

mod batch;
pub mod beside;
pub mod breakglass;
pub mod cgroups;
pub mod collector;
pub mod enforcer;
mod filters;
pub mod hook;
pub mod identities;
pub mod interfaces;
mod layout;
pub mod links;
pub mod namespaces;
mod netlink;
mod object;
pub mod pins;
pub mod probe;
mod programs;
mod rcu;
pub mod records;
pub mod ring;
mod rows;
mod syscall;
mod tc;
mod words;

use agentsec_common::flow::FlowRecord;
use agentsec_common::maps;
use agentsec_common::notice::Notice;
use agentsec_common::sample::Sample;
use anyhow::{Context, Result};
use aya::maps::{Map, MapData};

pub use layout::Capacities;
pub use object::OBJECT;

use collector::Collector;
use enforcer::Enforcer;
use links::Links;
use pins::{Lock, Pins};
use programs::Programs;
use records::Records;
use ring::Ring;

/// The loaded programs and their maps: ours alone as long as this lives, in force for longer.
pub struct Kernel {
    /// Writes what the kernel reads.
    pub enforcer: Enforcer,
    /// Reads what the kernel writes.
    pub collector: Collector,
    /// Reads the latest packets.
    pub records: Records,
    /// Attachments.
    pub links: Links,
    /// What the kernel tells at once.
    pub notices: Ring<Notice>,
    /// What is too deep for it: first bytes of answers.
    pub samples: Ring<Sample>,
    /// What connections were, and what they began with.
    pub flows: Ring<FlowRecord>,
    /// Whether maps and links of an earlier daemon were taken over.
    pub took_over: bool,
    _lock: Lock,
}

impl Kernel {
    /// Loads the programs, with the maps of an earlier daemon on the same pins if there are any.
    ///
    /// # Errors
    ///
    /// When another daemon runs on the pins, when pins of another layout or size are there, or when the kernel
    /// refuses; nothing is changed then.
    pub fn open(pins: &Pins, capacities: &Capacities) -> Result<Self> {
        let lock = pins.lock()?;
        let took_over = layout::prepare(pins, capacities)?;
        let mut programs = match load(pins, capacities) {
            Ok(programs) => programs,
            Err(error) => {
                if !took_over {
                    layout::discard(pins);
                }
                return Err(explained(error));
            }
        };
        let object = programs.maps();
        let collector = Collector::new(object)?;
        Ok(Self {
            enforcer: Enforcer::new(object)?,
            records: Records::new(object)?,
            notices: Ring::new(object, maps::NOTICES)?,
            samples: Ring::new(object, maps::SAMPLES)?,
            flows: Ring::new(object, maps::FLOW_RECORDS)?,
            links: Links::new(programs, pins.clone()),
            collector,
            took_over,
            _lock: lock,
        })
    }
}

/// Loads the maps and what every installation needs, so that a kernel that refuses does so at once.
fn load(pins: &Pins, capacities: &Capacities) -> Result<Programs> {
    let mut programs = Programs::open(pins, capacities)?;
    for name in [maps::PROGRAM_OUTBOUND, maps::PROGRAM_INBOUND] {
        programs.classifier(name)?;
    }
    Ok(programs)
}

/// An error with what `doctor` finds in the way, if it finds anything.
fn explained(error: anyhow::Error) -> anyhow::Error {
    match probe::obstacles() {
        obstacles if obstacles.is_empty() => error,
        obstacles => error.context(obstacles),
    }
}

/// Takes a map out of the loaded object.
fn take(object: &mut aya::Ebpf, name: &str) -> Result<Map> {
    object.take_map(name).with_context(|| format!("the BPF object has no map {name}"))
}

/// The descriptor and size of an array map.
fn array_data(map: Map, name: &str) -> Result<MapData> {
    match map {
        Map::Array(data) => Ok(data),
        _ => anyhow::bail!("the BPF object's map {name} is not an array"),
    }
}
