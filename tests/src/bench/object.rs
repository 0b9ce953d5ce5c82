//! The product's own programs, with maps that nobody else sees.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use agentsec_common::agent::{Direction, Identity, Slot};
use agentsec_common::bucket::Bucket;
use agentsec_common::counters::Counters;
use agentsec_common::ledger::Ledger;
use agentsec_common::maps::{
    COUNTERS, IDENTITY_NEAR, LEDGER, POLICY, PROFILES, PROGRAM_INBOUND, PROGRAM_OUTBOUND, TELLS_NAMESPACE,
    TYPICAL,
};
use agentsec_common::policy::{Control, Mode, Policy, State};
use agentsec_common::profile::{
    COUNT_INBOUND, COUNT_OUTBOUND, FOLLOW_FLOWS, JUDGE_REQUESTS, NO_LIMIT, PRESENT, Profile, Weights,
};
use agentsec_common::recorder::Orders;
use agentsec_common::typical::{ACCEPTED, ANY_PROTOCOL, OPENED, PortRule, PortRules, ROW_BITS, TypicalKey};
use agentsec_common::window::{BUCKETS, BucketClock, Moment, Step};
use anyhow::{Context, Result, bail, ensure};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, PerCpuArray};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, Program, ProgramType, SchedClassifier, TcAttachType};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader};
use nix::time::{ClockId, clock_gettime};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

const WINDOW_NS: u64 = 60_000_000_000;
const EPOCH: u32 = 1;

/// The object, loaded, with agents of one state.
pub(super) struct Object {
    ebpf: Ebpf,
    /// What the kernel's verifier and compiler took for one program.
    pub(super) load_time: Duration,
}

/// How often programs have run, and for how long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Runs {
    pub(super) ns: u64,
    pub(super) count: u64,
}

/// What is expected of the agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Everything: every endpoint is typical.
    Everything,
    /// Nothing, though no limit follows from it.
    Nothing,
    /// Everything, and connections are followed: every signal is measured and judged.
    EverythingFollowed,
}

impl Object {
    /// Loads `bytes` and makes the interfaces 1 to `agents` one agent each, all in `state`.
    pub(super) fn load(bytes: &[u8], agents: u32, state: State, expected: Expected) -> Result<Self> {
        let mut object = Self::open(bytes, &[PROGRAM_OUTBOUND, PROGRAM_INBOUND], &[])?;
        object.appoint(0..agents, state, expected)?;
        let mut identity: Array<_, u64> = object.map(IDENTITY_NEAR)?.try_into()?;
        for slot in 0..agents {
            identity.set(slot + 1, Identity::of(slot).to_word(), 0)?;
        }
        Ok(object)
    }

    /// Loads some programs of `bytes`, with maps of these sizes instead of the usual ones.
    pub(super) fn open(bytes: &[u8], programs: &[&str], entries: &[(&str, u32)]) -> Result<Self> {
        let told = u8::from(tells_namespace());
        let mut loader = EbpfLoader::new();
        for (name, entries) in entries {
            loader.map_max_entries(name, *entries);
        }
        loader.override_global(TELLS_NAMESPACE, &told, false);
        let mut ebpf = loader.load(bytes).context("the kernel refuses the maps")?;
        let start = Instant::now();
        for name in programs {
            let program = ebpf.program_mut(name);
            let loaded = match program.with_context(|| format!("the BPF object has no program {name}"))? {
                Program::SchedClassifier(program) => program.load(),
                Program::CgroupSkb(program) => program.load(),
                Program::Xdp(program) => program.load(),
                _ => bail!("{name} is of a kind that no bench loads"),
            };
            loaded.with_context(|| format!("the kernel refuses {name}"))?;
        }
        Ok(Self { ebpf, load_time: start.elapsed() / u32::try_from(programs.len())? })
    }

    /// Gives these slots agents, all in `state`, of which this is expected.
    pub(super) fn appoint(&mut self, slots: Range<Slot>, state: State, expected: Expected) -> Result<()> {
        self.expect(expected)?;
        let mut policy: Array<_, Policy> = self.map(POLICY)?.try_into()?;
        let control = Control { state, mode: Mode::Enforce, row: 0, epoch: EPOCH, acked_trip: 0 };
        for slot in slots.clone() {
            policy.set(slot, Policy { control: control.to_word(), ..Policy::default() }, 0)?;
        }
        self.remember_a_minute(slots)
    }

    /// Records packets of a slot that was appointed.
    pub(super) fn record(&mut self, slot: Slot, orders: Orders) -> Result<()> {
        let mut policy: Array<_, Policy> = self.map(POLICY)?.try_into()?;
        let before = policy.get(&slot, 0)?;
        policy.set(slot, Policy { recorder: orders.to_word(), ..before }, 0).context("ordering a recorder")
    }

    /// How many packets of a slot were recorded.
    pub(super) fn recorded(&mut self, slot: Slot) -> Result<u64> {
        let ledger: Array<_, Ledger> = self.map(LEDGER)?.try_into()?;
        Ok(ledger.get(&slot, 0)?.recorded)
    }

    fn expect(&mut self, expected: Expected) -> Result<()> {
        let everything = expected != Expected::Nothing;
        let follow = expected == Expected::EverythingFollowed;
        let profile = Profile {
            probe: Bucket::new(1_000_000_000, 1 << 31, 0),
            reserved: 0,
            flags: PRESENT
                | COUNT_OUTBOUND
                | COUNT_INBOUND
                | if follow { FOLLOW_FLOWS | JUDGE_REQUESTS } else { 0 },
            generation: 0,
            bucket_multiplier: BucketClock::for_window(WINDOW_NS).multiplier(),
            max_volume: NO_LIMIT,
            anomalous_volume: NO_LIMIT,
            max_unusual_endpoints: u32::MAX,
            max_auth_failures_centi: u32::MAX,
            anomalous_auth_failures_centi: u32::MAX,
            max_deviation_100us: u32::MAX,
            anomalous_rate: u32::MAX,
            anomalous_requests: u32::MAX,
            flow_cap: u32::MAX,
            normal_response_100us: 500,
            auth_weights_centi: agentsec_common::auth::default_weights_centi(),
            read_ports: [agentsec_common::profile::PortRange::ANY; 8],
            reserved_more: [0; 4],
            anomalous_deviation_100us: 1000,
            typical_endpoints: u32::from(everything),
            quarantine_threshold: 700,
            weights: Weights::DEFAULT,
            probe_violations: 1,
            endpoint_cap: 4096,
        };
        let mut profiles: Array<_, Profile> = self.map(PROFILES)?.try_into()?;
        profiles.set(0, profile, 0)?;
        if everything {
            let any = PortRule { protocol: ANY_PROTOCOL, kinds: OPENED | ACCEPTED, first: 0, last: u16::MAX };
            let mut rules = PortRules::default();
            rules.rules[0] = any;
            let mut typical: LpmTrie<_, TypicalKey, PortRules> = self.map(TYPICAL)?.try_into()?;
            typical.insert(&Key::new(ROW_BITS, TypicalKey { row: 0, remote: [0; 4] }), rules, 0)?;
        }
        Ok(())
    }

    /// Fills every bucket of the agents' windows of volume, as they are after a minute: an empty one is cheaper to
    /// skip than a live one to add.
    fn remember_a_minute(&mut self, slots: Range<Slot>) -> Result<()> {
        let now: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC)?.into();
        let now = BucketClock::for_window(WINDOW_NS).moment(u64::try_from(now.as_nanos())?, EPOCH);
        let mut ledger: Array<_, Ledger> = self.map(LEDGER)?.try_into()?;
        for slot in slots {
            let mut words = ledger.get(&slot, 0)?;
            for age in 0..BUCKETS as u64 {
                let then = Moment { bucket: now.bucket.saturating_sub(age), ..now };
                if let Step::Restart(word) = then.step(words.volume[then.index()], 1000) {
                    words.volume[then.index()] = word;
                }
            }
            ledger.set(slot, words, 0)?;
        }
        Ok(())
    }

    /// Makes an interface of this namespace the one of an agent.
    pub(super) fn own(&mut self, interface: &str, slot: Slot) -> Result<()> {
        let index = nix::net::if_::if_nametoindex(interface).with_context(|| interface.to_owned())?;
        let mut identity: Array<_, u64> = self.map(IDENTITY_NEAR)?.try_into()?;
        identity.set(index, Identity::of(slot).to_word(), 0).context("naming the interface's agent")
    }

    /// Attaches the program of a direction to an interface of this namespace, for as long as the object lives.
    pub(super) fn attach(&mut self, interface: &str, direction: Direction) -> Result<()> {
        let (name, hook) = match direction {
            Direction::Outbound => (PROGRAM_OUTBOUND, TcAttachType::Ingress),
            Direction::Inbound => (PROGRAM_INBOUND, TcAttachType::Egress),
        };
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options(interface, hook, options).with_context(|| interface.to_owned())?;
        Ok(())
    }

    /// How often its programs of interfaces have run and for how long, while the kernel times them.
    pub(super) fn runs(&self) -> Result<Runs> {
        let mut runs = Runs::default();
        for name in [PROGRAM_OUTBOUND, PROGRAM_INBOUND] {
            let info = self.ebpf.program(name).with_context(|| format!("no program {name}"))?.info()?;
            runs.ns += u64::try_from(info.run_time().as_nanos())?;
            runs.count += info.run_count();
        }
        Ok(runs)
    }

    /// One of its maps.
    pub(super) fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the BPF object has no map {name}"))
    }

    /// One of its programs.
    pub(super) fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let program = self.ebpf.program(name);
        let program = program.with_context(|| format!("the BPF object has no program {name}"))?;
        Ok(program.fd()?.as_fd())
    }

    /// Instructions that the verifier followed, bytes as loaded, bytes of machine code.
    pub(super) fn sizes(&self, name: &str) -> Result<(u32, u32, u32)> {
        let program = self.ebpf.program(name);
        let info = program.with_context(|| format!("the BPF object has no program {name}"))?.info()?;
        let verified = info.verified_instruction_count().context("the kernel does not tell")?;
        let loaded = info.size_translated().context("the kernel does not tell")?;
        Ok((verified, loaded, info.size_jitted()))
    }

    /// Packets passed and dropped, all agents and directions.
    pub(super) fn counted(&mut self, agents: u32) -> Result<(u64, u64)> {
        let counters: PerCpuArray<_, Counters> = self.map(COUNTERS)?.try_into()?;
        let mut sum = Counters::default();
        for slot in 0..agents {
            counters.get(&slot, 0)?.iter().for_each(|part| sum.add(part));
        }
        let [outbound, inbound] = sum.traffic;
        Ok((outbound.packets + inbound.packets, outbound.dropped_packets + inbound.dropped_packets))
    }

    /// Fails when any agent has tripped: what was measured then is not what was meant.
    pub(super) fn ensure_untripped(&mut self, agents: u32) -> Result<()> {
        let ledger: Array<_, Ledger> = self.map(LEDGER)?.try_into()?;
        for slot in 0..agents {
            ensure!(ledger.get(&slot, 0)?.trip_seq == 0, "the agent of slot {slot} has tripped");
        }
        Ok(())
    }
}

/// Whether the daemon's programs ask for a packet's network namespace on this kernel, as the daemon finds out.
fn tells_namespace() -> bool {
    let helper = BpfHelper::BPF_FUNC_get_netns_cookie;
    is_helper_supported(ProgramType::CgroupSkb, helper).unwrap_or(false)
}

/// The object with one instruction changed in each program: it takes the packet's mark for the interface, which
/// is the only way to send one buffer through a thousand of them. Both are words of the socket buffer.
pub(super) fn by_mark(bytes: &[u8]) -> Result<Vec<u8>> {
    /// `u32` at the offset of `ifindex` in `struct __sk_buff`, and of `mark`.
    const INTERFACE: [u8; 2] = [0x28, 0];
    const MARK: [u8; 2] = [0x08, 0];
    const LOAD32: u8 = 0x61;
    let mut changed = bytes.to_vec();
    let elf = object::File::parse(bytes).context("the BPF object is not an ELF file")?;
    for name in [PROGRAM_OUTBOUND, PROGRAM_INBOUND] {
        let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name));
        let symbol = symbol.with_context(|| format!("the BPF object has no program {name}"))?;
        let section = elf.section_by_index(symbol.section_index().context("a program without section")?)?;
        let (section_start, _) = section.file_range().context("a section without bytes")?;
        let start = (section_start + symbol.address()) as usize;
        // Whose packet it is, is what a program asks first.
        let load = changed[start..start + 64].chunks_mut(8).find(|insn| insn[0] == LOAD32);
        let load = load.context("the program does not begin by reading its context")?;
        ensure!(load[2..4] == INTERFACE, "the program does not begin by reading the interface");
        load[2..4].copy_from_slice(&MARK);
    }
    Ok(changed)
}
