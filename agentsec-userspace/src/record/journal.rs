//! Between the core and the log: seals events and keeps them while the log takes none.

use super::event::{Event, Sealer};
use super::log::{EventSink, SinkError};
use crate::core::draft::{Draft, EventKind, TripRef};
use crate::core::time::Time;
use serde_json::json;
use std::collections::VecDeque;

/// Most events that wait in memory.
pub const QUEUE_EVENTS: usize = 10_000;
/// Events per write.
const BATCH_EVENTS: usize = 1024;
const FIRST_RETRY_NS: u64 = 100_000_000;
const LAST_RETRY_NS: u64 = 5_000_000_000;

/// What became of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Nothing waits: every event so far is in the log.
    pub durable: bool,
    /// Trips whose events are on the disk now; tell the core `Recorded`.
    pub recorded: Vec<TripRef>,
    /// Trips whose events found no room even in memory; tell the core `RecordFailed`.
    pub refused: Vec<TripRef>,
    /// Why events wait, when the log has just refused them.
    pub error: Option<SinkError>,
}

/// Writes events.
pub struct Journal<S> {
    sink: S,
    sealer: Sealer,
    queue: VecDeque<(Event, Option<TripRef>)>,
    capacity: usize,
    /// Events that found no room, not yet told.
    lost: u64,
    retry_at_ns: u64,
    retry_after_ns: u64,
}

impl<S: EventSink> Journal<S> {
    /// A journal over `sink`. A line that a crash has torn there becomes the first event.
    pub fn new(sink: S, sealer: Sealer, now: Time) -> Self {
        Self::with_capacity(sink, sealer, now, QUEUE_EVENTS)
    }

    /// A journal that keeps at most `capacity` events in memory.
    pub fn with_capacity(sink: S, mut sealer: Sealer, now: Time, capacity: usize) -> Self {
        let mut queue = VecDeque::new();
        if let Some(torn) = sink.torn_tail().filter(|torn| !torn.intact) {
            let data = json!({ "what": "torn_line", "offset": torn.offset, "bytes": torn.bytes });
            queue.push_back((sealer.seal(Draft::daemon(now, EventKind::Loss, data)), None));
        }
        Self { sink, sealer, queue, capacity, lost: 0, retry_at_ns: 0, retry_after_ns: FIRST_RETRY_NS }
    }

    /// Writes `drafts` after what waits already. With none it only tries again, which it should with each tick.
    pub fn write(&mut self, now: Time, drafts: Vec<Draft>) -> Outcome {
        let mut outcome = Outcome::default();
        for draft in drafts {
            // The oldest events are kept: they tell how it began.
            if self.queue.len() >= self.capacity {
                self.lost += 1;
                outcome.refused.extend(draft.trip);
                continue;
            }
            let trip = draft.trip;
            self.queue.push_back((self.sealer.seal(draft), trip));
        }
        if now.mono_ns >= self.retry_at_ns {
            self.flush(now, &mut outcome);
        }
        outcome.durable = self.queue.is_empty();
        outcome
    }

    fn flush(&mut self, now: Time, outcome: &mut Outcome) {
        loop {
            if self.queue.is_empty() && self.lost > 0 {
                let data = json!({ "what": "events", "events_lost": self.lost });
                self.queue.push_back((self.sealer.seal(Draft::daemon(now, EventKind::Loss, data)), None));
                self.lost = 0;
            }
            let batch: Vec<Event> =
                self.queue.iter().take(BATCH_EVENTS).map(|(event, _)| event.clone()).collect();
            if batch.is_empty() {
                return;
            }
            if let Err(error) = self.sink.append(&batch) {
                outcome.error = Some(error);
                self.retry_at_ns = now.mono_ns.saturating_add(self.retry_after_ns);
                self.retry_after_ns = (self.retry_after_ns * 2).min(LAST_RETRY_NS);
                return;
            }
            self.retry_after_ns = FIRST_RETRY_NS;
            outcome.recorded.extend(self.queue.drain(..batch.len()).filter_map(|(_, trip)| trip));
        }
    }

    /// Events that wait in memory.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Events that found no room since the latest event that says so.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
