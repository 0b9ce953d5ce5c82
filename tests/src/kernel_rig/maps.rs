//! The maps of a rig, typed.

use agentsec_common::agent::{LinkAddress, LinkIpv4, Scope, Slot};
use agentsec_common::counters::{Counters, Strays};
use agentsec_common::endpoint::{Endpoint, EndpointKey};
use agentsec_common::flow::{Flow, FlowKey, FlowRecord, OpeningRecord};
use agentsec_common::ledger::Ledger;
use agentsec_common::maps;
use agentsec_common::notice::Notice;
use agentsec_common::policy::Policy;
use agentsec_common::profile::Profile;
use agentsec_common::recorder::Entry;
use agentsec_common::sample::{Responses, Sample};
use agentsec_common::times::TIME_BUCKETS;
use agentsec_common::typical::{PortRules, ROW_BITS, TypicalKey};
use anyhow::{Context, Result, bail, ensure};
use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf};

use agentsec::config::TypicalPrefix;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Sizes;

/// Every map that a test reads or writes. Words have one writer in the product; here the test may be both.
pub struct Maps {
    /// Control words and slow signals by slot.
    pub policy: Array<MapData, Policy>,
    /// Profiles by row.
    pub profiles: Array<MapData, Profile>,
    /// Typical endpoints.
    pub typical: LpmTrie<MapData, TypicalKey, PortRules>,
    /// Slots by interface index below [`maps::IDENTITY_NEAR_CAPACITY`].
    pub near: Array<MapData, u64>,
    /// Slots by greater interface index.
    pub far: HashMap<MapData, u32, u64>,
    /// Slots by cgroup.
    pub cgroups: HashMap<MapData, u64, u64>,
    /// Slots by link and IPv4 address.
    pub ipv4: HashMap<MapData, LinkIpv4, u64>,
    /// Slots by link and IPv6 address.
    pub ipv6: HashMap<MapData, LinkAddress, u64>,
    /// Slots by link and prefix.
    pub prefixes: LpmTrie<MapData, LinkAddress, u32>,
    /// Which look-ups find something.
    pub scope: Array<MapData, Scope>,
    /// Network namespaces that are counted elsewhere.
    pub covered: HashMap<MapData, u64, u64>,
    /// What the kernel writes about agents.
    pub ledger: Array<MapData, Ledger>,
    /// Whom they talk to.
    pub endpoints: HashMap<MapData, EndpointKey, Endpoint>,
    /// Their connections.
    pub flows: HashMap<MapData, FlowKey, Flow>,
    /// How quickly endpoints answer.
    pub responses: HashMap<MapData, EndpointKey, Responses>,
    /// How quickly agents are answered.
    pub times: Array<MapData, [u32; TIME_BUCKETS]>,
    /// The latest packets.
    pub records: Array<MapData, Entry>,
    counters: PerCpuArray<MapData, Counters>,
    strays: PerCpuArray<MapData, Strays>,
    notices: RingBuf<MapData>,
    samples: RingBuf<MapData>,
    flow_records: RingBuf<MapData>,
}

/// What the kernel has told of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Those that have ended.
    pub ended: Vec<FlowRecord>,
    /// First requests.
    pub opened: Vec<OpeningRecord>,
}

const ENDED_BYTES: usize = size_of::<FlowRecord>();
const OPENED_BYTES: usize = size_of::<OpeningRecord>();

/// Names and capacities of the maps that a rig sizes itself.
pub(super) fn entries(sizes: Sizes) -> [(&'static str, u32); 11] {
    [
        (maps::POLICY, sizes.agents),
        (maps::LEDGER, sizes.agents),
        (maps::COUNTERS, sizes.agents),
        (maps::AGENTS, sizes.agents),
        (maps::PROFILES, sizes.rows),
        (maps::TYPICAL, 1024),
        (maps::ENDPOINTS, sizes.endpoints),
        (maps::FLOWS, sizes.flows),
        (maps::TIMES, sizes.agents),
        (maps::NOTICES, sizes.ring_bytes),
        (maps::FLOW_RECORDS, sizes.ring_bytes),
    ]
}

impl Maps {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self> {
        let mut map =
            |name| -> Result<Map> { object.take_map(name).with_context(|| format!("no map {name}")) };
        Ok(Self {
            policy: map(maps::POLICY)?.try_into()?,
            profiles: map(maps::PROFILES)?.try_into()?,
            typical: map(maps::TYPICAL)?.try_into()?,
            near: map(maps::IDENTITY_NEAR)?.try_into()?,
            far: map(maps::IDENTITY_FAR)?.try_into()?,
            cgroups: map(maps::IDENTITY_CGROUP)?.try_into()?,
            ipv4: map(maps::IDENTITY_IPV4)?.try_into()?,
            ipv6: map(maps::IDENTITY_IPV6)?.try_into()?,
            prefixes: map(maps::IDENTITY_PREFIX)?.try_into()?,
            scope: map(maps::SCOPE)?.try_into()?,
            covered: map(maps::COVERED)?.try_into()?,
            ledger: map(maps::LEDGER)?.try_into()?,
            endpoints: map(maps::ENDPOINTS)?.try_into()?,
            flows: map(maps::FLOWS)?.try_into()?,
            responses: map(maps::RESPONSES)?.try_into()?,
            times: map(maps::TIMES)?.try_into()?,
            records: map(maps::RECORDS)?.try_into()?,
            counters: map(maps::COUNTERS)?.try_into()?,
            strays: map(maps::STRAYS)?.try_into()?,
            notices: map(maps::NOTICES)?.try_into()?,
            samples: map(maps::SAMPLES)?.try_into()?,
            flow_records: map(maps::FLOW_RECORDS)?.try_into()?,
        })
    }

    /// Changes one agent's policy. Not atomic: only while no frame of the agent runs.
    pub fn change_policy(&mut self, slot: Slot, change: impl FnOnce(&mut Policy)) -> Result<()> {
        let mut policy = self.policy.get(&slot, 0).context("reading a policy")?;
        change(&mut policy);
        self.policy.set(slot, policy, 0).context("writing a policy")
    }

    /// Makes an address prefix typical for a profile row, for what its rules admit.
    pub fn expect(&mut self, row: u16, prefix: &TypicalPrefix) -> Result<()> {
        let data = TypicalKey { row: u32::from(row).to_be(), remote: prefix.address };
        let key = Key::new(ROW_BITS + prefix.prefix_len, data);
        self.typical.insert(&key, prefix.rules, 0).context("adding a typical prefix")
    }

    /// What the kernel wrote about an agent.
    pub fn ledger(&self, slot: Slot) -> Result<Ledger> {
        self.ledger.get(&slot, 0).context("reading a ledger")
    }

    /// An agent's counters over all CPUs.
    pub fn counters(&self, slot: Slot) -> Result<Counters> {
        let mut sum = Counters::default();
        for part in self.counters.get(&slot, 0).context("reading counters")?.iter() {
            sum.add(part);
        }
        Ok(sum)
    }

    /// Frames that belong to nobody, over all CPUs.
    pub fn strays(&self) -> Result<Strays> {
        let mut sum = Strays::default();
        for part in self.strays.get(&0, 0).context("reading the strays")?.iter() {
            sum.unidentified_packets += part.unidentified_packets;
            sum.unpoliced_packets += part.unpoliced_packets;
        }
        Ok(sum)
    }

    /// The notices that have come since the last call.
    pub fn notices(&mut self) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        while let Some(item) = self.notices.next() {
            ensure!(item.len() == size_of::<Notice>(), "a notice of {} bytes", item.len());
            // SAFETY: as long as a notice, which is integers only, and an unaligned read asks for nothing else.
            notices.push(unsafe { item.as_ptr().cast::<Notice>().read_unaligned() });
        }
        Ok(notices)
    }

    /// What has been told of connections since the last call.
    pub fn told(&mut self) -> Result<Told> {
        let mut told = Told::default();
        while let Some(item) = self.flow_records.next() {
            // SAFETY: as long as the record, which is integers only, and an unaligned read asks for nothing else.
            unsafe {
                match item.len() {
                    ENDED_BYTES => told.ended.push(item.as_ptr().cast::<FlowRecord>().read_unaligned()),
                    OPENED_BYTES => told.opened.push(item.as_ptr().cast::<OpeningRecord>().read_unaligned()),
                    other => bail!("a record of {other} bytes"),
                }
            }
        }
        Ok(told)
    }

    /// The ring's descriptor, which is readable once somebody was woken for it.
    #[must_use]
    pub fn flow_records_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring owns its descriptor and outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.flow_records.as_raw_fd()) }
    }

    /// The samples that have come since the last call.
    pub fn samples(&mut self) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        while let Some(item) = self.samples.next() {
            ensure!(item.len() == size_of::<Sample>(), "a sample of {} bytes", item.len());
            // SAFETY: as long as a sample, which is integers only, and an unaligned read asks for nothing else.
            samples.push(unsafe { item.as_ptr().cast::<Sample>().read_unaligned() });
        }
        Ok(samples)
    }
}
