//! A ring through which the kernel tells something at once.

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use agentsec_common::flow::{FlowRecord, OpeningRecord};
use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::take;

/// What the ring of connections tells.
#[derive(Clone, Debug)]
pub enum FlowTold {
    /// One is over.
    Ended(FlowRecord),
    /// One has begun with a request that can be read.
    Opened(Box<OpeningRecord>),
}

impl Ring<FlowRecord> {
    /// The next record of either kind, if there is one.
    pub fn take_told(&mut self) -> Option<FlowTold> {
        while let Some(item) = self.ring.next() {
            if item.len() == size_of::<FlowRecord>() {
                // SAFETY: as in `take`.
                return Some(FlowTold::Ended(unsafe { item.as_ptr().cast::<FlowRecord>().read_unaligned() }));
            }
            if item.len() == size_of::<OpeningRecord>() {
                // SAFETY: as in `take`.
                let record = unsafe { item.as_ptr().cast::<OpeningRecord>().read_unaligned() };
                return Some(FlowTold::Opened(Box::new(record)));
            }
        }
        None
    }
}

/// A ring of records of one type.
pub struct Ring<T> {
    ring: RingBuf<MapData>,
    name: &'static str,
    record: PhantomData<T>,
}

impl<T: Pod> Ring<T> {
    pub(super) fn new(object: &mut aya::Ebpf, name: &'static str) -> Result<Self> {
        let ring =
            RingBuf::try_from(take(object, name)?).with_context(|| format!("mapping the ring {name}"))?;
        Ok(Self { ring, name, record: PhantomData })
    }

    /// The next record, if there is one. Records of another size are skipped: they are not ours.
    pub fn take(&mut self) -> Option<T> {
        while let Some(item) = self.ring.next() {
            if item.len() == size_of::<T>() {
                // SAFETY: as long as a record, of which every bit pattern is valid; an unaligned read asks for nothing.
                return Some(unsafe { item.as_ptr().cast::<T>().read_unaligned() });
            }
        }
        None
    }

    /// Something to wait on: readable when there are records.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn watch(&self) -> Result<AsyncFd<OwnedFd>> {
        // SAFETY: the ring owns its descriptor and outlives the borrow.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        let own = ring
            .try_clone_to_owned()
            .with_context(|| format!("another descriptor of the ring {}", self.name))?;
        // SAFETY: an owned descriptor stays the same and open as long as its owner, which the watch keeps.
        unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }
            .with_context(|| format!("watching the ring {}", self.name))
    }
}
