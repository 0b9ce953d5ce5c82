//! Which network namespaces are behind agents' interfaces, and which ways lead out of them past ours.
//!
//! An agent meets the programs on the host's side of its veth pair. Another pair into the same namespace, or an
//! interface in there that sits on something else, is a way out that they do not see. [`scan`] lists what there
//! is, and [`judge`] says what that means; nothing is changed.
//!
//! # What it cannot see
//!
//! A namespace is found by its processes and by its name under `/run/netns`. One that only a thread, an open
//! descriptor or a mount elsewhere keeps is not; if an agent's interface leads there, [`Findings::unseen`] says so.

mod behind;
mod cookie;
mod find;
mod judge;
pub mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use super::interfaces::{Link, links_of};
use super::netlink::{Ask, Route, attribute, attributes, number};

pub use behind::{Behind, behind};
pub use cookie::cookie_of_this_namespace;
use find::Found;
pub use find::MOST_NAMESPACES;
pub use judge::{Bridged, Child, Findings, Second, Uncovered, Unseen, Why, judge};

/// `NETNSA_NSID`, `NETNSA_FD`: attributes of `RTM_GETNSID`.
const NSID: u16 = 1;
const FD: u16 = 3;

/// A network namespace other than the daemon's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// What `lsns` and `readlink /proc/PID/ns/net` show.
    pub inode: u64,
    /// What the kernel's programs know it by; never given again.
    pub cookie: u64,
    /// The daemon's namespace's number for it, which [`Link::peer_netns`] of host links refers to; none as long as
    /// no interface leads from one to the other.
    pub nsid: Option<i32>,
    /// Its own number for the daemon's namespace, which [`Link::peer_netns`] of its links refers to.
    pub host_nsid: Option<i32>,
    /// Its interfaces.
    pub links: Vec<Link>,
}

/// What a scan has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The interfaces of the daemon's namespace.
    pub host: Vec<Link>,
    /// The other namespaces, by inode number.
    pub namespaces: Vec<Namespace>,
    /// Namespaces left out because there are more than [`MOST_NAMESPACES`].
    pub beyond: u64,
    /// Namespaces left out because they cannot be entered or read.
    pub unreadable: u64,
}

/// Looks at every network namespace that a process is in or that has a name.
///
/// It reads a link of every process and asks every namespace for its interfaces: about 20 µs a process (the first
/// time 100) and 60 µs a namespace, so with a thousand of each 80 ms: work for a thread beside the loop.
/// Call it when interfaces have changed, but not more than once a second, and every 30 s, since a process that
/// enters or leaves a namespace tells nobody.
///
/// # Errors
///
/// When the daemon's own interfaces or `/proc` cannot be read. A process or namespace that vanishes meanwhile is
/// no error.
pub fn scan() -> Result<Scan> {
    let own = File::open("/proc/thread-self/ns/net").context("opening our own network namespace")?;
    let mut route = Route::open()?;
    // This first: listing an interface that leads elsewhere gives that namespace its number.
    let host = links_of(&mut route)?;
    let found = find::all(&own)?;
    let scan = Scan { host, beyond: found.beyond, ..Scan::default() };
    // setns moves a thread for good, so it is not this one.
    let looked = thread::scope(|scope| scope.spawn(|| look_into_all(scan, &found, &own, &mut route)).join());
    looked.map_err(|_| anyhow!("looking into the network namespaces panicked"))
}

/// Enters one after the other; only one is open at a time. `route` is a socket of the daemon's namespace.
fn look_into_all(mut scan: Scan, found: &Found, own: &File, route: &mut Route) -> Scan {
    let mut namespaces = BTreeMap::new();
    for (inode, path) in &found.paths {
        match find::open(path) {
            // The path may lead elsewhere by now; what counts is what has been opened.
            Some((inode, _)) if namespaces.contains_key(&inode) || inode == found.own => {}
            Some((inode, file)) => match look_into(inode, &file, own, route) {
                Ok(namespace) => drop(namespaces.insert(inode, namespace)),
                Err(_) => scan.unreadable += 1,
            },
            None => scan.unreadable += u64::from(find::is_there(*inode, path)),
        }
    }
    scan.namespaces = namespaces.into_values().collect();
    scan
}

/// Does `work` in a thread that has entered a network namespace and ends with it.
///
/// # Errors
///
/// When the namespace cannot be entered, or `work` panics.
pub fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> Result<T> {
    let enter = || -> Result<T> {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
        Ok(work())
    };
    let done = thread::scope(|scope| scope.spawn(enter).join());
    done.map_err(|_| anyhow!("the thread inside a network namespace panicked"))?
}

/// Enters a namespace for good, and looks around.
fn look_into(inode: u64, namespace: &File, host: &File, from_host: &mut Route) -> Result<Namespace> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
    let mut route = Route::open()?;
    let links = links_of(&mut route)?;
    Ok(Namespace {
        inode,
        cookie: cookie::of(route.as_fd())?,
        nsid: number_of(from_host, namespace),
        host_nsid: number_of(&mut route, host),
        links,
    })
}

/// A namespace's number as seen from the socket's; none if it has none.
fn number_of(route: &mut Route, namespace: &File) -> Option<i32> {
    let mut body = vec![0; 4];
    body.extend(attribute(FD, namespace.as_raw_fd().cast_unsigned()));
    let mut told = None;
    let answered = route.ask(libc::RTM_GETNSID, Ask::One, &body, |body| {
        // The header is as long as the question's.
        let mut attributes = attributes(body.get(4..).unwrap_or_default());
        told = attributes.find(|(kind, _)| *kind == NSID).and_then(|(_, value)| number(value));
    });
    // A kernel that does not say is one that has none for us.
    answered.ok().and(told).map(u32::cast_signed).filter(|nsid| *nsid >= 0)
}
