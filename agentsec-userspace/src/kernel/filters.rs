//! Programs on clsact filters, where the kernel has no TCX links.
//!
//! A filter holds its program, so it outlives the daemon as a pinned link does. But it has no pin, so an empty directory
//! remembers it, for whoever takes over or unloads; and anybody who is root in its network namespace can take it off,
//! so it is looked at again and again.
//!
//! ```text
//! PIN_PATH/v<layout>/filters/<LINK>            our filter is on this hook
//! PIN_PATH/v<layout>/filters/qdisc-<ifindex>   and this qdisc is ours
//! ```

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TcAttachType};

use super::hook::{Hook, LinkName, Side};
use super::tc;

/// Makes a daemon on a kernel with TCX attach as on one without, when it is `clsact`. For tests.
const VARIABLE: &str = "AGENTSEC_ATTACH";

/// Whether interfaces are attached to by TCX links.
pub(super) fn has_tcx() -> bool {
    // The loopback device is in every network namespace; kernels without TCX do not know the question.
    let is_known = || SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok();
    std::env::var_os(VARIABLE).is_none_or(|how| how != "clsact") && is_known()
}

/// The filters of one pin directory.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    directory: PathBuf,
}

impl Filters {
    /// Remembered in the layout directory given.
    pub(super) fn new(layout: &Path) -> Self {
        Self { directory: layout.join("filters") }
    }

    /// The filters that are remembered, whether they are there or not.
    pub(super) fn remembered(&self) -> Vec<LinkName> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| LinkName::parse(entry.file_name().to_str()?));
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    /// Whether a filter is remembered.
    pub(super) fn remembers(&self, name: &LinkName) -> bool {
        self.memory(name).is_dir()
    }

    /// Puts a program on an interface, ahead of the filters of others, or another into its place.
    pub(super) fn put(&self, name: &LinkName, program: BorrowedFd<'_>) -> Result<()> {
        let (ifindex, title) = interface(name).context("not a hook of an interface")?;
        // Remembered first: a filter that nobody remembers would outlive an unload.
        remember(&self.memory(name))?;
        if tc::add_qdisc(ifindex).context("the kernel refuses the clsact qdisc")? {
            remember(&self.qdisc(ifindex))?;
        }
        tc::put_filter(ifindex, name.side, program, title).context("the kernel refuses the clsact filter")
    }

    /// Whether a filter of ours is there.
    pub(super) fn is_there(name: &LinkName) -> Result<bool> {
        let Some((ifindex, _)) = interface(name) else { return Ok(false) };
        let filters = tc::filters(ifindex, name.side).context("listing the filters of an interface")?;
        Ok(filters.into_iter().any(tc::Filter::is_ours))
    }

    /// Takes a filter off and forgets it, and the qdisc too if it is ours and empty now.
    pub(super) fn remove(&self, name: &LinkName) -> Result<()> {
        let Some((ifindex, _)) = interface(name) else { return Ok(()) };
        tc::remove_filter(ifindex, name.side).with_context(|| format!("taking off the filter {name}"))?;
        let qdisc = self.qdisc(ifindex);
        if qdisc.is_dir() && is_empty(ifindex)? {
            tc::remove_qdisc(ifindex).context("taking off the clsact qdisc")?;
            forget(&qdisc)?;
        }
        forget(&self.memory(name))
    }

    /// Takes everything off that is remembered, then forgets what is left: of interfaces that are gone. How many
    /// filters there were.
    pub(super) fn remove_all(&self) -> Result<usize> {
        let names = self.remembered();
        for name in &names {
            self.remove(name)?;
        }
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| is_qdisc(&entry.file_name().to_string_lossy())) {
            forget(&entry.path())?;
        }
        match fs::remove_dir(&self.directory) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::ENOENT)) => {
                Err(error).with_context(|| format!("cannot remove {}", self.directory.display()))
            }
            _ => Ok(names.len()),
        }
    }

    fn memory(&self, name: &LinkName) -> PathBuf {
        self.directory.join(name.to_string())
    }

    fn qdisc(&self, ifindex: u32) -> PathBuf {
        self.directory.join(format!("{QDISC}{ifindex}"))
    }
}

const QDISC: &str = "qdisc-";

fn is_qdisc(name: &str) -> bool {
    name.strip_prefix(QDISC).is_some_and(|ifindex| ifindex.parse::<u32>().is_ok())
}

/// The interface of a hook that can be on a filter, and the name of its program.
fn interface(name: &LinkName) -> Option<(u32, &'static str)> {
    let (Hook::Interface { ifindex, .. } | Hook::Link { ifindex }) = name.hook else { return None };
    matches!(name.side, Side::Out | Side::In).then_some((ifindex, name.program()?))
}

fn is_empty(ifindex: u32) -> Result<bool> {
    for side in [Side::Out, Side::In] {
        if !tc::filters(ifindex, side).context("listing the filters of an interface")?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn remember(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

fn forget(directory: &Path) -> Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_classifiers_of_interfaces_can_be_on_a_filter() {
        let name = |hook, side| LinkName { hook, side };
        let link = Hook::Link { ifindex: 7 };
        assert_eq!(interface(&name(link, Side::Out)).map(|(ifindex, _)| ifindex), Some(7));
        assert!(interface(&name(Hook::Interface { slot: 1, ifindex: 8 }, Side::In)).is_some());
        assert_eq!(interface(&name(link, Side::Xdp)), None);
        assert_eq!(interface(&name(Hook::Cgroup { id: 1 }, Side::Out)), None);
        assert_eq!(interface(&name(Hook::Sockets, Side::Create)), None);
    }

    #[test]
    fn what_is_remembered_is_told_and_what_others_put_there_is_not() {
        let layout = tempfile::tempdir().unwrap();
        let filters = Filters::new(layout.path());
        assert_eq!(filters.remembered(), []);
        let name = LinkName { hook: Hook::Interface { slot: 3, ifindex: 4 }, side: Side::In };
        remember(&filters.memory(&name)).unwrap();
        remember(&filters.qdisc(4)).unwrap();
        remember(&filters.directory.join("theirs")).unwrap();
        assert_eq!(filters.remembered(), [name]);
        assert!(filters.remembers(&name));
    }
}
