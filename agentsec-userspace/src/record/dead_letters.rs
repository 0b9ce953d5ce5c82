//! Events that the log would not take, kept in a file on another disk until it does.
//!
//! One event to a line, on the disk before anything rests on it. A crash may leave a torn last line, which nobody was
//! told is kept, or events that are in the log already: those are passed over by their id. A line that was damaged here is passed
//! over and counted.

use super::event::{Event, intact};
use super::sink::SinkError;
use crate::file_lock::try_alone;
use anyhow::{Context, Result, ensure};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in the directory that is configured.
pub const NAME: &str = "agentsec-dead-letters.jsonl";

/// The file.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    good: u64,
    /// What was delivered of them.
    delivered: u64,
    most_bytes: u64,
    /// In the log already, though they are here as well.
    known: HashSet<String>,
    /// An earlier daemon has left some, and did not see the end of the gap.
    inherited: bool,
    tally: Tally,
    /// It could not be read: what is here waits for the next daemon, and the log does not.
    unreadable: Option<Trouble>,
}

/// Why it could not be read, and whether that was told.
#[derive(Debug)]
struct Trouble {
    error: String,
    is_told: bool,
}

/// What was here, once it is delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines.
    pub events: u64,
    /// Of these, lines that are no events: damaged here, and lost.
    pub damaged: u64,
    /// The time of the first event.
    pub since: Option<String>,
}

impl DeadLetters {
    /// The file in `directory`, which takes at most `most_bytes`. `recent` are the log's latest entries: what a crash
    /// has left here though it is there is not written twice.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or another daemon uses it.
    pub fn open(
        directory: &Path,
        most_bytes: u64,
        recent: impl FnOnce(u64) -> io::Result<Vec<Vec<u8>>>,
    ) -> Result<Self> {
        let path = directory.join(NAME);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        let is_ours = try_alone(&file).with_context(|| format!("locking {}", path.display()))?;
        ensure!(is_ours, "{}: another process uses it", path.display());
        let (good, count) = whole_lines(&file).with_context(|| format!("reading {}", path.display()))?;
        file.set_len(good)?;
        let (known, tally, inherited) = (HashSet::new(), Tally::default(), count > 0);
        let (delivered, unreadable) = (0, None);
        let mut letters =
            Self { path, file, good, delivered, most_bytes, known, inherited, tally, unreadable };
        if count > 0 {
            // The record of the gap may be behind them.
            let recent = recent(count + 1).context("reading the log's end")?;
            let ids = recent.iter().filter_map(|line| intact(line));
            letters.known = ids.map(|event| event.event_id).collect();
        }
        Ok(letters)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends events as far as there is room, in their order; how many. Those are on the disk afterwards.
    ///
    /// # Errors
    ///
    /// When it cannot, or there is no room for the first; none of them is there then.
    pub fn append<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) -> Result<usize, SinkError> {
        let (mut text, mut count) = (String::new(), 0);
        for event in events {
            let line = event.to_line() + "\n";
            if self.good + (text.len() + line.len()) as u64 > self.most_bytes {
                break;
            }
            text += &line;
            count += 1;
        }
        if count == 0 {
            let message = format!("{}: it may take {} bytes only", self.path.display(), self.most_bytes);
            return Err(SinkError { kind: io::ErrorKind::StorageFull, message });
        }
        let written = self.file.write_all_at(text.as_bytes(), self.good).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What is torn is behind what counts, and is written over.
            let _ = self.file.set_len(self.good);
            return Err(error.into());
        }
        self.good += text.len() as u64;
        Ok(count)
    }

    /// Gives everything to `take`, so many events at once, and is empty then. Of what an earlier daemon has left, the record of
    /// the gap, made by `gap`, goes last.
    ///
    /// # Errors
    ///
    /// Those of `take`. What was taken is not given again. When it cannot be read, [`Self::trouble`] says so.
    pub fn deliver(
        &mut self,
        at_once: usize,
        mut take: impl FnMut(&[Event]) -> Result<(), SinkError>,
        gap: impl FnOnce(&Tally) -> Event,
    ) -> Result<Tally, SinkError> {
        if self.good == 0 || self.unreadable.is_some() {
            return Ok(Tally::default());
        }
        while self.delivered < self.good {
            let (lines, bytes) = match self.lines(at_once) {
                Ok(read) => read,
                Err(error) => {
                    self.unreadable = Some(Trouble { error: error.to_string(), is_told: false });
                    return Ok(Tally::default());
                }
            };
            if bytes == 0 {
                break;
            }
            let mut tally = self.tally.clone();
            let mut batch = Vec::new();
            for line in lines {
                let event = intact(&line);
                tally.add(event.as_ref());
                batch.extend(event.filter(|event| !self.known.contains(&event.event_id)));
            }
            if !batch.is_empty() {
                take(&batch)?;
            }
            self.delivered += bytes;
            self.tally = tally;
        }
        if self.inherited {
            take(&[gap(&self.tally)])?;
            self.inherited = false;
        }
        self.file.set_len(0)?;
        (self.good, self.delivered) = (0, 0);
        self.known.clear();
        Ok(std::mem::take(&mut self.tally))
    }

    /// So many of the next lines, without their ends, and how many bytes they are.
    fn lines(&self, most: usize) -> io::Result<(Vec<Vec<u8>>, u64)> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.delivered))?;
        let mut reader = BufReader::new(file);
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < most {
            let mut line = Vec::new();
            bytes += reader.read_until(b'\n', &mut line)? as u64;
            if line.pop() != Some(b'\n') {
                break;
            }
            lines.push(line);
        }
        Ok((lines, bytes))
    }

    /// Why it could not be read, once.
    pub fn trouble(&mut self) -> Option<String> {
        let trouble = self.unreadable.as_mut().filter(|trouble| !trouble.is_told)?;
        trouble.is_told = true;
        Some(trouble.error.clone())
    }
}

impl Tally {
    fn add(&mut self, event: Option<&Event>) {
        self.events += 1;
        match event {
            Some(event) if self.since.is_none() => self.since = Some(event.timestamp.clone()),
            Some(_) => {}
            None => self.damaged += 1,
        }
    }
}

/// Bytes and number of the lines that have an end.
fn whole_lines(file: &File) -> io::Result<(u64, u64)> {
    let mut reader = BufReader::new(file);
    let (mut good, mut count, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok((good, count));
        }
        good += bytes as u64;
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::draft::{Draft, EventKind};
    use crate::core::time::Time;
    use crate::record::event::tests::sealer;

    #[test]
    fn one_that_cannot_be_read_says_so_once_and_hinders_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut letters = DeadLetters::open(directory.path(), 1 << 20, |_| Ok(Vec::new())).unwrap();
        let draft = Draft::daemon(Time::default(), EventKind::Alert, serde_json::json!({ "what": "x" }));
        let event = sealer().seal(draft);
        letters.append([&event]).unwrap();
        // What may only be written fails when it is read.
        letters.file = OpenOptions::new().write(true).open(letters.path()).unwrap();
        for told in [true, false] {
            let tally = letters.deliver(8, |_| panic!("read"), |_| panic!("read")).unwrap();
            assert_eq!((tally, letters.trouble().is_some()), (Tally::default(), told));
        }
        letters.append([&event]).unwrap();
        drop(letters);
        let mut letters = DeadLetters::open(directory.path(), 1 << 20, |_| Ok(Vec::new())).unwrap();
        let mut taken = 0;
        let take = |batch: &[Event]| {
            taken += batch.len();
            Ok(())
        };
        let tally = letters.deliver(8, take, |tally| {
            assert_eq!(tally.events, 2);
            event.clone()
        });
        assert_eq!((tally.unwrap().events, taken), (2, 3));
    }
}
