//! Between the core and the log: seals events and keeps them while the log takes none.
//!
//! While the log refuses, events wait in memory or, if there is a second path, in a file there, which survives a crash.
//! Either way they go into the log in their order once it takes them again, and behind them the record of the gap.

use super::dead_letters::{DeadLetters, Tally};
use super::event::{Event, Sealer};
use super::sink::{EventSink, SinkError};
use crate::core::draft::{Draft, EventKind, TripRef};
use crate::core::time::{Time, rfc3339};
use serde_json::json;
use std::collections::VecDeque;

/// Events per write.
const BATCH_EVENTS: usize = 1024;
const FIRST_RETRY_NS: u64 = 100_000_000;
const LAST_RETRY_NS: u64 = 5_000_000_000;

/// What became of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Nothing waits: every event so far is in the log.
    pub durable: bool,
    /// Trips whose events are on a disk now; tell the core `Recorded`.
    pub recorded: Vec<TripRef>,
    /// Events that are in the log or on the second path since the last time.
    pub written: u64,
    /// Why events wait, when the log has just refused them.
    pub error: Option<SinkError>,
}

/// A time in which the log took nothing.
#[derive(Clone, Debug)]
struct Outage {
    since: Time,
    error: SinkError,
    /// Events that were handed over in it.
    delayed: u64,
    /// Of these, those that were damaged on the second path.
    damaged: u64,
}

/// Writes events.
pub struct Journal<S> {
    sink: S,
    sealer: Sealer,
    queue: VecDeque<(Event, Option<TripRef>)>,
    dead_letters: Option<DeadLetters>,
    outage: Option<Outage>,
    retry_at_ns: u64,
    retry_after_ns: u64,
    /// Lost for want of room and not told yet.
    lost: u64,
}

impl<S: EventSink> Journal<S> {
    /// A journal over `sink`; what waits in `dead_letters` goes there first.
    pub fn new(sink: S, sealer: Sealer, dead_letters: Option<DeadLetters>) -> Self {
        Self {
            sink,
            sealer,
            queue: VecDeque::new(),
            dead_letters,
            outage: None,
            retry_at_ns: 0,
            retry_after_ns: FIRST_RETRY_NS,
            lost: 0,
        }
    }

    /// The log.
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Writes `drafts` after what waits already. With none it only tries again, which it should when it is time to.
    /// `lost` is what found no room before it came here, since the last time: it is told once there is room.
    pub fn write(&mut self, now: Time, drafts: Vec<Draft>, lost: u64) -> Outcome {
        let handed = drafts.len() as u64;
        for draft in drafts {
            let trip = draft.trip;
            self.queue.push_back((self.sealer.seal(draft), trip));
        }
        // Told once the log takes it: one event for each time that it was tried would fill the memory as well.
        self.lost += lost;
        let mut outcome = Outcome::default();
        let mut error = None;
        if now.mono_ns >= self.retry_at_ns {
            error = self.flush(now, &mut outcome).err();
        }
        if let Some(outage) = &mut self.outage {
            // Also what waits in memory only.
            outage.delayed += handed;
        }
        if let Some(error) = error {
            self.begin_outage(now, &error);
            self.retry_at_ns = now.mono_ns.saturating_add(self.retry_after_ns);
            self.retry_after_ns = (self.retry_after_ns * 2).min(LAST_RETRY_NS);
            outcome.error = Some(error);
        }
        if self.outage.is_some() {
            self.put_aside(&mut outcome);
        }
        outcome.durable = self.outage.is_none() && self.queue.is_empty();
        outcome
    }

    /// When to try again, if something waits.
    #[must_use]
    pub fn retry_at_ns(&self) -> Option<u64> {
        let waits = !self.queue.is_empty() || self.outage.is_some();
        waits.then_some(self.retry_at_ns)
    }

    /// Events that wait in memory.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn tell(&mut self, draft: Draft) {
        self.queue.push_back((self.sealer.seal(draft), None));
    }

    /// Everything that waits goes into the log.
    fn flush(&mut self, now: Time, outcome: &mut Outcome) -> Result<(), SinkError> {
        if let Some(letters) = &mut self.dead_letters {
            let (sink, sealer) = (&mut self.sink, &mut self.sealer);
            let take = |batch: &[Event]| sink.append(batch);
            let tally = letters.deliver(BATCH_EVENTS, take, |tally| sealer.seal(inherited(tally, now)))?;
            if let Some(outage) = &mut self.outage {
                outage.damaged += tally.damaged;
            }
            let path = letters.path().display().to_string();
            if let Some(error) = letters.trouble() {
                let data = json!({ "what": "dead_letters_unreadable", "path": path, "error": error });
                self.tell(Draft::daemon(now, EventKind::Alert, data));
            }
        }
        self.drain(outcome)?;
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            self.tell(Draft::daemon(now, EventKind::Loss, json!({ "what": "events", "events_lost": lost })));
            self.drain(outcome)?;
        }
        if let Some(outage) = self.outage.take() {
            self.tell(outage.ended(now));
            // The gap's own record may find the disk full again.
            if let Err(error) = self.drain(outcome) {
                self.outage = Some(outage);
                return Err(error);
            }
        }
        self.retry_after_ns = FIRST_RETRY_NS;
        Ok(())
    }

    fn drain(&mut self, outcome: &mut Outcome) -> Result<(), SinkError> {
        while !self.queue.is_empty() {
            let batch: Vec<Event> =
                self.queue.iter().take(BATCH_EVENTS).map(|(event, _)| event.clone()).collect();
            self.sink.append(&batch)?;
            outcome.written += batch.len() as u64;
            outcome.recorded.extend(self.queue.drain(..batch.len()).filter_map(|(_, trip)| trip));
        }
        Ok(())
    }

    fn begin_outage(&mut self, now: Time, error: &SinkError) {
        if self.outage.is_some() {
            return;
        }
        let delayed = self.queue.len() as u64;
        self.outage = Some(Outage { since: now, error: error.clone(), delayed, damaged: 0 });
        let place = self.dead_letters.as_ref().map(|letters| letters.path().display().to_string());
        let data = json!({ "what": "log_refuses", "error": error.message, "dead_letters": place });
        self.tell(Draft::daemon(now, EventKind::Alert, data));
    }

    /// What waits goes to the second path, if there is one, as far as that takes it.
    fn put_aside(&mut self, outcome: &mut Outcome) {
        let Some(letters) = &mut self.dead_letters else { return };
        if self.queue.is_empty() {
            return;
        }
        let Ok(count) = letters.append(self.queue.iter().map(|(event, _)| event)) else { return };
        outcome.written += count as u64;
        outcome.recorded.extend(self.queue.drain(..count).filter_map(|(_, trip)| trip));
    }
}

impl Outage {
    fn ended(&self, now: Time) -> Draft {
        let data = json!({
            "what": "log_gap",
            "since": rfc3339(self.since.wall_ns),
            "seconds": (now.mono_ns.saturating_sub(self.since.mono_ns)) as f64 / 1e9,
            "events_delayed": self.delayed,
            "events_damaged": self.damaged,
            "error": self.error.message,
        });
        Draft::daemon(now, EventKind::Loss, data)
    }
}

/// A gap that an earlier daemon did not see the end of.
fn inherited(tally: &Tally, now: Time) -> Draft {
    let data = json!({
        "what": "log_gap",
        "since": tally.since,
        "events_delayed": tally.events,
        "events_damaged": tally.damaged,
        "error": "the daemon ended while the log took none",
    });
    Draft::daemon(now, EventKind::Loss, data)
}
