//! Names and default capacities of the maps.

/// Version of the maps' layout. It is part of the pin path, so that programs never meet maps of another
/// shape. Raise it with every change of a type or of a meaning in this crate.
pub const LAYOUT_VERSION: u32 = 1;

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
/// Kernel → daemon: notices. Ring buffer.
pub const NOTICES: &str = "NOTICES";

/// Name of the program on the agent's way out (the host-side interface's ingress).
pub const PROGRAM_OUTBOUND: &str = "agentsec_out";
/// Name of the program on the agent's way in (the host-side interface's egress).
pub const PROGRAM_INBOUND: &str = "agentsec_in";

/// Interface indexes below this are looked up in an array, greater ones in a hash.
pub const IDENTITY_NEAR_CAPACITY: u32 = 65_536;
/// Default number of interfaces with an index of [`IDENTITY_NEAR_CAPACITY`] or more.
pub const IDENTITY_FAR_CAPACITY: u32 = 4_096;
/// Default number of agents; the daemon sets its own before loading.
pub const AGENT_CAPACITY: u32 = 4_096;
/// Default number of profile rows.
pub const PROFILE_CAPACITY: u32 = 4_096;
/// Default number of typical prefixes over all profiles.
pub const TYPICAL_CAPACITY: u32 = 65_536;
/// Default number of endpoints over all agents.
pub const ENDPOINT_CAPACITY: u32 = 65_536;
/// Bytes in the notice ring.
pub const NOTICE_RING_BYTES: u32 = 1 << 20;
