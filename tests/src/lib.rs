//! Fixtures for tests on real kernels, shared with the demo and the bench.
//!
//! * [`netns`]: network namespaces that nobody else can see, and code and commands that run inside them.
//! * [`cgroup`]: cgroups of a test's own, and processes that are born in them.
//! * [`link`]: veth pairs, addresses, offloads, sysctls, and the interface counters that tests compare with.
//! * [`lab`]: a host namespace, its agents and a world to talk to, wired up in one call.
//! * [`traffic`]: real traffic between them, bounded in amount and in time, and a capture that counts it.
//! * [`servers`]: servers that answer by a script, and clients that measure them.
//! * [`kernel_rig`]: the kernel programs on a bench of their own, fed one frame at a time.
//! * [`bench`]: what containment costs.
//! * [`daemon`]: the daemon itself in the lab's host namespace, with its own sockets, state and pins.
//! * [`scene`]: a lab with a daemon in it.
//! * [`quiet`]: a daemon whose agents can be brought back.
//! * [`stores`]: servers that keep snapshots.
//! * [`wall_clock`]: a wall clock of a daemon's own, which steps.
//! * [`cgroup::scene`]: a daemon whose agents are processes.
//! * [`neighbours`]: a daemon whose agents share a link.
//! * [`foreign`]: programs of somebody else on the same hooks.
//! * [`demo`]: all of it together, as a story for people, with measurements that prove it.
//!
//! Everything here needs root. Nothing touches the machine's own network: every interface is born in a
//! namespace that the fixture made, and dies with it. What the kernel does not clean up by itself when a
//! test is killed (a pin directory, a named namespace, a cgroup) carries the process id and start time in its name.

pub mod bench;
mod binary;
pub mod cgroup;
pub mod daemon;
pub mod demo;
pub mod failing_disk;
pub mod foreign;
pub mod fuzz;
pub mod kernel_rig;
pub mod lab;
pub mod link;
pub mod neighbours;
pub mod netns;
pub mod quiet;
pub mod scene;
pub mod servers;
pub mod small_disk;
pub mod stores;
pub mod traffic;
mod unique;
pub mod wait;
pub mod wall_clock;
