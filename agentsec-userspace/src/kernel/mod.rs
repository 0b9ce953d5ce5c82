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
mod rows;
mod syscall;
mod tc;
mod words;

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use agentsec_common::maps;
use agentsec_common::notice::Notice;
use anyhow::{Context, Result};
use aya::maps::{Map, MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use layout::Capacities;
pub use object::OBJECT;

use collector::Collector;
use enforcer::Enforcer;
use links::Links;
use pins::{Lock, Pins};
use programs::Programs;

/// The loaded programs and their maps: ours alone as long as this lives, in force for longer.
pub struct Kernel {
    /// Writes what the kernel reads.
    pub enforcer: Enforcer,
    /// Reads what the kernel writes.
    pub collector: Collector,
    /// Attachments.
    pub links: Links,
    /// What the kernel tells at once.
    pub notices: Notices,
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
        let maps = programs.maps();
        let collector = Collector::new(maps)?;
        Ok(Self {
            enforcer: Enforcer::new(maps)?,
            notices: Notices::new(maps)?,
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

/// The ring of notices.
pub struct Notices {
    ring: RingBuf<MapData>,
}

impl Notices {
    fn new(object: &mut aya::Ebpf) -> Result<Self> {
        let ring = take(object, maps::NOTICES)?;
        Ok(Self { ring: RingBuf::try_from(ring).context("mapping the ring of notices")? })
    }

    /// The next notice, if there is one. Records of another size are skipped: they are not ours.
    pub fn take(&mut self) -> Option<Notice> {
        while let Some(item) = self.ring.next() {
            if item.len() == size_of::<Notice>() {
                // SAFETY: as long as a notice, which is integers only; the ring aligns to eight bytes, and an
                // unaligned read asks for nothing.
                return Some(unsafe { item.as_ptr().cast::<Notice>().read_unaligned() });
            }
        }
        None
    }
}

impl Notices {
    /// Something to wait on: readable when there are notices.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn watch(&self) -> Result<AsyncFd<OwnedFd>> {
        // SAFETY: the ring owns its descriptor and outlives the borrow.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        let own = ring.try_clone_to_owned().context("another descriptor of the ring of notices")?;
        // SAFETY: an owned descriptor stays the same and open as long as its owner, which the watch keeps.
        unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }
            .context("watching the ring of notices")
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
