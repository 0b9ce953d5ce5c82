//! Reading a stretch of the log into a story, with as many threads as there are for parsing.

use super::fact::{Fact, Seen, read};
use super::story::Story;
use crate::record::entries::{Entry, EventSource};
use crate::record::index::{Answer, Files};
use crate::record::query::EventQuery;
use crate::record::timestamp::Timestamp;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// How long before a stretch of time it is looked at whom agents talked to.
const HISTORY_MS: u64 = 86_400_000;
/// Entries handed over at once.
const BATCH: usize = 1024;
/// Batches that wait for a parser, at most.
const WAITING: usize = 4;
/// Parsers, at most.
const PARSERS: usize = 4;
/// From when on it is read whom agents used to talk to, for what happened from `from` on.
#[must_use]
pub fn begin_of_history(from: Timestamp) -> Timestamp {
    Timestamp(from.0.saturating_sub(HISTORY_MS))
}

/// What a fact is for a stretch of time: of interactions before it only whom the agent opened to.
#[must_use]
pub fn within(fact: Fact, from: Timestamp, to: Timestamp) -> Option<Fact> {
    match fact {
        Fact::Interaction(seen) if seen.span.1 < from.0 => {
            let is_history = seen.opened && seen.span.1 >= begin_of_history(from).0;
            let Seen { agent, protocol, remote, .. } = *seen;
            is_history.then_some(Fact::Earlier { agent, protocol, remote })
        }
        Fact::Interaction(ref seen) => (seen.span.0 <= to.0).then_some(fact),
        Fact::Mark(ref noticed) => (from.0..=to.0).contains(&noticed.at).then_some(fact),
        // What was left out is told after its time.
        Fact::Sampled { .. } | Fact::Address { .. } | Fact::Earlier { .. } => Some(fact),
    }
}

/// Tells `story` everything of the log that belongs into a stretch of time, and whom agents talked to in the day before.
///
/// # Errors
///
/// When the log cannot be read.
pub fn gather(
    source: &dyn EventSource,
    files: &Files,
    (from, to): (Timestamp, Timestamp),
    story: &mut Story,
) -> io::Result<()> {
    let entries = source.entries_from(first_place(source, files, begin_of_history(from)))?;
    let parsers = thread::available_parallelism().map_or(1, usize::from).min(PARSERS);
    thread::scope(|scope| {
        let (mut to_parsers, mut from_parsers) = (Vec::new(), Vec::new());
        for _ in 0..parsers {
            let (to_parser, batches) = sync_channel::<Vec<Entry>>(WAITING);
            let (to_story, facts) = sync_channel(WAITING);
            scope.spawn(move || parse(&batches, &to_story, from, to));
            to_parsers.push(to_parser);
            from_parsers.push(facts);
        }
        let reader = scope.spawn(move || deal(entries, &to_parsers));
        // Taken in the order in which batches were dealt, so that the same log is always the same story.
        for facts in from_parsers.iter().cycle().map_while(|parser| parser.recv().ok()) {
            facts.into_iter().for_each(|fact| story.tell(fact));
        }
        reader.join().unwrap_or_else(|_| Err(io::Error::other("the thread that reads the log has died")))
    })
}

/// Where a stretch of time begins in the log, as far as the index knows.
fn first_place(source: &dyn EventSource, files: &Files, from: Timestamp) -> u64 {
    let query = EventQuery { since: Some(from), ..EventQuery::default() };
    let Ok(Some(answer)) = Answer::find(files, source, &query) else { return 0 };
    answer.places.first().copied().or(answer.covered_to).unwrap_or(0)
}

fn deal(
    mut entries: impl Iterator<Item = io::Result<Entry>>,
    parsers: &[SyncSender<Vec<Entry>>],
) -> io::Result<()> {
    for parser in parsers.iter().cycle() {
        let batch: Vec<Entry> = entries.by_ref().take(BATCH).collect::<io::Result<_>>()?;
        if batch.is_empty() || parser.send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

fn parse(batches: &Receiver<Vec<Entry>>, to_story: &SyncSender<Vec<Fact>>, from: Timestamp, to: Timestamp) {
    for batch in batches {
        let facts = batch.iter().flat_map(|(_, line)| read(line)).filter_map(|fact| within(fact, from, to));
        if to_story.send(facts.collect()).is_err() {
            return;
        }
    }
}
