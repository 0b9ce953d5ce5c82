//! How far something is that takes longer than people like to wait: one line of a terminal, and nothing elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Context;
use super::units::count;
use crate::record::entries::{Entry, EventSource};

/// Between two looks of people.
const INTERVAL: Duration = Duration::from_millis(100);

/// One line of a terminal that is written again and again.
#[derive(Debug)]
pub(super) struct Line {
    shown: bool,
    said: String,
}

impl Line {
    /// A line that is shown if somebody is there to see it.
    pub(super) fn of(context: &Context) -> Self {
        Self { shown: !context.output.json && io::stderr().is_terminal(), said: String::new() }
    }

    pub(super) fn show(&mut self, text: &str) {
        if self.shown && self.said != text {
            // If it cannot be written there is nobody to see it.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
            let _ = io::stderr().flush();
            self.said = text.to_owned();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.show("");
    }
}

/// Entries of how many, told now and then.
#[derive(Debug)]
pub(super) struct Entries {
    line: Line,
    what: &'static str,
    next: Instant,
}

impl Entries {
    pub(super) fn of(context: &Context, what: &'static str) -> Self {
        Self { line: Line::of(context), what, next: Instant::now() + INTERVAL }
    }

    pub(super) fn tell(&mut self, done: u64, all: u64) {
        let now = Instant::now();
        if self.line.shown && now >= self.next {
            self.next = now + INTERVAL;
            let percent = (done.min(all) * 100).checked_div(all).unwrap_or(0);
            self.line.show(&format!(
                "{}: {percent} % ({} of {} entries)",
                self.what,
                count(done),
                count(all)
            ));
        }
    }
}

/// A log whose reading is told.
pub(super) struct Watched<S> {
    source: S,
    all: u64,
    entries: Arc<Mutex<Entries>>,
}

impl<S: EventSource> Watched<S> {
    /// `source`, which has `all` entries.
    pub(super) fn new(source: S, all: u64, entries: Entries) -> Self {
        Self { source, all, entries: Arc::new(Mutex::new(entries)) }
    }
}

impl<S: EventSource> EventSource for Watched<S> {
    fn entries_from(&self, place: u64) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>> + Send>> {
        const STEP: u64 = 4096;
        let (all, entries) = (self.all, Arc::clone(&self.entries));
        let mut read = 0;
        let told = self.source.entries_from(place)?.inspect(move |_| {
            read += 1;
            if read % STEP == 0 {
                entries.lock().unwrap_or_else(PoisonError::into_inner).tell(read, all);
            }
        });
        Ok(Box::new(told))
    }

    fn entries_at(&self, places: &[u64]) -> io::Result<Vec<Option<Vec<u8>>>> {
        self.source.entries_at(places)
    }
}
