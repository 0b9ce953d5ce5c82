//! The thread that anchors. It reads the log's files and calls outside; nobody ever waits for it.

use super::consistent::{self, Newest};
use super::file::FileAnchor;
use super::http::HttpAnchor;
use super::schedule::Turn;
use super::state::{self, AnchorState, Anchored, Memory, States};
use super::witness::Witness;
use super::{Cosignature, Fault, Told};
use crate::clock;
use crate::config::log::{AnchorConfig, AnchorPlace, AnchorsConfig};
use crate::record::evidence::note::Checkpoint;
use crate::record::evidence::source::log_directory;
use crate::record::evidence::tiles::TileStore;
use crate::record::remote::Client;
use anyhow::{Context, Result, anyhow};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the thread sleeps at most, and so how late a new checkpoint is looked at when none was due.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How often it is looked whether an earlier attempt on a file has come back.
const BUSY_LOOK: Duration = Duration::from_millis(20);

/// Takes what is told, from the anchors' thread.
pub type Tell = Box<dyn Fn(Told) + Send>;

/// The running anchors.
#[derive(Debug)]
pub struct Anchors {
    orders: mpsc::UnboundedSender<AnchorsConfig>,
    states: Arc<Mutex<States>>,
    thread: Option<JoinHandle<()>>,
}

impl Anchors {
    /// Anchors the log of the daemon with this state directory from now on.
    ///
    /// # Errors
    ///
    /// When there is no thread for it. What fails later is told.
    pub fn start(config: AnchorsConfig, state_dir: &Path, tell: Tell) -> io::Result<Self> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let states = Arc::new(Mutex::new(States::new()));
        let worker = Worker::new(state_dir, config, tell, Arc::clone(&states));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            runtime.block_on(worker.run(inbox));
            // A file system that hangs holds up nobody.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("anchors".into()).spawn(work)?;
        Ok(Self { orders, states, thread: Some(thread) })
    }

    /// Takes a new configuration.
    pub fn reconfigure(&self, config: AnchorsConfig) {
        // It fails only when the thread has gone, which was told.
        let _ = self.orders.send(config);
    }

    /// How it stands with each anchor.
    #[must_use]
    pub fn states(&self) -> States {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Anchors {
    fn drop(&mut self) {
        // Without orders the thread ends, whatever it waits for.
        self.orders = mpsc::unbounded_channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One anchor at work.
struct Anchor {
    config: AnchorConfig,
    turn: Turn,
    /// An attempt on a file that has not come back holds this.
    busy: Arc<AtomicBool>,
}

struct Worker {
    store: TileStore,
    memory: Memory,
    config: AnchorsConfig,
    client: Result<Client>,
    anchors: BTreeMap<String, Anchor>,
    states: States,
    shared: Arc<Mutex<States>>,
    tell: Tell,
    /// What is told once everything that it rests on is on the disk.
    news: Vec<Told>,
}

/// What became of an attempt.
enum Came {
    /// The checkpoint lies there.
    Placed(Box<Newest>, Option<Cosignature>),
    /// There is none yet, or it lies there already.
    Nothing,
    Fault(Fault),
}

impl Worker {
    fn new(state_dir: &Path, config: AnchorsConfig, tell: Tell, shared: Arc<Mutex<States>>) -> Self {
        let store = TileStore::new(&log_directory(state_dir));
        let memory = Memory::in_state(state_dir);
        let states = memory.load().unwrap_or_else(|error| {
            tell(Told::Broken { error: format!("{error:#}") });
            States::new()
        });
        let client = Err(anyhow!("not made yet"));
        let (empty, anchors) = (AnchorsConfig::default(), BTreeMap::new());
        let mut worker =
            Self { store, memory, config: empty, client, anchors, states, shared, tell, news: Vec::new() };
        worker.configure(config);
        worker
    }

    fn configure(&mut self, config: AnchorsConfig) {
        self.client = Client::new(config.ca_file.as_deref(), Duration::from_nanos(config.timeout_ns));
        let mut before = std::mem::take(&mut self.anchors);
        for (name, config) in &config.anchors {
            let known = before.remove(name).filter(|known| known.config == *config);
            let (place, state) = (place_id(&config.place), self.states.entry(name.clone()).or_default());
            if state.place != place {
                // Another place under an old name has nothing of what the old one had.
                *state = AnchorState { place, ..AnchorState::default() };
            }
            let new = || Anchor { config: config.clone(), turn: Turn::default(), busy: Arc::default() };
            self.anchors.insert(name.clone(), known.unwrap_or_else(new));
        }
        self.states.retain(|name, _| config.anchors.contains_key(name));
        self.config = config;
        self.publish();
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<AnchorsConfig>) {
        loop {
            tokio::select! {
                biased;
                order = inbox.recv() => match order {
                    Some(config) => self.configure(config),
                    None => return,
                },
                came = self.attempt_due() => self.take(came),
            }
            let sleep = self.sleep();
            tokio::select! {
                biased;
                order = inbox.recv() => match order {
                    Some(config) => self.configure(config),
                    None => return,
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn sleep(&self) -> Duration {
        let now = clock::now().mono_ns;
        let next = self.anchors.values().map(|anchor| anchor.turn.next_ns).min();
        next.map_or(LONGEST_SLEEP, |next| Duration::from_nanos(next.saturating_sub(now))).min(LONGEST_SLEEP)
    }

    /// Tries every anchor whose turn it is, all at once: a slow one holds up no other.
    async fn attempt_due(&self) -> Vec<(String, Came)> {
        let now = clock::now().mono_ns;
        let due = self.anchors.iter().filter(|(_, anchor)| anchor.turn.next_ns <= now);
        join_all(due.map(|(name, anchor)| async {
            let came = self.attempt(name, anchor).await;
            (name.clone(), came.unwrap_or_else(Came::Fault))
        }))
        .await
    }

    async fn attempt(&self, name: &str, anchor: &Anchor) -> Result<Came, Fault> {
        let Some(newest) = consistent::newest(&self.store)? else { return Ok(Came::Nothing) };
        let was = self.was(name);
        if let Err(contradiction) = consistent::compare(&self.store, was.as_ref(), &newest.checkpoint)? {
            // A log that was exchanged between two looks contradicts nothing.
            return match consistent::newest(&self.store)? {
                Some(again) if again == newest => Err(contradiction.into()),
                _ => Err(Fault::Failed(anyhow!("the log was exchanged meanwhile"))),
            };
        }
        if was.as_ref() == Some(&newest.checkpoint) {
            return Ok(Came::Nothing);
        }
        let cosignature = match &anchor.config.place {
            AnchorPlace::File { path, same_device } => {
                let file = FileAnchor { path: path.clone(), same_device: *same_device };
                self.place_in_file(anchor, file, was, newest.clone()).await?;
                None
            }
            AnchorPlace::Http { url, header_file } => {
                let server = HttpAnchor { url: url.clone(), header_file: header_file.clone() };
                server.place(self.client()?, &newest).await?;
                None
            }
            AnchorPlace::Witness { url, key } => {
                let witness = Witness { url: url.clone(), key: key.clone() };
                Some(witness.place(self.client()?, &self.store, was.as_ref(), &newest).await?)
            }
        };
        Ok(Came::Placed(Box::new(newest), cosignature))
    }

    /// A file system may hang: the attempt then goes on by itself, and no other is begun beside it.
    async fn place_in_file(
        &self,
        anchor: &Anchor,
        file: FileAnchor,
        was: Option<Checkpoint>,
        newest: Newest,
    ) -> Result<(), Fault> {
        let (busy, store, path) = (Arc::clone(&anchor.busy), self.store.clone(), file.path.clone());
        let timeout = Duration::from_nanos(self.config.timeout_ns);
        let begin = async {
            while busy.swap(true, Ordering::AcqRel) {
                tokio::time::sleep(BUSY_LOOK).await;
            }
        };
        if tokio::time::timeout(timeout, begin).await.is_err() {
            return Err(Fault::Failed(anyhow!("{}: an earlier attempt still hangs", path.display())));
        }
        let work = tokio::task::spawn_blocking(move || {
            let placed = file.place(&store, was.as_ref(), &newest);
            busy.store(false, Ordering::Release);
            placed
        });
        match tokio::time::timeout(timeout, work).await {
            Ok(Ok(placed)) => placed,
            Ok(Err(error)) => Err(Fault::Failed(anyhow!("the attempt was given up: {error}"))),
            Err(_) => Err(Fault::Failed(anyhow!("{}: not written within {timeout:?}", path.display()))),
        }
    }

    fn client(&self) -> Result<&Client> {
        self.client.as_ref().map_err(|error| anyhow!("{error:#}"))
    }

    fn was(&self, name: &str) -> Option<Checkpoint> {
        self.states.get(name)?.anchored.as_ref()?.checkpoint()
    }

    /// Remembers what became of attempts, and tells what has to be told.
    fn take(&mut self, came: Vec<(String, Came)>) {
        let before = self.states.clone();
        for (name, came) in came {
            match came {
                Came::Placed(newest, cosignature) => self.placed(&name, &newest, cosignature.as_ref()),
                Came::Nothing => self.worked(&name),
                Came::Fault(Fault::Failed(error)) => self.failed(&name, &format!("{error:#}")),
                Came::Fault(Fault::Contradicted(contradiction)) => {
                    let state = self.states.entry(name.clone()).or_default();
                    (state.contradicted, state.error) = (true, Some(contradiction.to_string()));
                    let told = self.turn(&name, |turn, now, every| turn.contradicted(now, every));
                    if told {
                        self.news.push(Told::Contradicted { anchor: name, contradiction });
                    }
                }
            }
        }
        if self.states != before {
            if let Err(error) = self.memory.save(&self.states) {
                self.news.push(Told::Broken { error: format!("{error:#}") });
            }
            self.publish();
        }
        self.news.drain(..).for_each(&self.tell);
    }

    fn placed(&mut self, name: &str, newest: &Newest, cosignature: Option<&Cosignature>) {
        let line = cosignature.map_or("", |cosignature| &cosignature.line);
        if let Err(error) = self.memory.keep(name, &format!("{}{line}", newest.signed)) {
            self.news.push(Told::Broken { error: format!("{error:#}") });
        }
        if let Some(was) = self.was(name).filter(|was| was.origin != newest.checkpoint.origin) {
            let now = newest.checkpoint.clone();
            self.news.push(Told::OtherLog { anchor: name.to_owned(), was, now });
        }
        let cosigned_at = cosignature.map(|cosignature| cosignature.at_s);
        let anchored = Anchored::new(&newest.checkpoint, clock::now().wall_ns, cosigned_at);
        self.states.entry(name.to_owned()).or_default().anchored = Some(anchored);
        self.worked(name);
    }

    fn worked(&mut self, name: &str) {
        let state = self.states.entry(name.to_owned()).or_default();
        (state.failures, state.error, state.contradicted) = (0, None, false);
        let anchored = state.anchored.as_ref().map_or(0, |anchored| anchored.size);
        if self.turn(name, |turn, now, every| turn.worked(now, every)) {
            self.news.push(Told::Working { anchor: name.to_owned(), anchored });
        }
    }

    fn failed(&mut self, name: &str, error: &str) {
        let state = self.states.entry(name.to_owned()).or_default();
        state.failures = state.failures.saturating_add(1);
        state.error = Some(error.to_owned());
        let failures = state.failures;
        let anchored = state.anchored.as_ref().map_or(0, |anchored| anchored.size);
        if self.turn(name, |turn, now, every| turn.failed(now, every, failures)) {
            let kind = self.anchors.get(name).map_or("", |anchor| kind(&anchor.config.place));
            let (anchor, error) = (name.to_owned(), error.to_owned());
            self.news.push(Told::Failing { anchor, kind, error, failures, anchored });
        }
    }

    fn turn(&mut self, name: &str, change: impl FnOnce(&mut Turn, u64, u64) -> bool) -> bool {
        let (now, every) = (clock::now().mono_ns, self.config.interval_ns);
        self.anchors.get_mut(name).is_some_and(|anchor| change(&mut anchor.turn, now, every))
    }

    fn publish(&self) {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = self.states.clone();
    }
}

/// As in events.
const fn kind(place: &AnchorPlace) -> &'static str {
    match place {
        AnchorPlace::File { .. } => "file",
        AnchorPlace::Http { .. } => "http",
        AnchorPlace::Witness { .. } => "witness",
    }
}

/// Names a place.
fn place_id(place: &AnchorPlace) -> String {
    match place {
        AnchorPlace::File { path, .. } => format!("file {}", path.display()),
        AnchorPlace::Http { url, .. } => format!("http {url}"),
        AnchorPlace::Witness { url, key } => format!("witness {} {url}", key.name()),
    }
}

/// Up to which size an anchor of the daemon with this state directory covers its log, as far as is remembered.
///
/// # Errors
///
/// When it cannot be read.
pub fn covered(state_dir: &Path, origin: &str) -> Result<Option<u64>> {
    let states = Memory::in_state(state_dir).load().context("reading what was anchored")?;
    Ok(state::covered(&states, origin))
}

/// Where the latest checkpoint of an anchor is kept.
#[must_use]
pub fn kept_checkpoint(state_dir: &Path, anchor: &str) -> PathBuf {
    Memory::in_state(state_dir).kept(anchor)
}
