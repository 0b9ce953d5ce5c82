//! Traffic control by netlink: the clsact qdisc and the filters on it, for kernels without TCX.
//!
//! Everything is asked by the interface's number, in the network namespace of the calling thread.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
};

use super::hook::Side;
use super::netlink::{Ask, Route};

/// Before every other filter: filters run in the order of their priorities, and zero is none.
const PRIORITY: u16 = 1;
/// Tells our filter from others of the same priority.
const HANDLE: u32 = u32::from_be_bytes(*b"agse");

const QDISC: &str = "clsact";
const QDISC_HANDLE: u32 = 0xffff_0000;
const QDISC_PARENT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// A list that changes while it is told is asked for again so often.
const MOST_DUMPS: u32 = 4;

/// Every protocol, as it lies in a header: in network byte order.
const ETH_P_ALL: u16 = (libc::ETH_P_ALL as u16).to_be();

/// A filter on one side of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    priority: u16,
    handle: u32,
}

impl Filter {
    /// Whether an agentsec has made it.
    pub(super) fn is_ours(self) -> bool {
        self == Self { priority: PRIORITY, handle: HANDLE }
    }
}

/// Gives an interface its clsact qdisc; false when it has one.
pub(super) fn add_qdisc(ifindex: u32) -> io::Result<bool> {
    let message = qdisc(ifindex)?;
    match ask(libc::RTM_NEWQDISC, Ask::Change(NLM_F_CREATE | NLM_F_EXCL), &message) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        answer => answer.map(|_| true),
    }
}

/// Whether this kernel has the qdisc, tried in a network namespace that is gone again at once.
pub(super) fn can_add_qdisc() -> io::Result<bool> {
    let attempt = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        // The loopback device, which every namespace is born with.
        match add_qdisc(1) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => Ok(false),
            added => added,
        }
    };
    // A namespace is a thread's own, and this one's goes with it.
    std::thread::spawn(attempt).join().map_err(|_| io::Error::other("the attempt panicked"))?
}

/// Takes an interface's clsact qdisc away, with everything on it.
pub(super) fn remove_qdisc(ifindex: u32) -> io::Result<()> {
    absent_is_well(ask(libc::RTM_DELQDISC, Ask::Change(0), &qdisc(ifindex)?))
}

/// Puts our filter on a side of an interface that has the qdisc, or another program into it, from one packet to the
/// next. The filter holds the program.
pub(super) fn put_filter(ifindex: u32, side: Side, program: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut message = filter(ifindex, side)?;
    let fd = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(fd)),
        TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
        // The program's verdict is the filter's.
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    ask(libc::RTM_NEWTFILTER, Ask::Change(NLM_F_CREATE | NLM_F_REPLACE), &message).map(drop)
}

/// Takes our filter off a side of an interface.
pub(super) fn remove_filter(ifindex: u32, side: Side) -> io::Result<()> {
    absent_is_well(ask(libc::RTM_DELTFILTER, Ask::Change(0), &filter(ifindex, side)?))
}

/// The filters on a side of an interface; none when there is no such interface or qdisc.
pub(super) fn filters(ifindex: u32, side: Side) -> io::Result<Vec<Filter>> {
    let header = TcHeader { index: index(ifindex)?, parent: parent(side).into(), ..TcHeader::default() };
    let found = ask(libc::RTM_GETTFILTER, Ask::All, &TcMessage::from_parts(header, Vec::new()))?;
    let filters = found
        .into_iter()
        .map(|TcHeader { handle, info, .. }| Filter { priority: (info >> 16) as u16, handle: handle.into() });
    // What has no handle is the head of a list.
    Ok(filters.filter(|filter| filter.handle != 0).collect())
}

fn qdisc(ifindex: u32) -> io::Result<TcMessage> {
    let header = TcHeader {
        index: index(ifindex)?,
        handle: TcHandle::from(QDISC_HANDLE),
        parent: TcHandle::from(QDISC_PARENT),
        ..TcHeader::default()
    };
    Ok(TcMessage::from_parts(header, vec![TcAttribute::Kind(QDISC.to_owned())]))
}

fn filter(ifindex: u32, side: Side) -> io::Result<TcMessage> {
    let header = TcHeader {
        index: index(ifindex)?,
        handle: TcHandle::from(HANDLE),
        parent: TcHandle::from(parent(side)),
        info: u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL),
        ..TcHeader::default()
    };
    Ok(TcMessage::from_parts(header, vec![TcAttribute::Kind("bpf".to_owned())]))
}

/// What agents send arrives at the interface, what they are sent leaves through it.
const fn parent(side: Side) -> u32 {
    match side {
        Side::In => EGRESS,
        _ => INGRESS,
    }
}

fn index(ifindex: u32) -> io::Result<i32> {
    i32::try_from(ifindex).map_err(io::Error::other)
}

/// What is not there, or whose interface or qdisc is not there, is as good as removed.
fn absent_is_well(answer: io::Result<Vec<TcHeader>>) -> io::Result<()> {
    match answer {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) => {
            Ok(())
        }
        answer => answer.map(drop),
    }
}

/// Asks, and gives the headers of what is answered. What others' filters contain is not looked at, so none can be so
/// strange that ours is not found.
fn ask(kind: u16, ask: Ask, message: &TcMessage) -> io::Result<Vec<TcHeader>> {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    let mut found = Vec::new();
    let mut route = Route::open().map_err(io::Error::other)?;
    for _ in 0..MOST_DUMPS {
        found.clear();
        if route.ask(kind, ask, &body, |answer| found.extend(TcHeader::parse(answer)))? {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_filter_at_our_place_is_ours() {
        assert!(Filter { priority: PRIORITY, handle: HANDLE }.is_ours());
        assert!(!Filter { priority: PRIORITY, handle: 1 }.is_ours());
        assert!(!Filter { priority: 2, handle: HANDLE }.is_ours());
    }
}
