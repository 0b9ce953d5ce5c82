//! Reads a whole hash map, many entries with one system call.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use aya::Pod;

use super::syscall::{self, Cursor};

/// Entries read at once, at first. The kernel gives whole buckets only: one that holds more makes it double.
const ENTRIES: usize = 1024;
/// Entries read at once, at most.
const ENTRIES_MAX: usize = 1 << 20;

/// Room for entries of one kind of map, kept from one reading to the next.
#[derive(Debug)]
pub(super) struct Batch<K, V> {
    keys: Vec<u8>,
    values: Vec<u8>,
    entries: usize,
    kind: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> Batch<K, V> {
    /// Room that is made with the first reading.
    pub(super) const fn new() -> Self {
        Self { keys: Vec::new(), values: Vec::new(), entries: ENTRIES, kind: PhantomData }
    }

    /// Shows every entry to `look`. Those that come and go meanwhile may be missed, or, once the map was read, be there no
    /// more.
    pub(super) fn read(&mut self, map: BorrowedFd<'_>, mut look: impl FnMut(K, V)) -> Result<()> {
        let mut cursor: Option<Cursor> = None;
        loop {
            self.keys.resize(self.entries * size_of::<K>(), 0);
            self.values.resize(self.entries * size_of::<V>(), 0);
            match syscall::lookup_batch(map, cursor, &mut self.keys, &mut self.values, self.entries) {
                Ok(found) => {
                    self.show(found.entries, &mut look);
                    match found.next {
                        Some(next) => cursor = Some(next),
                        None => return Ok(()),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    if self.entries >= ENTRIES_MAX {
                        bail!("more than {ENTRIES_MAX} entries of a map are in one bucket");
                    }
                    self.entries *= 2;
                }
                Err(error) => return Err(error).context("reading a map"),
            }
        }
    }

    fn show(&self, entries: usize, look: &mut impl FnMut(K, V)) {
        let keys = self.keys.chunks_exact(size_of::<K>());
        let values = self.values.chunks_exact(size_of::<V>());
        for (key, value) in keys.zip(values).take(entries) {
            // SAFETY: as long as the type, for which every bit pattern is valid; nothing is asked of the alignment.
            let (key, value) = unsafe {
                (key.as_ptr().cast::<K>().read_unaligned(), value.as_ptr().cast::<V>().read_unaligned())
            };
            look(key, value);
        }
    }
}
