//! The BPF object in this binary.

/// The object as built by `cargo xtask build`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agentsec-ebpf.o"));
