//! The write-ahead file: what is acknowledged and not yet in tiles.
//!
//! A batch is one frame: length, number of its first entry, SHA-256 over both and what follows, then the entries as
//! a bundle. A frame whose hash is right was written whole. One that is not, at the end, was being written when the
//! machine or the process stopped, and nobody was told that it is kept: it is cut off. One that has a whole frame
//! behind it was damaged later, and is evidence: nothing is cut then.

use super::tiles::{entries_in, push_entry};
use crate::record::log::Storage;
use sha2::{Digest, Sha256};
use std::io;

/// Length (u32), number of the first entry (u64), both big-endian, and the hash.
const HEADER_BYTES: usize = 4 + 8 + 32;

/// One batch, as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of the first entry.
    pub first: u64,
    /// The entries.
    pub entries: Vec<Vec<u8>>,
}

/// What a write-ahead file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The whole batches.
    pub batches: Vec<Batch>,
    /// Bytes of them: where the next frame goes.
    pub good_bytes: u64,
    /// Bytes behind them that are no batch.
    pub torn_bytes: u64,
    /// There is a whole frame behind those: they were one, and were damaged.
    pub damaged: bool,
}

/// A batch as a frame.
#[must_use]
pub fn frame<T: AsRef<[u8]>>(first: u64, entries: &[T]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    entries.iter().for_each(|entry| push_entry(&mut frame, entry.as_ref()));
    let length = (frame.len() - HEADER_BYTES) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame[4..12].copy_from_slice(&first.to_be_bytes());
    let hash = hash_of(&frame);
    frame[12..HEADER_BYTES].copy_from_slice(&hash);
    frame
}

fn hash_of(frame: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(&frame[..12]).chain_update(&frame[HEADER_BYTES..]).finalize().into()
}

/// The batch at the beginning of `bytes`, and its length.
fn batch_in(bytes: &[u8]) -> Option<(Batch, usize)> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let frame = bytes.get(..HEADER_BYTES.checked_add(length)?)?;
    if length == 0 || frame[12..HEADER_BYTES] != hash_of(frame) {
        return None;
    }
    let first = u64::from_be_bytes(*frame[4..12].first_chunk()?);
    let entries = entries_in(&frame[HEADER_BYTES..])?.into_iter().map(<[u8]>::to_vec).collect();
    Some((Batch { first, entries }, frame.len()))
}

/// What the bytes of a write-ahead file hold.
#[must_use]
pub fn read(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let mut at = 0;
    while let Some((batch, length)) = batch_in(&bytes[at..]) {
        contents.batches.push(batch);
        at += length;
    }
    contents.good_bytes = at as u64;
    contents.torn_bytes = (bytes.len() - at) as u64;
    contents.damaged = (at + 1..bytes.len()).any(|from| batch_in(&bytes[from..]).is_some());
    contents
}

/// The write-ahead file, being written.
#[derive(Debug)]
pub struct Wal<S> {
    storage: S,
    good: u64,
    /// Something of a failed batch may lie behind `good`.
    dirty: bool,
}

impl<S: Storage> Wal<S> {
    /// Over `storage`, of which `good` bytes are whole frames. Whatever is behind them is cut off before the next.
    pub fn new(storage: S, good: u64) -> Self {
        Self { storage, good, dirty: true }
    }

    /// Bytes of whole frames.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.good
    }

    /// Appends a frame, which with `durable` is on the disk afterwards.
    ///
    /// # Errors
    ///
    /// When it cannot; the frame does not count then, and is cut off before the next.
    pub fn append(&mut self, frame: &[u8], durable: bool) -> io::Result<()> {
        self.cut()?;
        self.dirty = true;
        let mut written = 0;
        while written < frame.len() {
            match self.storage.append(&frame[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A failed sync may have lost pages and will not say so again: the batch counts as not written.
        if durable {
            self.storage.sync()?;
        }
        self.good += frame.len() as u64;
        self.dirty = false;
        Ok(())
    }

    /// Cuts off what a failed batch has left.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn cut(&mut self) -> io::Result<()> {
        if self.dirty {
            self.storage.truncate(self.good)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Puts what was written on the disk.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn sync(&mut self) -> io::Result<()> {
        self.storage.sync()
    }

    /// Empties the file, once everything in it is in tiles.
    ///
    /// # Errors
    ///
    /// When it cannot; the frames are still there then, which does no harm.
    pub fn clear(&mut self) -> io::Result<()> {
        self.storage.truncate(0)?;
        self.good = 0;
        self.dirty = false;
        self.storage.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for first in [0u64, 2, 4] {
            bytes.extend(frame(first, &[format!("entry {first}"), format!("entry {}", first + 1)]));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_file_cut_or_zeroed_at_any_byte_holds_its_whole_batches() {
        let (bytes, ends) = file();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|&&end| end <= cut).count() - 1;
            let mut zeroed = bytes[..cut].to_vec();
            zeroed.resize(bytes.len() + 4096, 0);
            for file in [&bytes[..cut], &zeroed] {
                let contents = read(file);
                let whole_zeroed = contents.batches.len();
                // A frame may end in zeros of its own, so that zeros in the place of zeros are whole.
                assert_eq!(whole_zeroed, whole, "cut at {cut}");
                assert_eq!(contents.good_bytes as usize, ends[whole]);
                assert_eq!(contents.torn_bytes as usize, file.len() - ends[whole]);
                assert!(!contents.damaged);
            }
        }
    }

    #[test]
    fn a_bit_changed_before_the_last_frame_is_damage_and_no_torn_tail() {
        let (bytes, ends) = file();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let contents = read(&changed);
            assert!(contents.torn_bytes > 0, "bit {bit}");
            assert_eq!(contents.damaged, bit / 8 < ends[2], "bit {bit}");
        }
    }
}
