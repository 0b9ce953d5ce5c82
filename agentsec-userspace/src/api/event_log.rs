//! Reading the log while somebody else writes it: JSON lines, filtered and followed.
//!
//! What the index covers is found through it, if there is one that can be believed; the rest, and everything if there
//! is none, is read from the log. Entries are numbered, so a follower knows where to go on; a new log that has taken
//! the place of another is read from its start.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;

use crate::record::entries::EventSource;
use crate::record::evidence::EvidenceSource;
use crate::record::evidence::source::Stamp;
use crate::record::index::{Answer, Files, IndexError};
pub use crate::record::query::{EndpointFilter, EventQuery};
use crate::record::timestamp::Timestamp;

/// How long after an event was written a follower sees it, at most.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// An event is in the log so soon after it happened, milliseconds, unless the log refuses.
const LATE_MS: u64 = 2000;
/// Entries that are read at once, about as many bytes, and at most as many.
const READ_BYTES: usize = 256 * 1024;
/// Lines that the index points to and that are read at once.
const PLACES_AT_ONCE: usize = 512;
/// The most that `limit` can ask for.
pub const LIMIT_MAX: usize = 100_000;
/// The most that is kept of the lines it asks for.
const LATEST_BYTES: usize = 32 << 20;

/// The wanted lines of `log`, each with its newline, several to a chunk; `index` is the one over it.
pub fn events(
    log: EvidenceSource,
    index: Files,
    query: EventQuery,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let latest = query.limit.map(|limit| Latest { limit: limit.min(LIMIT_MAX), ..Latest::default() });
    let tail = Tail { log: log.clone(), next: 0, origin: None, stamp: None };
    let reader = Reader { stage: Stage::Ask, tail, log, index, query, latest };
    futures::stream::try_unfold(reader, |mut reader| async {
        Ok(reader.next_chunk().await?.map(|chunk| (chunk, reader)))
    })
}

struct Reader {
    log: EvidenceSource,
    index: Files,
    stage: Stage,
    tail: Tail,
    query: EventQuery,
    /// The latest lines so far, until the end of the log is reached for the first time.
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
    /// Reading the log.
    Log,
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
                Stage::Log => self.tail.read().await?,
                _ => Some(self.through_index().await?),
            };
            let Some(lines) = lines else {
                if let Some(latest) = self.latest.take().filter(|latest| !latest.lines.is_empty()) {
                    return Ok(Some(Vec::from(latest.lines).concat().into()));
                }
                if !self.query.follow || self.query.until.is_some_and(is_over) {
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
    /// The next lines that the index points to, perhaps none; goes on to the log when there are no more.
    async fn through_index(&mut self) -> io::Result<Vec<u8>> {
        match std::mem::replace(&mut self.stage, Stage::Log) {
            Stage::Ask => {
                if let Some(answer) = self.ask().await? {
                    self.stage = Stage::Places { answer, done: 0 };
                }
            }
            Stage::Places { answer, done } if done == answer.places.len() => {
                self.tail.next = answer.covered_to.map_or(0, |last| last + 1);
            }
            Stage::Places { answer, done } => {
                let next = answer.places[done..].iter().take(PLACES_AT_ONCE).copied().collect::<Vec<_>>();
                let (log, places) = (self.log.clone(), next.clone());
                let found = blocking(move || log.entries_at(&places)).await?;
                let good = found.iter().take_while(|line| line.is_some()).count();
                if good < found.len() {
                    // The log is not what the index says it is: it alone counts from the last line that was.
                    let last = if good > 0 {
                        Some(next[good - 1])
                    } else {
                        done.checked_sub(1).map(|last| answer.places[last])
                    };
                    self.tail.next = last.map_or(0, |last| last + 1);
                } else {
                    self.stage = Stage::Places { answer, done: done + good };
                }
                let lines = found.into_iter().map_while(|line| line);
                return Ok(lines.flat_map(|line| line.into_iter().chain([b'\n'])).collect());
            }
            Stage::Log => {}
        }
        Ok(Vec::new())
    }

    /// What the index says, if it can be believed. One that cannot is thrown away, to be built anew.
    async fn ask(&self) -> io::Result<Option<Answer>> {
        let (log, files, query) = (self.log.clone(), self.index.clone(), self.query.clone());
        blocking(move || {
            let answer = Answer::find(&files, &log, &query);
            if answer.as_ref().is_err_and(IndexError::is_damage) {
                // If even this fails, the next question finds the same.
                let _ = files.discard();
            }
            Ok(answer.ok().flatten())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Whether nothing from before this time is still on its way into the log.
fn is_over(until: Timestamp) -> bool {
    Timestamp::now().0 > until.0.saturating_add(LATE_MS)
}

/// The log's entries, as it grows.
struct Tail {
    log: EvidenceSource,
    /// Number of the next entry.
    next: u64,
    /// Which log it is.
    origin: Option<String>,
    /// How the log was when there was nothing more in it.
    stamp: Option<Stamp>,
}

impl Tail {
    /// The next lines; `None` at the end of what is written.
    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let log = self.log.clone();
        let (next, known, before) = (self.next, self.origin.clone(), self.stamp);
        let (next, origin, stamp, lines) = blocking(move || {
            let stamp = log.stamp();
            if before == Some(stamp) {
                return Ok((next, known, before, Vec::new()));
            }
            let origin = log.origin()?;
            let is_other = known.is_some() && origin.is_some() && known != origin;
            let (next, lines) = some_lines(&log, if is_other { 0 } else { next })?;
            let stamp = lines.is_empty().then_some(stamp);
            Ok((next, origin.or(known), stamp, lines))
        })
        .await?;
        (self.next, self.origin, self.stamp) = (next, origin, stamp);
        Ok((!lines.is_empty()).then_some(lines))
    }
}

/// Lines from entry `next` on, and the number of the one behind them.
fn some_lines(log: &EvidenceSource, mut next: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut lines = Vec::new();
    for entry in log.entries_from(next)? {
        let (number, line) = entry?;
        lines.extend_from_slice(&line);
        lines.push(b'\n');
        next = number + 1;
        if lines.len() >= READ_BYTES {
            break;
        }
    }
    Ok((next, lines))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures::StreamExt;

    use super::*;
    use crate::record::evidence::EvidenceLog;

    struct Log {
        directory: tempfile::TempDir,
        log: EvidenceLog,
    }

    impl Log {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let log = EvidenceLog::open(&directory.path().join("log"), "host").unwrap().log;
            Self { directory, log }
        }

        fn append(&mut self, lines: &[String]) {
            self.log.append(lines, false).unwrap();
        }

        fn source(&self) -> EvidenceSource {
            EvidenceSource::in_state(self.path())
        }

        fn path(&self) -> &Path {
            self.directory.path()
        }

        fn events(&self, query: EventQuery) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
            events(self.source(), Files::in_state(self.path()), query)
        }

        async fn all(&self, query: EventQuery) -> String {
            let chunks: Vec<_> = self.events(query).map(Result::unwrap).collect().await;
            String::from_utf8(chunks.concat()).unwrap()
        }
    }

    fn event(agent: &str, kind: &str, second: u32) -> String {
        format!(
            "{{\"timestamp\":\"2026-01-01T00:00:{second:02}.000Z\",\"event_type\":\"{kind}\",\"agent_id\":\"{agent}\"}}"
        )
    }

    fn following() -> EventQuery {
        EventQuery { follow: true, ..EventQuery::default() }
    }

    #[tokio::test]
    async fn filters_choose_by_agent_type_and_time() {
        let mut log = Log::new();
        let (first, second) = (event("a", "SECURITY_VIOLATION", 1), event("b", "CONTAINMENT_ACTION", 2));
        log.append(&[first.clone(), "not json".into(), second.clone()]);
        assert_eq!(log.all(EventQuery::default()).await, format!("{first}\nnot json\n{second}\n"));
        let (first, second) = (first + "\n", second + "\n");
        let of_agent = EventQuery { agent: Some("a".into()), ..EventQuery::default() };
        assert_eq!(log.all(of_agent).await, first);
        let of_type = EventQuery { types: vec!["containment_action".into()], ..EventQuery::default() };
        assert_eq!(log.all(of_type).await, second);
        let since = "2026-01-01T00:00:02Z".parse().ok();
        assert_eq!(log.all(EventQuery { since, ..EventQuery::default() }).await, second);
        let latest = EventQuery { limit: Some(1), ..EventQuery::default() };
        assert_eq!(log.all(latest).await, second);
    }

    #[tokio::test]
    async fn the_index_changes_nothing_of_an_answer_not_even_when_the_log_is_changed_under_it() {
        let mut log = Log::new();
        let files = Files::in_state(log.path());
        let line = |number: u32| event(["a", "b"][number as usize % 2], "LOSS", number % 60);
        let said = |number: u32| line(number) + "\n";
        log.append(&(0..3000).map(line).collect::<Vec<_>>());
        log.log.publish().unwrap();
        crate::record::index::rebuild(&files, &log.source()).unwrap();
        log.append(&[line(3000)]);
        let of_agent = EventQuery { agent: Some("a".into()), ..EventQuery::default() };
        let expected: String = (0..=3000).step_by(2).map(said).collect();
        assert_eq!(log.all(of_agent.clone()).await, expected);
        let latest = EventQuery { limit: Some(3), ..of_agent.clone() };
        assert_eq!(log.all(latest).await, [2996, 2998, 3000].map(said).concat());
        let mut follower =
            Box::pin(log.events(EventQuery { follow: true, limit: Some(1), ..of_agent.clone() }));
        assert_eq!(follower.next().await.unwrap().unwrap(), said(3000));
        log.append(&[line(3001), line(3002)]);
        assert_eq!(follower.next().await.unwrap().unwrap(), said(3002));
        // A bundle in the middle goes: what is left is shown, with and without the index.
        std::fs::remove_file(log.path().join("log/tile/entries/005")).unwrap();
        let kept = (0..=3002).step_by(2).filter(|number| !(5 * 256..6 * 256).contains(number));
        assert_eq!(log.all(of_agent).await, kept.map(said).collect::<String>());
    }

    #[tokio::test]
    async fn without_a_log_there_are_no_events() {
        let directory = tempfile::tempdir().unwrap();
        let (log, index) = (EvidenceSource::in_state(directory.path()), Files::in_state(directory.path()));
        assert_eq!(events(log, index, EventQuery::default()).count().await, 0);
    }

    #[tokio::test]
    async fn following_survives_a_late_start_tiles_and_a_new_log_in_the_place_of_the_old() {
        let mut log = Log::new();
        let mut stream = Box::pin(log.events(following()));
        let later = async {
            tokio::time::sleep(POLL_INTERVAL / 2).await;
            log.append(&["1".into()]);
            log.log.publish().unwrap();
        };
        let (chunk, ()) = tokio::join!(stream.next(), later);
        assert_eq!(chunk.unwrap().unwrap(), "1\n");
        log.append(&["2".into()]);
        log.log.close().unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "2\n");
        let path = log.path().join("log");
        std::fs::rename(&path, log.path().join("old")).unwrap();
        let mut new = EvidenceLog::open(&path, "host").unwrap().log;
        new.append(&["first of the new"], true).unwrap();
        new.publish().unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "first of the new\n");
    }

    #[tokio::test]
    async fn following_ends_with_the_time_that_is_asked_for() {
        let mut log = Log::new();
        log.append(&[event("a", "LOSS", 1), event("a", "LOSS", 3)]);
        let until = "2026-01-01T00:00:02Z".parse().ok();
        assert_eq!(log.all(EventQuery { until, ..following() }).await, event("a", "LOSS", 1) + "\n");
    }

    #[tokio::test]
    async fn a_limit_bounds_what_was_and_not_what_comes() {
        let mut log = Log::new();
        let lines = |numbers: std::ops::RangeInclusive<u32>| {
            numbers.map(|number| number.to_string()).collect::<Vec<_>>()
        };
        log.append(&lines(1..=3));
        let mut stream = Box::pin(log.events(EventQuery { limit: Some(2), ..following() }));
        assert_eq!(stream.next().await.unwrap().unwrap(), "2\n3\n");
        log.append(&lines(4..=6));
        assert_eq!(stream.next().await.unwrap().unwrap(), "4\n5\n6\n");
    }
}
