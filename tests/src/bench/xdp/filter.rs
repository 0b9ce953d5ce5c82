//! `xdp-filter` of xdp-tools, on an interface of ours and with maps of its own.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::maps::{Map, MapData, PerCpuHashMap};
use aya::programs::{ProgramFd, ProgramInfo, loaded_programs};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use crate::link::ip;
use crate::netns::Namespace;

const BPFFS: &str = "/sys/fs/bpf";
/// Where it pins the map of IPv4 addresses.
const ADDRESSES: &str = "/sys/fs/bpf/xdp-filter/filter_ipv4";

/// `xdp-filter`, attached to an interface. It pins at a fixed place, which is here in a mount namespace that goes
/// with the last descriptor, so that an operator's own `xdp-filter` is none of ours.
pub(super) struct Filter {
    network: Namespace,
    mounts: Arc<OwnedFd>,
    program: ProgramInfo,
}

impl Filter {
    /// Loads it natively on an interface, for addresses.
    pub(super) fn load(network: &Namespace, interface: &str) -> Result<Self> {
        let mounts = Arc::new(own_mounts()?);
        run(network, &mounts, &["load", "--mode", "native", "--features", "ipv4", interface])?;
        let id = attached(network, interface)?.with_context(|| {
            format!("xdp-filter reports success, but there is no native XDP program on {interface}")
        })?;
        let mut all = loaded_programs().filter_map(Result::ok);
        let program = all.find(|program| program.id() == id).context("xdp-filter's program is gone")?;
        Ok(Self { network: network.clone(), mounts, program })
    }

    /// Drops what comes from these addresses: the first by its command, the others as it did with the first.
    pub(super) fn block(&self, addresses: &[Ipv4Addr]) -> Result<()> {
        let (first, others) = addresses.split_first().context("no address to block")?;
        run(&self.network, &self.mounts, &["ip", "--mode", "src", &first.to_string()])?;
        let mut map: PerCpuHashMap<_, [u8; 4], u64> = self.map()?.try_into()?;
        let entry = || map.get(&first.octets(), 0).context("xdp-filter's map has not what it has just added");
        entry()?;
        for address in others {
            let value = map.get(&first.octets(), 0)?;
            map.insert(address.octets(), value, 0).context("adding to xdp-filter's map")?;
        }
        let found = map.keys().filter(Result::is_ok).count();
        ensure!(found == addresses.len(), "xdp-filter has {found} addresses instead of {}", addresses.len());
        Ok(())
    }

    /// The program that a frame meets on the interface.
    pub(super) fn program(&self) -> Result<ProgramFd> {
        self.program.fd().context("a descriptor of xdp-filter's program")
    }

    /// The map of addresses, by its pin: a dispatcher in front of the filter would not know it.
    fn map(&self) -> Result<Map> {
        let mounts = Arc::clone(&self.mounts);
        let open = move || -> Result<MapData> {
            // A thread that shares its root and working directory with others may not change its mounts.
            unshare(CloneFlags::CLONE_FS)?;
            setns(&*mounts, CloneFlags::CLONE_NEWNS)?;
            Ok(MapData::from_pin(ADDRESSES)?)
        };
        let opened = thread::spawn(open).join().map_err(|_| anyhow!("the thread panicked"))?;
        Ok(Map::from_map_data(opened.with_context(|| format!("opening xdp-filter's {ADDRESSES}"))?)?)
    }
}

/// A mount namespace like ours with a BPF file system of its own. A thread of its own makes it, since a thread
/// cannot go back.
fn own_mounts() -> Result<OwnedFd> {
    let make = || -> Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS): this bench needs root")?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .context("private mounts")?;
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), nothing).context("mounting a bpffs")?;
        Ok(File::open("/proc/thread-self/ns/mnt")?.into())
    };
    thread::spawn(make).join().map_err(|_| anyhow!("the thread panicked"))?
}

fn run(network: &Namespace, mounts: &Arc<OwnedFd>, arguments: &[&str]) -> Result<()> {
    let mut command = network.command("xdp-filter");
    let mounts = Arc::clone(mounts);
    // SAFETY: between fork and exec the closure makes one system call, which allocates nothing and takes no
    // lock; the descriptor is open because the closure holds its owner.
    unsafe { command.pre_exec(move || Ok(setns(&*mounts, CloneFlags::CLONE_NEWNS)?)) };
    let output = command.args(arguments).output();
    let output =
        output.context("starting xdp-filter (is xdp-tools installed? `cargo xtask setup` brings it)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("xdp-filter {}: {}: {}", arguments.join(" "), output.status, said.trim());
    }
    Ok(())
}

/// Id of the XDP program that is attached natively to an interface.
pub(super) fn attached(network: &Namespace, interface: &str) -> Result<Option<u32>> {
    let text = ip(network, &format!("-details -json link show dev {interface}"))?;
    let links: Value = serde_json::from_str(&text).context("what ip prints is not JSON")?;
    native(&links).map(u32::try_from).transpose().context("no program has such an id")
}

fn native(links: &Value) -> Option<u64> {
    const NATIVE: u64 = 1;
    let xdp = &links[0]["xdp"];
    (xdp["mode"] == NATIVE).then(|| xdp["prog"]["id"].as_u64()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::native;

    #[test]
    fn only_a_native_program_is_one() {
        let link = |mode| json!([{ "ifname": "d0", "xdp": { "mode": mode, "prog": { "id": 7 } } }]);
        assert_eq!((native(&link(1)), native(&link(2)), native(&json!([{}]))), (Some(7), None, None));
    }
}
