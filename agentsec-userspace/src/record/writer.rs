//! The thread that writes the log: the loop hands events over and goes on.
//!
//! What waits is bounded. Beyond that the oldest are kept, since they tell how it began; what found no room is counted
//! and told. Tiles and a checkpoint follow within a second.

use super::evidence::EvidenceLog;
use super::journal::Journal;
use super::sink::SinkError;
use crate::core::draft::{Draft, TripRef};
use crate::core::time::Time;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Most events that wait in memory.
pub const QUEUE_EVENTS: u64 = 10_000;
/// An event is in tiles, and under a signed checkpoint, after so long.
const PUBLISH_NS: u64 = 1_000_000_000;
/// So long the end of the thread is waited for when the daemon stops.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the loop hears of the thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The events of these trips are on a disk.
    Recorded(Vec<TripRef>),
    /// The log takes no events, for that reason. They wait.
    Refuses(SinkError),
    /// Tiles or checkpoint cannot be written. Events are kept in the write-ahead file.
    Unpublished(SinkError),
    /// Everything is written.
    Fine,
}

/// What became of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the log, or on the second path to it.
    pub written: u64,
    /// Waiting in memory.
    pub queued: u64,
    /// Without room even there.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    /// Handed over and not taken yet.
    handed: AtomicU64,
    /// Taken and not written yet.
    queued: AtomicU64,
    lost: AtomicU64,
    /// Of the lost, those of which the log does not know yet.
    untold: AtomicU64,
}

impl Shared {
    fn waiting(&self) -> u64 {
        self.handed.load(Ordering::Relaxed) + self.queued.load(Ordering::Relaxed)
    }
}

enum Order {
    Write(Vec<Draft>),
    After(Box<dyn FnOnce(bool) + Send>),
}

/// The thread's handle. Dropping it ends the thread after what it has been given.
pub struct Writer {
    orders: Option<Sender<Order>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. `clock` is asked when it is time for something.
    ///
    /// # Errors
    ///
    /// When the system refuses another thread.
    pub fn start(
        journal: Journal<EvidenceLog>,
        clock: fn() -> Time,
    ) -> io::Result<(Self, UnboundedReceiver<Told>)> {
        let (orders, inbox) = channel();
        let (tell, told) = unbounded_channel();
        let shared = Arc::new(Shared::default());
        let mut work =
            Work { journal, shared: Arc::clone(&shared), tell, clock, publish_at_ns: None, trouble: false };
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || work.run(&inbox))?;
        Ok((Self { orders: Some(orders), shared, thread: Some(thread) }, told))
    }

    /// Hands events over, in their order. Those without room are lost, and the trips among them are returned.
    #[must_use]
    pub fn write(&self, mut drafts: Vec<Draft>) -> Vec<TripRef> {
        let room = QUEUE_EVENTS.saturating_sub(self.shared.waiting()) as usize;
        let beyond = drafts.split_off(drafts.len().min(room));
        self.shared.lost.fetch_add(beyond.len() as u64, Ordering::Relaxed);
        self.shared.untold.fetch_add(beyond.len() as u64, Ordering::Relaxed);
        if !drafts.is_empty() {
            self.shared.handed.fetch_add(drafts.len() as u64, Ordering::Relaxed);
            self.order(Order::Write(drafts));
        }
        beyond.into_iter().filter_map(|draft| draft.trip).collect()
    }

    /// Whether so many events more would find room. Only whoever hands them over takes it.
    #[must_use]
    pub fn has_room_for(&self, events: u64) -> bool {
        self.shared.waiting().saturating_add(events) <= QUEUE_EVENTS
    }

    /// Does something once everything that was handed over is written or refused: it hears whether all of it is on a disk.
    pub fn after(&self, then: impl FnOnce(bool) + Send + 'static) {
        self.order(Order::After(Box::new(then)));
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A thread that has ended has panicked: its end is what the operator sees.
            let _ = orders.send(order);
        }
    }

    /// What became of events so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let shared = &self.shared;
        Counts { written: of(&shared.written), queued: shared.waiting(), lost: of(&shared.lost) }
    }

    /// Ends the thread once everything is written and published; false when that takes too long.
    pub fn close(&mut self) -> bool {
        self.orders = None;
        let begun = Instant::now();
        while let Some(thread) = self.thread.take() {
            if thread.is_finished() {
                return thread.join().is_ok();
            }
            if begun.elapsed() > PATIENCE {
                return false;
            }
            self.thread = Some(thread);
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the thread has.
struct Work {
    journal: Journal<EvidenceLog>,
    shared: Arc<Shared>,
    tell: UnboundedSender<Told>,
    clock: fn() -> Time,
    /// When to write tiles, if there is something for them.
    publish_at_ns: Option<u64>,
    /// The loop has been told of trouble.
    trouble: bool,
}

impl Work {
    fn run(&mut self, inbox: &Receiver<Order>) {
        loop {
            let first = match self.next_ns() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at_ns) => {
                    let wait = at_ns.saturating_sub((self.clock)().mono_ns);
                    inbox.recv_timeout(Duration::from_nanos(wait))
                }
            };
            let ended = matches!(first, Err(RecvTimeoutError::Disconnected));
            // Whatever came meanwhile goes with it: one sync for all.
            let orders: Vec<Order> = first.into_iter().chain(inbox.try_iter()).collect();
            let mut then = Vec::new();
            let mut drafts = Vec::new();
            for order in orders {
                match order {
                    Order::Write(more) => drafts.extend(more),
                    Order::After(what) => then.push(what),
                }
            }
            self.write(drafts);
            let kept = self.journal.waiting() == 0;
            then.into_iter().for_each(|what| what(kept));
            self.publish(ended);
            if ended {
                let lost = self.journal.waiting();
                if lost > 0 {
                    eprintln!("agentsec: the log takes no events, and {lost} that waited in memory are lost");
                }
                return;
            }
        }
    }

    fn next_ns(&self) -> Option<u64> {
        [self.journal.retry_at_ns(), self.publish_at_ns].into_iter().flatten().min()
    }

    fn write(&mut self, drafts: Vec<Draft>) {
        let now = (self.clock)();
        let lost = self.shared.untold.swap(0, Ordering::Relaxed);
        if drafts.is_empty() && lost == 0 && self.journal.retry_at_ns().is_none() {
            return;
        }
        let handed = drafts.len() as u64;
        let outcome = self.journal.write(now, drafts, lost);
        self.shared.written.fetch_add(outcome.written, Ordering::Relaxed);
        self.shared.queued.store(self.journal.waiting() as u64, Ordering::Relaxed);
        self.shared.handed.fetch_sub(handed, Ordering::Relaxed);
        if !outcome.recorded.is_empty() {
            let _ = self.tell.send(Told::Recorded(outcome.recorded));
        }
        if let Some(error) = outcome.error {
            self.trouble = true;
            let _ = self.tell.send(Told::Refuses(error));
        } else if outcome.durable {
            self.publish_at_ns.get_or_insert(now.mono_ns.saturating_add(PUBLISH_NS));
        }
    }

    fn publish(&mut self, ended: bool) {
        let now = (self.clock)();
        if !ended && self.publish_at_ns.is_none_or(|at_ns| now.mono_ns < at_ns) {
            return;
        }
        let log = self.journal.sink();
        let published = if ended { log.close() } else { log.publish() };
        self.publish_at_ns = None;
        match published {
            Ok(()) => {
                // While events wait it is not over: the publishing after they are written tells.
                if self.journal.retry_at_ns().is_none() && std::mem::take(&mut self.trouble) {
                    let _ = self.tell.send(Told::Fine);
                }
            }
            Err(error) => {
                self.trouble = true;
                self.publish_at_ns = Some(now.mono_ns.saturating_add(PUBLISH_NS));
                let _ = self.tell.send(Told::Unpublished(error.into()));
            }
        }
    }
}
