//! A memory-mapped array map: words that are loaded and stored whole, without a system call.

use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Who may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Only the kernel.
    Read,
    /// Only this process.
    Write,
}

/// An array of values, each a whole number of aligned words.
#[derive(Debug)]
pub(super) struct MappedArray {
    base: NonNull<c_void>,
    bytes: usize,
    stride: usize,
    entries: u32,
}

// SAFETY: the mapping is shared memory, reached only through atomics.
unsafe impl Send for MappedArray {}

impl MappedArray {
    /// Maps the array behind `fd`, of `entries` values of `value_bytes` (a multiple of eight).
    pub(super) fn new(fd: impl AsFd, entries: u32, value_bytes: usize, access: Access) -> Result<Self> {
        let bytes = NonZeroUsize::new(entries as usize * value_bytes).context("an array without entries")?;
        let protection = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        // SAFETY: a new shared mapping at an address of the kernel's choice; the kernel checks its length.
        let base = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, fd, 0) }
            .context("cannot map an array map into memory")?;
        Ok(Self { base, bytes: bytes.get(), stride: value_bytes, entries })
    }

    /// Number of values.
    pub(super) const fn entries(&self) -> u32 {
        self.entries
    }

    /// The word at `index` of the value at `entry`.
    ///
    /// # Panics
    ///
    /// When either is out of bounds: slots are checked where they enter.
    pub(super) fn word(&self, entry: u32, index: usize) -> &AtomicU64 {
        assert!(
            entry < self.entries && index < self.stride / 8,
            "word {index} of entry {entry} is out of bounds"
        );
        // SAFETY: within the mapping, as just checked, aligned, and alive as long as `self`.
        unsafe {
            AtomicU64::from_ptr(
                self.base.as_ptr().cast::<u64>().add(entry as usize * (self.stride / 8) + index),
            )
        }
    }

    /// The first `N` words of the value at `entry`, each loaded whole.
    pub(super) fn load<const N: usize>(&self, entry: u32) -> [u64; N] {
        std::array::from_fn(|index| self.word(entry, index).load(Ordering::Acquire))
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nothing borrows from it any more. An error leaves it mapped.
        let _ = unsafe { munmap(self.base, self.bytes) };
    }
}
