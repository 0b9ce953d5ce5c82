//! The write-ahead file: what is acknowledged and not yet in tiles.
//!
//! A batch is one frame: length, number of its first entry, SHA-256 over both and what follows, then the entries as
//! a bundle. A frame whose hash is right was written whole. One that is not, at the end, was being written when the
//! machine or the process stopped, and nobody was told that it is kept: it is cut off. One that has a whole frame
//! behind it was damaged later, and is evidence: nothing is cut then.
//!
//! The file keeps its length: behind the last frame there are zeros, and an emptied file is all zeros.

use super::tiles::{entries_in, push_entry};
use crate::record::sink::Storage;
use sha2::{Digest, Sha256};
use std::io;

/// Length (u32), number of the first entry (u64), both big-endian, and the hash.
const HEADER_BYTES: usize = 4 + 8 + 32;
/// Length of the file as long as tiles follow in time. (Tests copy it ten thousand times.)
pub const AREA_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 2 << 20 };

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
    /// Bytes behind them that are no batch, up to the last that is not zero.
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

/// What the bytes of a write-ahead file hold, of a log of which `covered` entries are in tiles.
#[must_use]
pub fn read(bytes: &[u8], covered: u64) -> Contents {
    let written = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let mut contents = Contents::default();
    let mut at = 0;
    while let Some((batch, length)) = batch_in(&bytes[at..]) {
        contents.batches.push(batch);
        at += length;
    }
    contents.good_bytes = at as u64;
    contents.torn_bytes = written.saturating_sub(at) as u64;
    // What is in tiles already is what was left when the file was being emptied.
    let is_wanted = |(batch, _): (Batch, usize)| batch.first + batch.entries.len() as u64 > covered;
    contents.damaged = (at + 1..written).any(|from| batch_in(&bytes[from..]).is_some_and(is_wanted));
    contents
}

/// Zeros to write over what does not count any more.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The write-ahead file, being written.
#[derive(Debug)]
pub struct Wal<S> {
    storage: S,
    good: u64,
    /// Where bytes that are not zero may end: behind `good` only after a batch has failed.
    end: u64,
    /// A sync has failed: of what was written before it anything may be missing on the disk.
    unsure: bool,
}

impl<S: Storage> Wal<S> {
    /// Over `storage` of so many bytes, of which `good` are whole frames. Whatever is behind those is written over.
    pub fn new(storage: S, good: u64, length: u64) -> Self {
        Self { storage, good, end: length.max(good), unsure: false }
    }

    /// Bytes of whole frames.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.good
    }

    /// Writes again what was read of the file: whoever wrote it may have been told that it cannot be put on the disk, and nobody
    /// after that is.
    ///
    /// # Errors
    ///
    /// When that fails again; the file is unsure then.
    pub fn write_again(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unsure = !bytes.is_empty();
        if self.unsure {
            write_all(&mut self.storage, 0, bytes)?;
            self.storage.sync()?;
        }
        self.unsure = false;
        Ok(())
    }

    /// Whether frames may be missing on the disk: the system gives up what it could not write, and the next sync works without
    /// it. Nothing may be appended before the file has been emptied.
    #[must_use]
    pub const fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// Appends a frame, which with `durable` is on the disk afterwards.
    ///
    /// # Errors
    ///
    /// When it cannot; the frame does not count then, and is cut off before the next.
    pub fn append(&mut self, frame: &[u8], durable: bool) -> io::Result<()> {
        self.cut()?;
        self.end = self.good + frame.len() as u64;
        write_all(&mut self.storage, self.good, frame)?;
        // A failed sync may have lost pages, also of frames before, and will not say so again.
        if durable && let Err(error) = self.storage.sync() {
            self.unsure = true;
            return Err(error);
        }
        self.good = self.end;
        Ok(())
    }

    /// Writes zeros over what a failed batch has left.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub fn cut(&mut self) -> io::Result<()> {
        if self.end > self.good {
            self.zero(self.good)?;
        }
        Ok(())
    }

    /// Empties the file, once everything in it is in tiles. Its blocks stay: what is written over them later needs no
    /// room on the disk, and less of the file system's time.
    ///
    /// # Errors
    ///
    /// When it cannot; frames may still be there then, and the file is unsure.
    pub fn clear(&mut self) -> io::Result<()> {
        self.good = 0;
        if self.end > AREA_BYTES {
            self.storage.set_length(AREA_BYTES)?;
            self.end = AREA_BYTES;
        }
        let end = self.end;
        self.unsure = true;
        self.zero(0)?;
        if let Err(error) = self.storage.sync() {
            // The zeros may be lost as well.
            self.end = end;
            return Err(error);
        }
        self.unsure = false;
        Ok(())
    }

    fn zero(&mut self, from: u64) -> io::Result<()> {
        let mut at = from;
        while at < self.end {
            let length = (self.end - at).min(ZEROS.len() as u64);
            write_all(&mut self.storage, at, &ZEROS[..length as usize])?;
            at += length;
        }
        self.end = from;
        Ok(())
    }
}

fn write_all(storage: &mut impl Storage, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match storage.write_at(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                bytes = &bytes[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
                let contents = read(file, 0);
                assert_eq!(contents.batches.len(), whole, "cut at {cut}");
                assert_eq!(contents.good_bytes as usize, ends[whole]);
                let last = bytes[..cut].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                assert_eq!(contents.torn_bytes as usize, last.saturating_sub(ends[whole]));
                assert!(!contents.damaged);
            }
        }
    }

    /// A disk in memory with so much room.
    #[derive(Default)]
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        fail_sync: bool,
    }

    impl Storage for Disk {
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
            let end = (offset as usize + bytes.len()).min(self.room.max(self.bytes.len()));
            let taken = end.saturating_sub(offset as usize);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.resize(self.bytes.len().max(end), 0);
            self.bytes[offset as usize..end].copy_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.fail_sync { Err(io::Error::other("EIO")) } else { Ok(()) }
        }

        fn set_length(&mut self, length: u64) -> io::Result<()> {
            self.bytes.resize(length as usize, 0);
            Ok(())
        }
    }

    fn batches(wal: &Wal<Disk>) -> Vec<u64> {
        let contents = read(&wal.storage.bytes, 0);
        assert_eq!(contents.good_bytes, wal.bytes());
        contents.batches.iter().map(|batch| batch.first).collect()
    }

    #[test]
    fn a_full_disk_takes_whole_batches_or_none_at_any_size() {
        let (bytes, ends) = file();
        for room in 0..=bytes.len() {
            let mut wal = Wal::new(Disk { room, ..Disk::default() }, 0, 0);
            let frames = ends.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
            let taken = frames.clone().take_while(|frame| wal.append(frame, true).is_ok()).count();
            assert_eq!(taken, ends.iter().filter(|&&end| end <= room).count() - 1, "room for {room}");
            wal.storage.room = usize::MAX;
            frames.skip(taken).for_each(|frame| wal.append(frame, true).unwrap());
            assert_eq!(batches(&wal), [0, 2, 4], "room for {room}");
            assert_eq!(read(&wal.storage.bytes, 0).torn_bytes, 0);
        }
    }

    #[test]
    fn what_could_not_be_synced_is_taken_back_and_an_emptied_file_takes_more_without_room() {
        let (bytes, ends) = file();
        let mut wal = Wal::new(Disk { room: usize::MAX, ..Disk::default() }, 0, 0);
        wal.append(&bytes[..ends[1]], true).unwrap();
        wal.storage.fail_sync = true;
        assert!(wal.append(&bytes[ends[1]..ends[2]], true).is_err());
        wal.storage.fail_sync = false;
        wal.append(&bytes[ends[1]..ends[2]], true).unwrap();
        wal.append(&bytes[ends[2]..], true).unwrap();
        assert_eq!(batches(&wal), [0, 2, 4]);
        wal.clear().unwrap();
        assert_eq!((wal.bytes(), batches(&wal)), (0, Vec::new()));
        wal.storage.room = 0;
        wal.append(&frame(6, &["entry 6"]), true).unwrap();
        assert_eq!(batches(&wal), [6]);
        assert!(!read(&wal.storage.bytes, 0).damaged);
    }

    #[test]
    fn what_a_crash_leaves_of_an_emptied_file_is_no_damage() {
        let (bytes, ends) = file();
        let mut half = bytes.clone();
        half[..ends[1]].fill(0);
        let contents = read(&half, 6);
        assert!(!contents.damaged && contents.batches.is_empty());
        assert!(read(&half, 3).damaged, "what is in no tile is missed");
    }

    #[test]
    fn a_bit_changed_before_the_last_frame_is_damage_and_no_torn_tail() {
        let (bytes, ends) = file();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let contents = read(&changed, 0);
            assert!(contents.torn_bytes > 0, "bit {bit}");
            assert_eq!(contents.damaged, bit / 8 < ends[2], "bit {bit}");
        }
    }
}
