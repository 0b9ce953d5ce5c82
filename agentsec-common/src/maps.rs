//! Names and default capacities of the maps.

/// Version of the maps' layout. It is part of the pin path, so that programs never meet maps of another
/// shape. Raise it with every change of a type or of a meaning in this crate.
pub const LAYOUT_VERSION: u32 = 4;

/// Daemon → kernel: state, mode, epoch and slow signals by slot. Memory-mapped array.
pub const POLICY: &str = "POLICY";
/// Daemon → kernel: profiles by row. Array.
pub const PROFILES: &str = "PROFILES";
/// Daemon → kernel: typical endpoints by (row, address prefix). LPM trie.
pub const TYPICAL: &str = "TYPICAL";
/// Daemon → kernel: slot by interface index below [`IDENTITY_NEAR_CAPACITY`]. Array.
pub const IDENTITY_NEAR: &str = "IDENTITY_NEAR";
/// Daemon → kernel: slot by any greater interface index. Hash.
pub const IDENTITY_FAR: &str = "IDENTITY_FAR";
/// Daemon → kernel: slot by cgroup id. Hash.
pub const IDENTITY_CGROUP: &str = "IDENTITY_CGROUP";
/// Daemon → kernel: slot by (link, IPv4 address). Hash.
pub const IDENTITY_IPV4: &str = "IDENTITY_IPV4";
/// Daemon → kernel: slot by (link, IPv6 address). Hash.
pub const IDENTITY_IPV6: &str = "IDENTITY_IPV6";
/// Daemon → kernel: slot by (link, address prefix), the identity in 32 bits as a trie's values need no more
/// alignment than its keys. LPM trie.
pub const IDENTITY_PREFIX: &str = "IDENTITY_PREFIX";
/// Daemon → kernel: which look-ups are worth their time. Array of one.
pub const SCOPE: &str = "SCOPE";
/// Kernel → kernel: whose the latest packet's cgroup is. Per-CPU array of one, never pinned.
pub const RECENT: &str = "RECENT";
/// Daemon → kernel: cookies of network namespaces that are behind agents' interfaces. Hash.
pub const COVERED: &str = "COVERED";
/// Daemon → daemon: the agent's name by slot; lives as long as the pins. Array.
pub const AGENTS: &str = "AGENTS";
/// Kernel → daemon: windows, trip sequence and trip record by slot. Memory-mapped array.
pub const LEDGER: &str = "LEDGER";
/// Kernel → daemon: exact packet and byte counts by slot. Per-CPU array.
pub const COUNTERS: &str = "COUNTERS";
/// Kernel → daemon: packets that belong to no known agent. Per-CPU array of one.
pub const STRAYS: &str = "STRAYS";
/// Kernel → daemon: whom each agent talks to. Hash.
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Kernel → daemon: the connections of each agent. Hash.
pub const FLOWS: &str = "FLOWS";
/// Kernel → daemon: response times by slot. Memory-mapped array.
pub const TIMES: &str = "TIMES";
/// Kernel → daemon: response times by endpoint. Hash.
pub const RESPONSES: &str = "RESPONSES";
/// Kernel → daemon: the latest packets, by recorder. Memory-mapped array.
pub const RECORDS: &str = "RECORDS";
/// Kernel → daemon: notices. Ring buffer.
pub const NOTICES: &str = "NOTICES";
/// Kernel → daemon: samples of answers. Ring buffer.
pub const SAMPLES: &str = "SAMPLES";
/// Kernel → daemon: what connections were when they ended, and what they began with. Ring buffer, which wakes nobody
/// before it is half full.
pub const FLOW_RECORDS: &str = "FLOW_RECORDS";

/// Name of the program on the agent's way out (the host-side interface's ingress).
pub const PROGRAM_OUTBOUND: &str = "agentsec_out";
/// Name of the program on the agent's way in (the host-side interface's egress).
pub const PROGRAM_INBOUND: &str = "agentsec_in";
/// Name of the program on a shared link's ingress: what agents behind it send, by source address.
pub const PROGRAM_LINK_OUTBOUND: &str = "agentsec_link_out";
/// Name of the program on a shared link's egress: what agents behind it are sent, by destination address.
pub const PROGRAM_LINK_INBOUND: &str = "agentsec_link_in";
/// Name of the program that drops before the stack what agents behind a shared link send while OPEN.
pub const PROGRAM_LINK_XDP: &str = "agentsec_link_xdp";
/// Name of the program at a cgroup's egress: what its processes send.
pub const PROGRAM_CGROUP_OUTBOUND: &str = "agentsec_cgroup_out";
/// Name of the program at a cgroup's ingress: what its processes are sent.
pub const PROGRAM_CGROUP_INBOUND: &str = "agentsec_cgroup_in";
/// Name of the program that denies packet sockets to processes in agents' cgroups.
pub const PROGRAM_SOCKET: &str = "agentsec_socket";

/// Name of the constant that says whether this kernel tells a packet's network namespace (6.15).
pub const TELLS_NAMESPACE: &str = "TELLS_NAMESPACE";

/// Interface indexes below this are looked up in an array, greater ones in a hash.
pub const IDENTITY_NEAR_CAPACITY: u32 = 65_536;
/// Default number of interfaces with an index of [`IDENTITY_NEAR_CAPACITY`] or more.
pub const IDENTITY_FAR_CAPACITY: u32 = 4_096;
/// Default number of cgroups, of addresses of each family, and of address prefixes that are agents'.
pub const IDENTITY_CAPACITY: u32 = 65_536;
/// Default number of network namespaces behind agents' interfaces.
pub const COVERED_CAPACITY: u32 = 4_096;
/// Default number of agents; the daemon sets its own before loading.
pub const AGENT_CAPACITY: u32 = 4_096;
/// Default number of profile rows.
pub const PROFILE_CAPACITY: u32 = 4_096;
/// Default number of typical prefixes over all profiles.
pub const TYPICAL_CAPACITY: u32 = 65_536;
/// Default number of endpoints over all agents.
pub const ENDPOINT_CAPACITY: u32 = 65_536;
/// Default number of connections over all agents.
pub const FLOW_CAPACITY: u32 = 65_536;
/// Default number of agents whose packets are recorded.
pub const RECORDER_CAPACITY: u32 = 256;
/// Default number of packets that are kept of each, as a power of two.
pub const RECORDER_DEPTH_LOG2: u32 = 8;
/// Bytes in the sample ring.
pub const SAMPLE_RING_BYTES: u32 = 1 << 20;
/// Bytes in the ring of what connections were: three seconds of ten thousand short ones each.
pub const FLOW_RECORD_RING_BYTES: u32 = 1 << 22;
/// Bytes in the notice ring.
pub const NOTICE_RING_BYTES: u32 = 1 << 20;
