//! Which network namespace an interface of ours leads to.

use std::fs::File;

use anyhow::{Context, Result};

use crate::kernel::interfaces::links_of;
use crate::kernel::netlink::Route;

use super::{find, number_of};

/// What is behind an interface.
#[derive(Debug)]
pub enum Behind {
    /// A network namespace.
    Namespace {
        /// Its inode number.
        inode: u64,
        /// The way in.
        file: File,
    },
    /// Nobody can tell: why.
    Unknown(String),
}

/// What is behind each of these interfaces of the calling thread's namespace, in their order. It reads a link of every
/// process, as [`super::scan`] does, and enters nothing.
///
/// # Errors
///
/// When the interfaces or `/proc` cannot be read.
pub fn behind(interfaces: &[u32]) -> Result<Vec<(u32, Behind)>> {
    let own = File::open("/proc/thread-self/ns/net").context("opening our own network namespace")?;
    let mut route = Route::open()?;
    let links = links_of(&mut route)?;
    let found = find::all(&own)?;
    let wanted = |nsid: i32| {
        links.iter().any(|link| interfaces.contains(&link.ifindex) && link.peer_netns == Some(nsid))
    };
    let mut numbered = Vec::new();
    for path in found.paths.values() {
        if let Some((inode, file)) = find::open(path)
            && let Some(nsid) = number_of(&mut route, &file).filter(|nsid| wanted(*nsid))
        {
            numbered.push((nsid, inode, file));
        }
    }
    let look = |ifindex: u32| -> Behind {
        let Some(link) = links.iter().find(|link| link.ifindex == ifindex) else {
            return Behind::Unknown("the interface is gone".into());
        };
        let Some(nsid) = link.peer_netns else {
            let kind = if link.kind.is_empty() { "an interface without a driver's name" } else { &link.kind };
            return Behind::Unknown(format!("{kind}, whose other side is in no other network namespace"));
        };
        match numbered.iter().find(|(number, ..)| *number == nsid) {
            Some((_, inode, file)) => match file.try_clone() {
                Ok(file) => Behind::Namespace { inode: *inode, file },
                Err(error) => Behind::Unknown(error.to_string()),
            },
            None => Behind::Unknown("a network namespace that has neither a process nor a name".into()),
        }
    };
    Ok(interfaces.iter().map(|ifindex| (*ifindex, look(*ifindex))).collect())
}
