//! The log as questions see it: entries, each with its place.
//!
//! A place is a number that only grows along the log; nothing else is assumed of it. Everything that asks reads the
//! log through [`EventSource`], so it does not matter how the log lies on the disk.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A longer line is no event of ours and is skipped.
pub const LINE_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 256 * 1024;

/// One line of the log, without its newline, and its place.
pub type Entry = (u64, Vec<u8>);

/// Something that has entries.
pub trait EventSource: Send + Sync {
    /// The entries at `place` and after it, in the order of the log.
    ///
    /// # Errors
    ///
    /// When the log cannot be opened. A log that does not exist yet is empty.
    fn entries_from(&self, place: u64) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>> + Send>>;

    /// The entries at these places, in the order given; `None` where the log has no entry.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    fn entries_at(&self, places: &[u64]) -> io::Result<Vec<Option<Vec<u8>>>>;
}

/// A file of JSON lines. The place of a line is the offset of its first byte.
#[derive(Clone, Debug)]
pub struct JsonLinesSource {
    path: PathBuf,
}

impl JsonLinesSource {
    /// The file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    fn open(&self) -> io::Result<Option<File>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl EventSource for JsonLinesSource {
    fn entries_from(&self, place: u64) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>> + Send>> {
        let Some(mut file) = self.open()? else { return Ok(Box::new(std::iter::empty())) };
        file.seek(SeekFrom::Start(place))?;
        Ok(Box::new(Lines { reader: BufReader::with_capacity(BUFFER_BYTES, file), place }))
    }

    fn entries_at(&self, places: &[u64]) -> io::Result<Vec<Option<Vec<u8>>>> {
        let Some(file) = self.open()? else { return Ok(vec![None; places.len()]) };
        places.iter().map(|&place| line_at(&file, place)).collect()
    }
}

/// The complete lines from a place on.
struct Lines {
    reader: BufReader<File>,
    place: u64,
}

impl Iterator for Lines {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        loop {
            let mut line = Vec::with_capacity(1024);
            let read = self.reader.by_ref().take(LINE_BYTES as u64 + 1).read_until(b'\n', &mut line);
            let place = self.place;
            match read {
                Err(error) => return Some(Err(error)),
                Ok(0) => return None,
                Ok(bytes) => self.place += bytes as u64,
            }
            if line.pop_if(|last| *last == b'\n').is_some() {
                return Some(Ok((place, line)));
            }
            if line.len() <= LINE_BYTES {
                // Half written: not an entry yet.
                return None;
            }
            match self.reader.skip_until(b'\n') {
                Err(error) => return Some(Err(error)),
                Ok(bytes) => self.place += bytes as u64,
            }
        }
    }
}

/// The line that begins at `place`: where none begins, there is none.
fn line_at(file: &File, place: u64) -> io::Result<Option<Vec<u8>>> {
    const FIRST_READ: usize = 2048;
    // The newline before it is read as well.
    let before = usize::from(place > 0);
    let mut line = Vec::new();
    let mut step = FIRST_READ;
    loop {
        let have = line.len();
        line.resize(have + step, 0);
        let read = file.read_at(&mut line[have..], place - before as u64 + have as u64)?;
        line.truncate(have + read);
        if before == 1 && line.first() != Some(&b'\n') {
            return Ok(None);
        }
        if let Some(end) = line.iter().skip(before).position(|&byte| byte == b'\n') {
            return Ok(Some(line[before..before + end].to_vec()));
        }
        if read == 0 || line.len() > LINE_BYTES {
            return Ok(None);
        }
        step = line.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn all(source: &JsonLinesSource, place: u64) -> Vec<(u64, String)> {
        let entries = source.entries_from(place).unwrap().map(Result::unwrap);
        entries.map(|(place, line)| (place, String::from_utf8(line).unwrap())).collect()
    }

    #[test]
    fn a_line_is_found_by_its_place_and_a_half_written_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let source = JsonLinesSource::new(&path);
        assert_eq!(all(&source, 0), []);
        assert_eq!(source.entries_at(&[0]).unwrap(), [None]);
        let long = "x".repeat(5000);
        fs::write(&path, format!("one\n{long}\nthree\nhal")).unwrap();
        let expected = [(0, "one".to_owned()), (4, long.clone()), (5005, "three".into())];
        assert_eq!(all(&source, 0), expected);
        assert_eq!(all(&source, 5005), expected[2..]);
        let found = source.entries_at(&[5005, 4, 0, 1, 5004, 5011, 9000]).unwrap();
        let texts: Vec<_> =
            found.into_iter().map(|line| line.map(|line| String::from_utf8(line).unwrap())).collect();
        let three = Some("three".to_owned());
        assert_eq!(texts, [three, Some(long), Some("one".into()), None, None, None, None]);
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        fs::write(&path, format!("a\n{}\nb\n", "x".repeat(3 * LINE_BYTES))).unwrap();
        let lines: Vec<_> = all(&JsonLinesSource::new(&path), 0).into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["a", "b"]);
    }
}
