//! The maps, as `agentsec-common` describes them. Capacities are defaults: the daemon sets its own.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;

use agentsec_common::agent::{AgentName, LinkAddress, LinkIpv4, Recent, Scope};
use agentsec_common::counters::{Counters, Strays};
use agentsec_common::endpoint::{Endpoint, EndpointKey};
use agentsec_common::flow::{Flow, FlowKey, FlowRecord};
use agentsec_common::ledger::Ledger;
use agentsec_common::maps::{
    AGENT_CAPACITY, COVERED_CAPACITY, ENDPOINT_CAPACITY, FLOW_CAPACITY, FLOW_RECORD_RING_BYTES,
    IDENTITY_CAPACITY, IDENTITY_FAR_CAPACITY, IDENTITY_NEAR_CAPACITY, NOTICE_RING_BYTES, PROFILE_CAPACITY,
    RECORDER_CAPACITY, RECORDER_DEPTH_LOG2, SAMPLE_RING_BYTES, TYPICAL_CAPACITY,
};
use agentsec_common::notice::Notice;
use agentsec_common::policy::Policy;
use agentsec_common::profile::Profile;
use agentsec_common::recorder::Entry;
use agentsec_common::sample::{Responses, Sample};
use agentsec_common::times::TIME_BUCKETS;
use agentsec_common::typical::{PortRules, TypicalKey};

const AGENTS_MAX: usize = AGENT_CAPACITY as usize;
const RECORDS_MAX: usize = (RECORDER_CAPACITY as usize) << RECORDER_DEPTH_LOG2;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
/// Entries are allocated when they are made: most installations use one kind of identity, and few of its entries.
const AS_NEEDED: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static POLICY: Array<Policy, AGENTS_MAX, MMAPABLE> = Array::new();
#[btf_map]
pub static LEDGER: Array<Ledger, AGENTS_MAX, MMAPABLE> = Array::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, AGENTS_MAX> = PerCpuArray::new();
#[btf_map]
pub static STRAYS: PerCpuArray<Strays, 1> = PerCpuArray::new();
#[btf_map]
pub static PROFILES: Array<Profile, { PROFILE_CAPACITY as usize }> = Array::new();
#[btf_map]
pub static TYPICAL: LpmTrie<TypicalKey, PortRules, { TYPICAL_CAPACITY as usize }> = LpmTrie::new();
#[btf_map]
pub static IDENTITY_NEAR: Array<u64, { IDENTITY_NEAR_CAPACITY as usize }> = Array::new();
#[btf_map]
pub static IDENTITY_FAR: HashMap<u32, u64, { IDENTITY_FAR_CAPACITY as usize }> = HashMap::new();
#[btf_map]
pub static IDENTITY_CGROUP: HashMap<u64, u64, { IDENTITY_CAPACITY as usize }, AS_NEEDED> = HashMap::new();
#[btf_map]
pub static IDENTITY_IPV4: HashMap<LinkIpv4, u64, { IDENTITY_CAPACITY as usize }, AS_NEEDED> = HashMap::new();
#[btf_map]
pub static IDENTITY_IPV6: HashMap<LinkAddress, u64, { IDENTITY_CAPACITY as usize }, AS_NEEDED> =
    HashMap::new();
#[btf_map]
pub static IDENTITY_PREFIX: LpmTrie<LinkAddress, u32, { IDENTITY_CAPACITY as usize }> = LpmTrie::new();
#[btf_map]
pub static SCOPE: Array<Scope, 1> = Array::new();
#[btf_map]
pub static RECENT: PerCpuArray<Recent, 1> = PerCpuArray::new();
#[btf_map]
pub static COVERED: HashMap<u64, u64, { COVERED_CAPACITY as usize }, AS_NEEDED> = HashMap::new();
/// The programs never look at it; it is theirs so that it is pinned and lives with them.
#[btf_map]
pub static AGENTS: Array<AgentName, AGENTS_MAX> = Array::new();
#[btf_map]
pub static ENDPOINTS: HashMap<EndpointKey, Endpoint, { ENDPOINT_CAPACITY as usize }> = HashMap::new();
#[btf_map]
pub static FLOWS: HashMap<FlowKey, Flow, { FLOW_CAPACITY as usize }> = HashMap::new();
/// New entries of [`FLOWS`] are made from this one, which nobody writes: it is too long for the stack.
#[btf_map]
pub static NO_FLOW: Array<Flow, 1> = Array::new();
#[btf_map]
pub static TIMES: Array<[u32; TIME_BUCKETS], AGENTS_MAX, MMAPABLE> = Array::new();
#[btf_map]
pub static RESPONSES: HashMap<EndpointKey, Responses, { ENDPOINT_CAPACITY as usize }, AS_NEEDED> =
    HashMap::new();
/// The same for [`RESPONSES`].
#[btf_map]
pub static NO_RESPONSES: Array<Responses, 1> = Array::new();
#[btf_map]
pub static RECORDS: Array<Entry, RECORDS_MAX, MMAPABLE> = Array::new();
#[btf_map]
pub static SAMPLES: RingBuf<Sample, { SAMPLE_RING_BYTES as usize }> = RingBuf::new();
/// It also holds opening records.
#[btf_map]
pub static FLOW_RECORDS: RingBuf<FlowRecord, { FLOW_RECORD_RING_BYTES as usize }> = RingBuf::new();
#[btf_map]
pub static NOTICES: RingBuf<Notice, { NOTICE_RING_BYTES as usize }> = RingBuf::new();
