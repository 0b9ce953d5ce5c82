//! Interfaces inside fixture namespaces: made with `ip`, measured with the kernel's own counters.

mod counters;
mod ip;
mod offload;
mod sysctl;
mod veth;

pub use counters::{Counters, counters, counters_of_all, settle};
pub use ip::{bridge_batch, ip, ip_batch};
pub use offload::{Offload, set_offload, set_offloads};
pub use sysctl::{Noise, prepare, set_sysctl};
pub use veth::{End, Mac, mac_text, veth_pairs, wait_active};
