//! Reading the events file while somebody else writes it: JSON lines, filtered and followed.
//!
//! What the index covers is found through it, if there is one that can be believed; the rest, and everything if there
//! is none, is read from the file.
//!
//! A line counts once its newline is there, so a record that is half written is never shown. A file that
//! shrinks was cut and is read from its start; a file with a new inode took its place and is read after the
//! rest of the old one.

use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::record::entries::{EventSource, JsonLinesSource};
use crate::record::index::{Answer, Files, IndexError};
pub use crate::record::query::{EndpointFilter, EventQuery};

/// How long after an event was written a follower sees it, at most.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 64 * 1024;
/// A longer line is no record of ours and is skipped.
const LINE_BYTES: usize = 1 << 20;
/// Lines that the index points to and that are read at once.
const PLACES_AT_ONCE: usize = 512;
/// The most that `limit` can ask for.
pub const LIMIT_MAX: usize = 100_000;
/// The most that is kept of the lines it asks for.
const LATEST_BYTES: usize = 32 << 20;

/// The wanted lines of the file at `path`, each with its newline, several to a chunk. The index is beside the file.
pub fn events(path: PathBuf, query: EventQuery) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let latest = query.limit.map(|limit| Latest { limit: limit.min(LIMIT_MAX), ..Latest::default() });
    let reader = Reader { stage: Stage::Ask, tail: Tail::new(path.clone(), None), path, query, latest };
    futures::stream::try_unfold(reader, |mut reader| async {
        Ok(reader.next_chunk().await?.map(|chunk| (chunk, reader)))
    })
}

struct Reader {
    path: PathBuf,
    stage: Stage,
    tail: Tail,
    query: EventQuery,
    /// The latest lines so far, until the end of the file is reached for the first time.
    latest: Option<Latest>,
}

/// Where a reader is.
enum Stage {
    /// The index has not been asked.
    Ask,
    /// Reading what it has answered.
    Places {
        /// Where to look, and how many of these were looked at.
        answer: Answer,
        done: usize,
    },
    /// Reading the file.
    File,
}

/// The latest lines of many, bounded in number and bytes.
#[derive(Default)]
struct Latest {
    limit: usize,
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Latest {
    fn push(&mut self, line: &[u8]) {
        self.lines.push_back(line.to_vec());
        self.bytes += line.len();
        while self.lines.len() > self.limit || self.bytes > LATEST_BYTES {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }
}

impl Reader {
    async fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let lines = match &self.stage {
                Stage::File => self.tail.read().await?,
                _ => Some(self.through_index().await?),
            };
            let Some(lines) = lines else {
                if let Some(latest) = self.latest.take().filter(|latest| !latest.lines.is_empty()) {
                    return Ok(Some(Vec::from(latest.lines).concat().into()));
                }
                if !self.query.follow {
                    return Ok(None);
                }
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            };
            let wanted = lines.split_inclusive(|&byte| byte == b'\n');
            let wanted = wanted.filter(|line| self.query.wants(line.trim_ascii_end()));
            match &mut self.latest {
                None => {
                    let chunk = wanted.collect::<Vec<_>>().concat();
                    if !chunk.is_empty() {
                        return Ok(Some(chunk.into()));
                    }
                }
                Some(latest) => wanted.for_each(|line| latest.push(line)),
            }
        }
    }
}

impl Reader {
    /// The next lines that the index points to, perhaps none; goes on to the file when there are no more.
    async fn through_index(&mut self) -> io::Result<Vec<u8>> {
        match std::mem::replace(&mut self.stage, Stage::File) {
            Stage::Ask => {
                if let Some(answer) = ask(self.path.clone(), self.query.clone()).await? {
                    self.stage = Stage::Places { answer, done: 0 };
                }
            }
            Stage::Places { answer, done } if done == answer.places.len() => {
                self.tail = Tail::new(self.path.clone(), answer.covered_to);
            }
            Stage::Places { answer, done } => {
                let next = answer.places[done..].iter().take(PLACES_AT_ONCE).copied().collect::<Vec<_>>();
                let found = read_places(self.path.clone(), next.clone()).await?;
                let good = found.iter().take_while(|line| line.is_some()).count();
                if good < found.len() {
                    // The log is not what the index says it is: it alone counts from the last line that was.
                    let last = if good > 0 {
                        Some(next[good - 1])
                    } else {
                        done.checked_sub(1).map(|last| answer.places[last])
                    };
                    self.tail = Tail::new(self.path.clone(), last);
                } else {
                    self.stage = Stage::Places { answer, done: done + good };
                }
                let lines = found.into_iter().map_while(|line| line);
                return Ok(lines.flat_map(|line| line.into_iter().chain([b'\n'])).collect());
            }
            Stage::File => {}
        }
        Ok(Vec::new())
    }
}

/// What the index beside the log says, if it can be believed. One that cannot is thrown away, to be built anew.
async fn ask(path: PathBuf, query: EventQuery) -> io::Result<Option<Answer>> {
    blocking(move || {
        let files = Files::in_state(path.parent().unwrap_or(Path::new(".")));
        let answer = Answer::find(&files, &JsonLinesSource::new(&path), &query);
        if answer.as_ref().is_err_and(IndexError::is_damage) {
            // If even this fails, the next question finds the same.
            let _ = files.discard();
        }
        Ok(answer.ok().flatten())
    })
    .await
}

async fn read_places(path: PathBuf, places: Vec<u64>) -> io::Result<Vec<Option<Vec<u8>>>> {
    blocking(move || JsonLinesSource::new(&path).entries_at(&places)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A file's complete lines, as it grows.
struct Tail {
    path: PathBuf,
    /// Only what follows the line that begins here is wanted.
    after: Option<u64>,
    open: Option<Open>,
}

struct Open {
    file: File,
    identity: (u64, u64),
    offset: u64,
    /// The beginning of a line whose end has not been read.
    partial: Vec<u8>,
    /// The line being read is too long or not wanted, and skipped.
    skipping: bool,
}

impl Tail {
    const fn new(path: PathBuf, after: Option<u64>) -> Self {
        Self { path, after, open: None }
    }

    /// The next complete lines, perhaps none of them in this piece; `None` at the end of what is written.
    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.open.is_none() {
            self.open = Open::at(&self.path, self.after.take()).await?;
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        if let Some(lines) = open.read().await? {
            return Ok(Some(lines));
        }
        // At the end: is this still the file of that name?
        let replaced = match tokio::fs::metadata(&self.path).await {
            Ok(found) => (found.dev(), found.ino()) != open.identity,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !replaced {
            return Ok(None);
        }
        // What was written to the old one between its end and its replacement.
        if let Some(lines) = open.read().await? {
            return Ok(Some(lines));
        }
        self.open = None;
        Ok(Some(Vec::new()))
    }
}

impl Open {
    async fn at(path: &PathBuf, after: Option<u64>) -> io::Result<Option<Self>> {
        let mut file = match File::open(path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let found = file.metadata().await?;
        let offset = after.unwrap_or(0);
        file.seek(SeekFrom::Start(offset)).await?;
        Ok(Some(Self {
            file,
            identity: (found.dev(), found.ino()),
            offset,
            partial: Vec::new(),
            skipping: after.is_some(),
        }))
    }

    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.file.metadata().await?.len() < self.offset {
            self.file.seek(SeekFrom::Start(0)).await?;
            self.offset = 0;
            self.partial.clear();
            self.skipping = false;
        }
        let mut piece = vec![0; READ_BYTES];
        let length = self.file.read(&mut piece).await?;
        if length == 0 {
            return Ok(None);
        }
        self.offset += length as u64;
        Ok(Some(self.complete_lines(&piece[..length])))
    }

    /// The complete lines of what was left over and `piece`; the rest is left over.
    fn complete_lines(&mut self, mut piece: &[u8]) -> Vec<u8> {
        if self.skipping {
            let Some(end) = piece.iter().position(|&byte| byte == b'\n') else { return Vec::new() };
            self.skipping = false;
            piece = &piece[end + 1..];
        }
        let complete = piece.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (complete, rest) = piece.split_at(complete);
        let mut lines = Vec::new();
        if !complete.is_empty() {
            lines = std::mem::take(&mut self.partial);
            lines.extend_from_slice(complete);
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > LINE_BYTES {
            self.partial.clear();
            self.skipping = true;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use futures::StreamExt;

    use super::*;

    fn event(agent: &str, kind: &str, second: u32) -> String {
        format!(
            "{{\"timestamp\":\"2026-01-01T00:00:{second:02}.000Z\",\"event_type\":\"{kind}\",\"agent_id\":\"{agent}\"}}\n"
        )
    }

    fn append(path: &Path, text: &str) {
        let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    async fn all(path: &Path, query: EventQuery) -> String {
        let chunks: Vec<_> = events(path.into(), query).map(Result::unwrap).collect().await;
        String::from_utf8(chunks.concat()).unwrap()
    }

    #[tokio::test]
    async fn filters_choose_by_agent_type_and_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let (first, second) = (event("a", "SECURITY_VIOLATION", 1), event("b", "CONTAINMENT_ACTION", 2));
        append(&path, &format!("{first}not json\n{second}"));
        assert_eq!(all(&path, EventQuery::default()).await, format!("{first}not json\n{second}"));
        let of_agent = EventQuery { agent: Some("a".into()), ..EventQuery::default() };
        assert_eq!(all(&path, of_agent).await, first);
        let of_type = EventQuery { types: vec!["containment_action".into()], ..EventQuery::default() };
        assert_eq!(all(&path, of_type).await, second);
        let since = "2026-01-01T00:00:02Z".parse().ok();
        assert_eq!(all(&path, EventQuery { since, ..EventQuery::default() }).await, second);
        let latest = EventQuery { limit: Some(1), ..EventQuery::default() };
        assert_eq!(all(&path, latest).await, second);
    }

    #[tokio::test]
    async fn the_index_changes_nothing_of_an_answer_not_even_when_the_log_is_changed_under_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let files = Files::in_state(directory.path());
        let line = |number: u32| event(["a", "b"][number as usize % 2], "LOSS", number % 60);
        (0..3000).for_each(|number| append(&path, &line(number)));
        crate::record::index::rebuild(&files, &JsonLinesSource::new(&path)).unwrap();
        append(&path, &line(3000));
        let of_agent = EventQuery { agent: Some("a".into()), ..EventQuery::default() };
        let expected: String = (0..=3000).step_by(2).map(line).collect();
        assert_eq!(all(&path, of_agent.clone()).await, expected);
        let latest = EventQuery { limit: Some(3), ..of_agent.clone() };
        assert_eq!(all(&path, latest).await, [2996, 2998, 3000].map(line).concat());
        let mut follower =
            Box::pin(events(path.clone(), EventQuery { follow: true, limit: Some(1), ..of_agent.clone() }));
        assert_eq!(follower.next().await.unwrap().unwrap(), line(3000));
        append(&path, &(line(3001) + &line(3002)));
        assert_eq!(follower.next().await.unwrap().unwrap(), line(3002));
        // A line in the middle is cut in two, which moves none: the index points between lines.
        let mut bytes = fs::read(&path).unwrap();
        let place = bytes.len() / line(0).len() / 2 * line(0).len();
        bytes[place - 1] = b' ';
        fs::write(&path, &bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let scanned: String =
            text.split_inclusive('\n').filter(|line| of_agent.wants(line.trim_end().as_bytes())).collect();
        assert_eq!(all(&path, of_agent).await, scanned);
    }

    #[tokio::test]
    async fn without_a_file_there_are_no_events() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(all(&directory.path().join("none"), EventQuery::default()).await, "");
    }

    #[tokio::test]
    async fn a_half_written_line_is_shown_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        append(&path, "one\ntw");
        assert_eq!(all(&path, EventQuery::default()).await, "one\n");
        let query = EventQuery { follow: true, ..EventQuery::default() };
        let mut stream = Box::pin(events(path.clone(), query));
        assert_eq!(stream.next().await.unwrap().unwrap(), "one\n");
        append(&path, "o\n");
        assert_eq!(stream.next().await.unwrap().unwrap(), "two\n");
    }

    #[tokio::test]
    async fn following_survives_a_late_start_a_cut_and_a_replacement() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let query = EventQuery { follow: true, ..EventQuery::default() };
        let mut stream = Box::pin(events(path.clone(), query));
        let later = async {
            tokio::time::sleep(POLL_INTERVAL / 2).await;
            append(&path, "first line\n");
        };
        let (chunk, ()) = tokio::join!(stream.next(), later);
        assert_eq!(chunk.unwrap().unwrap(), "first line\n");
        fs::write(&path, "cut\n").unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "cut\n");
        append(&path, "last of the old\n");
        fs::rename(&path, path.with_extension("old")).unwrap();
        append(&path, "first of the new\n");
        assert_eq!(stream.next().await.unwrap().unwrap(), "last of the old\n");
        assert_eq!(stream.next().await.unwrap().unwrap(), "first of the new\n");
    }

    #[tokio::test]
    async fn a_limit_bounds_what_was_and_not_what_comes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        append(&path, "1\n2\n3\n");
        let query = EventQuery { follow: true, limit: Some(2), ..EventQuery::default() };
        let mut stream = Box::pin(events(path.clone(), query));
        assert_eq!(stream.next().await.unwrap().unwrap(), "2\n3\n");
        append(&path, "4\n5\n6\n");
        assert_eq!(stream.next().await.unwrap().unwrap(), "4\n5\n6\n");
    }

    #[tokio::test]
    async fn a_line_that_never_ends_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        append(&path, &format!("before\n{}\nafter\n", "x".repeat(2 * LINE_BYTES)));
        assert_eq!(all(&path, EventQuery::default()).await, "before\nafter\n");
    }
}
