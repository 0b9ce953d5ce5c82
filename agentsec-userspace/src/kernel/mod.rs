//! The only part that speaks to the kernel's BPF side.

pub mod probe;
