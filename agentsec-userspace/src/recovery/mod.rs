//! The way back: snapshots of agents' state in restic's repository format, and recovery from them.
//!
//! ```text
//! source ─▶ restic ─▶ repository ─▶ verify          catalogue: what we made, apart from the repository
//!                         └─▶ staging ─▶ exchange with the target, in one step
//! plan (pure): which snapshots ─▶ recover: stop, restore, start, release
//! ```
//!
//! restic runs as a child process. What is read from a repository is input that an attacker may have made; it is
//! decoded in a process that can be killed, bounded and niced, never in the one that contains agents. No work here
//! runs on the daemon's loop.

mod automatic;
mod bring_back;
pub mod catalogue;
pub mod child;
pub mod durable;
pub mod error;
pub mod freeze;
mod ground;
pub mod health;
pub mod jobs;
pub mod key;
pub mod lay_out;
mod local;
pub mod memory;
pub mod moment;
pub mod plan;
pub mod progress;
pub mod recover;
pub mod restic;
pub mod retention;
pub mod schedule;
pub mod service;
pub mod staging;
pub mod store;
pub mod suspicion;
pub mod testimony;
pub mod tiers;
mod work;
pub mod world;

pub use catalogue::{Catalogue, Record};
pub use child::Cancel;
pub use error::{Failure, Kind};
pub use lay_out::LaidOut;
pub use moment::Moment;
pub use service::Service;
pub use store::Store;
pub use world::{AgentNow, Told, World};
