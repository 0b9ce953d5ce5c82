//! Bundles beside the daemon's loop: threads that make them, and one that keeps those that are made.
//!
//! The loop hands over an [`Order`] and takes what is [`Told`]; it never waits for anything here.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc as told;
use uuid::Uuid;

use crate::clock;
use crate::config::BundlesConfig;
use crate::core::time::rfc3339;
use crate::recovery::error::Failure;

use super::collect::collect;
use super::gate::Gate;
use super::manifest::{Entry, FORMAT, Limits, Manifest, Origin, fit};
use super::retention::{self, Kept};
use super::store::{About, Phase, Store, Swept};
use super::trip::{Order, Trip};
use super::{archive, sealed};

/// Bundles that are made at once.
const MAKERS: usize = 4;
/// Bundles that wait to be made.
const MOST_ORDERS: usize = 4096;
/// Made bundles that wait for room on the disk, and their bytes.
const MOST_WAITING: usize = 16;
const MOST_WAITING_BYTES: usize = 128 << 20;
/// How often those are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What the loop is told, to record it.
#[derive(Clone, Debug)]
pub enum Told {
    /// What an earlier daemon has left was put in order.
    Swept(Box<Swept>),
    /// A bundle is on the disk. Say [`Service::logged`] once its hash is in the log.
    Stored {
        /// Which.
        about: Box<About>,
        /// Whether it [waited](Told::Waits) before.
        waited: bool,
    },
    /// A bundle is made, and the disk does not take it: it waits in memory.
    Waits {
        /// About which trip.
        trip: Trip,
        /// Why.
        error: String,
    },
    /// There is no bundle of a trip.
    Failed {
        /// Which trip.
        trip: Trip,
        /// Why.
        error: String,
    },
    /// A bundle is to be removed. Say [`Service::remove`] once that is in the log.
    Removing {
        /// Which.
        about: Box<About>,
        /// `expired` or `room`.
        why: &'static str,
    },
    /// Something else went wrong.
    Problem(String),
}

enum Ask {
    Logged(String),
    Remove(String),
    Tend { config: BundlesConfig, open: BTreeSet<(String, String)> },
    Answer(Sender<()>),
}

struct Shared {
    store: Store,
    origin: Origin,
    waiting: Mutex<VecDeque<Ready>>,
    told: told::UnboundedSender<Told>,
}

/// A bundle that is made.
struct Ready {
    about: About,
    archive: Vec<u8>,
}

/// The threads, for the loop.
pub struct Service {
    orders: SyncSender<Order>,
    asks: Sender<Ask>,
    gate: Gate,
}

impl Service {
    /// Starts: what an earlier daemon has left is put in order first.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(
        state_dir: &Path,
        origin: Origin,
        gate: Gate,
    ) -> std::io::Result<(Self, told::UnboundedReceiver<Told>)> {
        let (told, heard) = told::unbounded_channel();
        let store = Store::of(state_dir);
        let shared = Arc::new(Shared { store, origin, waiting: Mutex::default(), told });
        let (orders, to_make) = sync_channel(MOST_ORDERS);
        let (asks, asked) = mpsc::channel();
        let to_make = Arc::new(Mutex::new(to_make));
        let (swept, is_swept) = mpsc::channel::<()>();
        let keeper = Arc::clone(&shared);
        thread::Builder::new().name("bundles".into()).spawn(move || {
            keeper.sweep();
            drop(swept);
            keeper.keep(&asked);
        })?;
        let is_swept = Arc::new(Mutex::new(is_swept));
        for number in 0..MAKERS {
            let (shared, to_make, is_swept) =
                (Arc::clone(&shared), Arc::clone(&to_make), Arc::clone(&is_swept));
            thread::Builder::new().name(format!("bundle-{number}")).spawn(move || {
                // What is made must not be swept: ends when the sweep has.
                let _ = is_swept.lock().unwrap_or_else(PoisonError::into_inner).recv();
                shared.work(&to_make);
            })?;
        }
        Ok((Self { orders, asks, gate }, heard))
    }

    /// Orders a bundle.
    ///
    /// # Errors
    ///
    /// When too many wait already; the trip has none then.
    pub fn order(&self, order: Order) -> Result<(), Box<(Trip, String)>> {
        self.orders.try_send(order).map_err(|refused| {
            Box::new(match refused {
                mpsc::TrySendError::Full(order) => {
                    (order.trip, format!("{MOST_ORDERS} bundles wait to be made already"))
                }
                mpsc::TrySendError::Disconnected(order) => {
                    (order.trip, "the threads that make bundles are gone".into())
                }
            })
        })
    }

    /// The hash of a bundle is in the log.
    pub fn logged(&self, id: &str) {
        self.ask(Ask::Logged(id.to_owned()));
    }

    /// That a bundle is removed is in the log.
    pub fn remove(&self, id: &str) {
        self.ask(Ask::Remove(id.to_owned()));
    }

    /// Says what is configured now and which incidents, with their agents, are open: what may go goes.
    pub fn tend(&self, config: &BundlesConfig, open: BTreeSet<(String, String)>) {
        self.gate.set_patience(Duration::from_nanos(config.wait_ns));
        self.ask(Ask::Tend { config: config.clone(), open });
    }

    /// Waits until nothing is being collected, but not longer than `patience`.
    pub fn settle(&self, patience: Duration) {
        // What is left is collected by the next daemon, as far as it is still there.
        let _ = self.gate.wait_for_all(patience);
    }

    /// Waits, for a bounded time, until everything that was said of bundles is noted.
    pub fn finish(&self, patience: Duration) {
        let (answer, answered) = mpsc::channel();
        self.ask(Ask::Answer(answer));
        // What is not noted is told again by the next daemon.
        let _ = answered.recv_timeout(patience);
    }

    /// Who destroys evidence asks here.
    #[must_use]
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    fn ask(&self, ask: Ask) {
        // A keeper that has died has left a problem behind; what is on the disk is swept by the next daemon.
        let _ = self.asks.send(ask);
    }
}

impl Shared {
    /// A loop that is gone records nothing any more.
    fn tell(&self, told: Told) {
        let _ = self.told.send(told);
    }

    fn sweep(&self) {
        let swept = self.store.sweep();
        self.tell(Told::Swept(Box::new(swept)));
    }

    fn keep(&self, asked: &Receiver<Ask>) {
        loop {
            match asked.recv_timeout(RETRY) {
                Ok(Ask::Logged(id)) => drop(self.noted(self.store.set_phase(&id, Phase::Logged))),
                Ok(Ask::Remove(id)) => drop(self.noted(self.store.remove(&id))),
                Ok(Ask::Tend { config, open }) => self.tend(&config, &open),
                // Whoever asked may not wait any more.
                Ok(Ask::Answer(answer)) => answer.send(()).unwrap_or_default(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.store_waiting();
        }
    }

    fn noted<T>(&self, result: Result<T, Failure>) -> Option<T> {
        result.map_err(|failure| self.tell(Told::Problem(failure.message))).ok()
    }

    fn work(&self, orders: &Mutex<Receiver<Order>>) {
        loop {
            let next = orders.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(order) = next else { return };
            let trip = order.trip.clone();
            if catch_unwind(AssertUnwindSafe(|| self.make(order))).is_err() {
                self.tell(Told::Failed { trip, error: "making the bundle panicked".into() });
            }
        }
    }

    /// Makes one bundle. Whoever waits for it goes on when it is on the disk, or waits for room there.
    fn make(&self, mut order: Order) {
        let about = About {
            bundle_id: Uuid::now_v7().to_string(),
            trip: order.trip.clone(),
            at_ns: order.at.wall_ns,
            recipients: order.config.recipients.len(),
            ..About::default()
        };
        // Without room for the note there may be some for the bundle later: the note is only for a daemon that dies now.
        let _ = self.store.begin(&about);
        match self.pack(&mut order, about) {
            Ok(ready) => self.put(ready),
            Err(error) => self.tell(Told::Failed { trip: order.trip.clone(), error: error.to_string() }),
        }
    }

    fn pack(&self, order: &mut Order, about: About) -> std::io::Result<Ready> {
        let (begun, now) = (Instant::now(), clock::now());
        let mut parts = collect(order);
        fit(&mut parts, order.config.max_bundle_bytes);
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let manifest = Manifest {
            format: FORMAT,
            bundle_id: about.bundle_id.clone(),
            trip: order.trip.clone(),
            origin: self.origin.clone(),
            collected_at: rfc3339(now.wall_ns),
            collected_monotonic_ns: now.mono_ns,
            took_ms,
            limits: Limits {
                part_timeout_ms: order.config.part_timeout_ns / 1_000_000,
                part_bytes: order.config.max_bundle_bytes / 4,
                bundle_bytes: order.config.max_bundle_bytes,
            },
            parts: parts.iter().map(Entry::of).collect(),
        };
        let archive = archive::write(&manifest, &parts, now.wall_ns / 1_000_000_000)?;
        drop(parts);
        let archive = sealed::seal(&order.config.recipients, archive)?;
        Ok(Ready { about: About { parts: manifest.statuses(), took_ms, ..about }, archive })
    }

    fn put(&self, ready: Ready) {
        match self.store.put(&ready.about, &ready.archive) {
            Ok(stored) => self.tell(Told::Stored { about: Box::new(stored), waited: false }),
            Err(failure) => self.let_wait(ready, &failure),
        }
    }

    fn let_wait(&self, ready: Ready, failure: &Failure) {
        let trip = ready.about.trip.clone();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = waiting.iter().map(|ready| ready.archive.len()).sum();
        let error = failure.message.clone();
        if waiting.len() >= MOST_WAITING || bytes + ready.archive.len() > MOST_WAITING_BYTES {
            drop(waiting);
            let error = format!("{error}; and no more bundles wait in memory");
            return self.tell(Told::Failed { trip, error });
        }
        waiting.push_back(ready);
        drop(waiting);
        self.tell(Told::Waits { trip, error });
    }

    /// Tries again to store what waits, oldest first.
    fn store_waiting(&self) {
        loop {
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(ready) = next else { return };
            match self.store.put(&ready.about, &ready.archive) {
                Ok(stored) => self.tell(Told::Stored { about: Box::new(stored), waited: true }),
                Err(_) => {
                    self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_front(ready);
                    return;
                }
            }
        }
    }

    /// Announces what is to be removed. It goes when the log says so.
    fn tend(&self, config: &BundlesConfig, open: &BTreeSet<(String, String)>) {
        let Some((all, problems)) = self.noted(self.store.list()) else { return };
        problems.into_iter().for_each(|problem| self.tell(Told::Problem(problem)));
        let logged: Vec<&About> = all.iter().filter(|about| about.phase == Phase::Logged).collect();
        let kept: Vec<Kept> = logged.iter().map(|about| kept(about)).collect();
        let limits = retention::Limits {
            count: config.max_count as usize,
            bytes: config.max_bytes,
            age_ns: config.expire_ns,
        };
        for (id, why) in retention::removable(&kept, open, limits, clock::now().wall_ns) {
            if let Some(about) = self.noted(self.store.set_phase(&id, Phase::Removing)) {
                self.tell(Told::Removing { about: Box::new(about), why: why.name() });
            }
        }
    }
}

fn kept(about: &About) -> Kept {
    Kept {
        id: about.bundle_id.clone(),
        agent: about.trip.agent.clone(),
        incident: about.trip.incident.clone(),
        at_ns: about.at_ns,
        bytes: about.bytes,
    }
}
