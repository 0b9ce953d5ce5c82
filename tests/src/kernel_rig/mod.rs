//! The kernel programs on a bench of their own: loaded into the running kernel with maps that nobody else sees,
//! attached to nothing, and fed one frame at a time through `BPF_PROG_TEST_RUN`.
//!
//! A [`Rig`] plays the daemon (it writes policies, profiles and identities) and the wire (it runs frames). What
//! the kernel makes of them is read back from the maps. Everything is private to the rig and goes with it, so
//! tests run side by side.
//!
//! `BPF_PROG_TEST_RUN` wants an Ethernet header (behind which an IP header must be whole, unless there is a tag
//! between) and takes no VLAN tag beside the frame: what a device does to those is tested on real ones.

mod arena;
mod clock;
pub mod door;
pub mod frames;
mod maps;
pub mod profiles;
mod skb;
pub mod table;
pub mod talk;

use std::borrow::Cow;
use std::{env, fs};

use agentsec_common::agent::{Direction, Identity, Scope, Slot};
use agentsec_common::endpoint::{Endpoint, EndpointKey, EndpointKind};
use agentsec_common::maps::{IDENTITY_NEAR_CAPACITY, PROGRAM_INBOUND, PROGRAM_LINK_XDP, PROGRAM_OUTBOUND};
use agentsec_common::policy::{Control, SlowSignals};
use agentsec_common::profile::Profile;
use agentsec_common::recorder::{Entry, Orders};
use anyhow::{Context, Result, bail};
use aya::programs::{Program, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

pub use arena::{Agent, Arena, Tally};
pub use clock::{coarse_ns, second};
pub use door::Door;
pub use maps::Maps;
pub use skb::Skb;

/// Index of the loopback interface, which every namespace has: whose frames a rig's are unless it says otherwise.
pub const LOOPBACK: u32 = 1;

/// TCX_NEXT.
const NEXT: i32 = -1;
/// TC_ACT_SHOT.
const SHOT: i32 = 2;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The program said TCX_NEXT: on to whoever comes next.
    Passed,
    /// The program said TC_ACT_SHOT.
    Dropped,
}

/// How many of everything the maps hold.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Agents.
    pub agents: u32,
    /// Profile rows.
    pub rows: u32,
    /// Endpoints over all agents.
    pub endpoints: u32,
    /// Connections over all agents.
    pub flows: u32,
    /// Bytes in the ring of notices: a power of two, at least a page.
    pub ring_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { agents: 4096, rows: 64, endpoints: 16_384, flows: 16_384, ring_bytes: 1 << 20 }
    }
}

/// Names another kernel object to put on the bench than the daemon's. With one that was built from a deliberately broken
/// rule, the tests must fail; nothing else has to be built again to see it.
pub const OBJECT_VARIABLE: &str = "AGENTSEC_RIG_OBJECT";

fn object() -> Result<Cow<'static, [u8]>> {
    let Some(path) = env::var_os(OBJECT_VARIABLE) else {
        return Ok(Cow::Borrowed(agentsec::kernel::OBJECT));
    };
    Ok(Cow::Owned(fs::read(&path).with_context(|| format!("{OBJECT_VARIABLE} is {}", path.display()))?))
}

/// The loaded programs and their maps.
pub struct Rig {
    programs: Ebpf,
    /// Direct access to the maps, for what the methods of the rig do not cover.
    pub maps: Maps,
}

impl Rig {
    /// Loads the programs with maps of the default sizes.
    pub fn new() -> Result<Self> {
        Self::sized(Sizes::default())
    }

    /// Loads the programs of interfaces.
    pub fn sized(sizes: Sizes) -> Result<Self> {
        Self::with_doors(sizes, &[Door::Interface])
    }

    /// Loads the programs of some doors.
    pub fn with_doors(sizes: Sizes, doors: &[Door]) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for (name, entries) in maps::entries(sizes) {
            loader.map_max_entries(name, entries);
        }
        let object = object()?;
        let mut programs = loader.load(&object).context("loading the maps (root?)")?;
        for door in doors {
            for direction in [Direction::Outbound, Direction::Inbound] {
                load(&mut programs, door.program(direction))?;
            }
            if *door == Door::Link {
                load(&mut programs, PROGRAM_LINK_XDP)?;
            }
        }
        let maps = Maps::take(&mut programs)?;
        Ok(Self { programs, maps })
    }

    /// Says whose frames cross an interface.
    pub fn identify(&mut self, ifindex: u32, identity: Identity) -> Result<()> {
        let word = identity.to_word();
        if ifindex < IDENTITY_NEAR_CAPACITY {
            self.maps.near.set(ifindex, word, 0)?;
        } else {
            self.maps.far.insert(ifindex, word, 0)?;
        }
        Ok(())
    }

    /// Says at which levels of the tree there are agents' cgroups, and whether there are prefixes; what was
    /// remembered of cgroups is asked again.
    pub fn look_for(&mut self, cgroup_levels: u64, prefixes: bool) -> Result<()> {
        let before = self.maps.scope.get(&0, 0).context("reading the scope")?;
        let scope = Scope { cgroup_levels, prefixes: prefixes.into(), covered: 0, ..before };
        self.maps.scope.set(0, scope, 0)?;
        self.ask_again()
    }

    /// What was remembered of cgroups is asked again, as after every change of their identities.
    pub fn ask_again(&mut self) -> Result<()> {
        let before = self.maps.scope.get(&0, 0).context("reading the scope")?;
        let scope = Scope { generation: before.generation + 1, ..before };
        self.maps.scope.set(0, scope, 0).context("writing the scope")
    }

    /// Puts a profile into a row.
    pub fn install(&mut self, row: u16, profile: &Profile) -> Result<()> {
        self.maps.profiles.set(row.into(), profile, 0).context("installing a profile")
    }

    /// Writes an agent's control word.
    pub fn control(&mut self, slot: Slot, control: Control) -> Result<()> {
        self.maps.change_policy(slot, |policy| policy.control = control.to_word())
    }

    /// Takes an agent's policy away.
    pub fn no_control(&mut self, slot: Slot) -> Result<()> {
        self.maps.change_policy(slot, |policy| policy.control = 0)
    }

    /// Writes an agent's slow signals, valid until `valid_until_ns` of the monotonic clock.
    pub fn signals(&mut self, slot: Slot, signals: SlowSignals, valid_until_ns: u64) -> Result<()> {
        self.maps.change_policy(slot, |policy| policy.signals = signals.to_word(valid_until_ns))
    }

    /// Says what is recorded of an agent.
    pub fn record(&mut self, slot: Slot, orders: Orders) -> Result<()> {
        self.maps.change_policy(slot, |policy| policy.recorder = orders.to_word())
    }

    /// What is recorded of an agent, as the daemon reads it: entries of a recorder that are the agent's, in their order.
    pub fn recorded(&self, slot: Slot, orders: Orders) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for place in 0..1 << orders.depth_log2 {
            let entry = self.maps.records.get(&orders.index(place), 0).context("reading an entry")?;
            if entry.word != 0 && entry.slot == slot && entry.generation == orders.generation {
                entries.push(entry);
            }
        }
        entries.sort_unstable_by_key(|entry| entry.word);
        Ok(entries)
    }

    /// Removes an endpoint and tells the kernel so, as the daemon does with idle ones.
    pub fn forget(&mut self, key: &EndpointKey) -> Result<()> {
        self.maps.endpoints.remove(key).context("removing an endpoint")?;
        self.maps.change_policy(key.slot, |policy| policy.endpoints_removed[usize::from(key.kind)] += 1)
    }

    /// Runs one frame through an interface's program of its direction.
    pub fn run(&self, direction: Direction, skb: &Skb) -> Result<Fate> {
        self.run_repeatedly(direction, skb, 1)
    }

    /// Runs one frame through a door's program of its direction.
    pub fn run_at(&self, door: Door, direction: Direction, skb: &Skb) -> Result<Fate> {
        let context = skb.context();
        let options =
            TestRunOptions { data_in: Some(&skb.frame), ctx_in: Some(&context), ..TestRunOptions::default() };
        let name = door.program(direction);
        let result = match self.programs.program(name).with_context(|| format!("no program {name}"))? {
            Program::SchedClassifier(program) => program.test_run(options),
            Program::CgroupSkb(program) => program.test_run(options),
            _ => bail!("{name} is no program for socket buffers"),
        };
        let verdict = result.with_context(|| format!("running {skb:?}"))?.return_value.cast_signed();
        match (door, verdict) {
            (Door::Cgroup, 1) | (_, NEXT) => Ok(Fate::Passed),
            (Door::Cgroup, 0) | (_, SHOT) => Ok(Fate::Dropped),
            (_, other) => bail!("a verdict that is none: {other}"),
        }
    }

    /// Runs one frame through the program before the stack.
    pub fn run_before_stack(&self, frame: &[u8]) -> Result<Fate> {
        let program = self.programs.program(PROGRAM_LINK_XDP).context("no program before the stack")?;
        let program: &Xdp = program.try_into()?;
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        match program.test_run(options).context("running a frame before the stack")?.return_value {
            2 => Ok(Fate::Passed),
            1 => Ok(Fate::Dropped),
            other => bail!("a verdict that is none: {other}"),
        }
    }

    /// Runs the same frame `times` in a row without leaving the kernel; tells what became of the last.
    pub fn run_repeatedly(&self, direction: Direction, skb: &Skb, times: u32) -> Result<Fate> {
        let name = match direction {
            Direction::Outbound => PROGRAM_OUTBOUND,
            Direction::Inbound => PROGRAM_INBOUND,
        };
        let program = self.programs.program(name).with_context(|| format!("no program {name}"))?;
        let program: &SchedClassifier = program.try_into()?;
        let context = skb.context();
        let options = TestRunOptions {
            data_in: Some(&skb.frame),
            ctx_in: Some(&context),
            repeat: times,
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).with_context(|| format!("running {skb:?}"))?;
        match result.return_value.cast_signed() {
            NEXT => Ok(Fate::Passed),
            SHOT => Ok(Fate::Dropped),
            other => bail!("a verdict that is none: {other}"),
        }
    }

    /// An agent's endpoints of one kind, sorted by remote and port.
    pub fn endpoints(&self, slot: Slot, kind: EndpointKind) -> Result<Vec<(EndpointKey, Endpoint)>> {
        let all: Result<Vec<_>, _> = self.maps.endpoints.iter().collect();
        let mut all = all.context("reading the endpoints")?;
        all.retain(|(key, _)| key.slot == slot && key.kind == kind as u8);
        all.sort_unstable_by_key(|(key, _)| (key.remote.map(u32::from_be), key.protocol, key.port));
        Ok(all)
    }
}

fn load(programs: &mut Ebpf, name: &str) -> Result<()> {
    let loaded = match programs.program_mut(name).with_context(|| format!("no program {name}"))? {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => bail!("{name} is of a kind that no rig loads"),
    };
    loaded.with_context(|| format!("loading {name}"))
}
