//! Where an agent's processes and sockets are: its cgroups, and the network namespaces behind its interfaces.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use crate::kernel::cgroups::{Scope, Tree};
use crate::kernel::namespaces::{Behind, behind};

use super::trip::Places;

/// Namespaces of one agent's processes that are looked into.
const MOST_SHARED: usize = 16;

/// A network namespace of an agent.
#[derive(Debug)]
pub(super) struct Net {
    /// Its inode number, as `readlink /proc/PID/ns/net` shows it.
    pub(super) inode: u64,
    /// The way in.
    pub(super) file: File,
    /// How it is known to be the agent's.
    pub(super) because: String,
}

/// What is known of where an agent is.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// Namespaces that are the agent's alone.
    pub(super) nets: Vec<Net>,
    /// Cgroups.
    pub(super) cgroups: Vec<String>,
    /// Processes in those.
    pub(super) members: BTreeSet<u32>,
    /// Namespaces in which those are, and in which others may be as well.
    pub(super) shared: Vec<Net>,
    /// What cannot be known, and why.
    pub(super) unknown: Vec<String>,
}

/// Looks where the agent is. What cannot be known is told and no error.
pub(super) fn find(places: &Places) -> Whereabouts {
    let mut found = Whereabouts { cgroups: places.cgroups.clone(), ..Whereabouts::default() };
    find_nets(places, &mut found);
    find_members(places, &mut found);
    find_shared(&mut found);
    for address in &places.addresses {
        found.unknown.push(format!(
            "the agent is known by its address {address}: its processes and sockets are behind the link, perhaps on \
             another host"
        ));
    }
    if places.interfaces.is_empty() && places.cgroups.is_empty() && places.addresses.is_empty() {
        found.unknown.push("the agent is attached nowhere: where its processes are is not known".into());
    }
    found
}

fn find_nets(places: &Places, found: &mut Whereabouts) {
    if places.interfaces.is_empty() {
        return;
    }
    let numbers: Vec<u32> = places.interfaces.iter().map(|(ifindex, _)| *ifindex).collect();
    let name = |ifindex: u32| {
        places.interfaces.iter().find(|(number, _)| *number == ifindex).map_or("?", |(_, name)| name.as_str())
    };
    let all = match behind(&numbers) {
        Ok(all) => all,
        Err(error) => return found.unknown.push(format!("the namespaces behind interfaces: {error:#}")),
    };
    for (ifindex, behind) in all {
        let name = name(ifindex);
        match behind {
            Behind::Namespace { inode, file } if found.nets.iter().all(|net| net.inode != inode) => {
                let because = format!("the other side of {name} is in it");
                found.nets.push(Net { inode, file, because });
            }
            Behind::Namespace { .. } => {}
            Behind::Unknown(why) => found.unknown.push(format!("what is behind {name}: {why}")),
        }
    }
}

fn find_members(places: &Places, found: &mut Whereabouts) {
    if places.cgroups.is_empty() {
        return;
    }
    let tree = match Tree::find() {
        Ok(tree) => tree,
        Err(error) => return found.unknown.push(format!("the processes of its cgroup: {error:#}")),
    };
    for path in &places.cgroups {
        match tree.members(path, Scope::WithDescendants) {
            Ok(members) => found.members.extend(members),
            Err(error) => found.unknown.push(format!("the processes of the cgroup {path}: {error:#}")),
        }
    }
}

/// The namespaces of the members of cgroups, as far as they are not the agent's alone.
fn find_shared(found: &mut Whereabouts) {
    for pid in &found.members {
        let Ok(file) = File::open(format!("/proc/{pid}/ns/net")) else { continue };
        let Ok(inode) = file.metadata().map(|about| about.ino()) else { continue };
        if found.nets.iter().chain(&found.shared).any(|net| net.inode == inode) {
            continue;
        }
        if found.shared.len() >= MOST_SHARED {
            let message = format!("its processes are in more than {MOST_SHARED} network namespaces");
            return found.unknown.push(message);
        }
        let because = format!("process {pid} of its cgroup is in it; others may be as well");
        found.shared.push(Net { inode, file, because });
    }
}
