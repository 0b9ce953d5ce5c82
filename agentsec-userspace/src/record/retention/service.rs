//! The thread that keeps the log within its bounds. Nobody waits for it.

use super::intent::{Intent, accounted_for};
use super::plan::{Plan, plan};
use super::seal::{Total, sealed};
use super::{remove, ship::Store};
use crate::clock;
use crate::config::LogConfig;
use crate::config::log::Destination;
use crate::core::draft::{Draft, EventKind};
use crate::core::time::Time;
use crate::record::anchor::consistent::{Newest, newest};
use crate::record::anchor::service::covered;
use crate::record::evidence::files::{REMOVED_NAME, removed_before};
use crate::record::evidence::source::log_directory;
use crate::record::evidence::tiles::{TILE_WIDTH, TileStore};
use crate::record::evidence::{EvidenceSource, key};
use crate::whole_file;
use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// What is about to go, in the state directory.
pub const INTENT_NAME: &str = "retention.json";
/// How often it is looked whether its event is in the log.
const WAIT: Duration = Duration::from_secs(5);
/// After this long the event is told again.
const TELL_AGAIN_NS: u64 = 600_000_000_000;
/// A failure that goes on is told again so often.
const FAIL_AGAIN_NS: u64 = 3_600_000_000_000;

/// Something for the daemon to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Entries will go once this is in the log.
    Going(Intent),
    /// Retention does not work.
    Failing(String),
}

impl Told {
    /// The event.
    #[must_use]
    pub fn draft(&self, at: Time) -> Draft {
        match self {
            Self::Going(intent) => intent.draft(at),
            Self::Failing(error) => {
                Draft::daemon(at, EventKind::Alert, json!({ "what": "retention_failing", "error": error }))
            }
        }
    }
}

/// Takes what is told, from retention's thread.
pub type Tell = Box<dyn Fn(Told) + Send>;

/// The running retention.
#[derive(Debug)]
pub struct Retention {
    orders: mpsc::UnboundedSender<LogConfig>,
    thread: Option<JoinHandle<()>>,
}

impl Retention {
    /// Keeps the log of the daemon with this state directory within its bounds from now on.
    ///
    /// # Errors
    ///
    /// When there is no thread for it. What fails later is told.
    pub fn start(config: LogConfig, state_dir: &Path, tell: Tell) -> io::Result<Self> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let keeper = Keeper::new(state_dir, config);
        let work = move || {
            runtime.block_on(run(keeper, inbox, tell));
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("retention".into()).spawn(work)?;
        Ok(Self { orders, thread: Some(thread) })
    }

    /// Takes a new configuration.
    pub fn reconfigure(&self, config: LogConfig) {
        // It fails only when the thread has gone.
        let _ = self.orders.send(config);
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        self.orders = mpsc::unbounded_channel().0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(mut keeper: Keeper, mut inbox: mpsc::UnboundedReceiver<LogConfig>, tell: Tell) {
    let mut failure_told: Option<u64> = None;
    loop {
        let wait = tokio::select! {
            biased;
            order = inbox.recv() => match order {
                Some(config) => { keeper.config = config; continue }
                None => return,
            },
            done = keeper.step(clock::now()) => match done {
                Ok(Done::Told(intent)) => {
                    failure_told = None;
                    tell(Told::Going(intent));
                    WAIT
                }
                Ok(Done::Waiting) => WAIT,
                Ok(Done::Removed) => Duration::ZERO,
                Ok(Done::Nothing) => {
                    failure_told = None;
                    Duration::from_nanos(keeper.config.retention.interval_ns)
                }
                Err(error) => {
                    let now = clock::now().mono_ns;
                    if failure_told.is_none_or(|told| now >= told + FAIL_AGAIN_NS) {
                        failure_told = Some(now);
                        tell(Told::Failing(format!("{error:#}")));
                    }
                    Duration::from_nanos(keeper.config.retention.interval_ns)
                }
            },
        };
        tokio::select! {
            biased;
            order = inbox.recv() => match order {
                Some(config) => keeper.config = config,
                None => return,
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What one step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// There is nothing to do.
    Nothing,
    /// This is about to go, and has to be recorded.
    Told(Intent),
    /// It is not recorded yet.
    Waiting,
    /// It is gone.
    Removed,
}

/// Does the work, step by step; what it knows is on the disk.
pub(super) struct Keeper {
    state_dir: PathBuf,
    store: TileStore,
    pub config: LogConfig,
    /// When the intent was told, on the monotonic clock.
    told_ns: Option<u64>,
}

impl Keeper {
    pub fn new(state_dir: &Path, config: LogConfig) -> Self {
        let store = TileStore::new(&log_directory(state_dir));
        Self { state_dir: state_dir.to_owned(), store, config, told_ns: None }
    }

    /// The next thing to be done.
    pub async fn step(&mut self, now: Time) -> Result<Done> {
        let Some(newest) = newest(&self.store)? else { return Ok(Done::Nothing) };
        self.sweep()?;
        match self.intent()?.filter(|intent| intent.origin == newest.checkpoint.origin) {
            Some(intent) => self.go_on(now, intent, &newest),
            None => self.begin(now, &newest).await,
        }
    }

    /// Unlinks what a crash has left before `removed`, if the log's events say as well that it goes: a file is easily changed.
    fn sweep(&self) -> Result<()> {
        let to = removed_before(&self.store)?;
        let steps = remove::steps(&self.store, to)?;
        if steps.is_empty() {
            return Ok(());
        }
        let source = EvidenceSource::in_state(&self.state_dir);
        let accounted = accounted_for(&source).context("looking for the events of retention")?;
        ensure!(
            to <= accounted,
            "{REMOVED_NAME} says that entries before {to} have gone, and events account for those before {accounted} only; \
             nothing is removed"
        );
        steps.into_iter().try_for_each(|step| remove::take(&self.store, step))
    }

    fn go_on(&mut self, now: Time, intent: Intent, newest: &Newest) -> Result<Done> {
        let source = EvidenceSource::in_state(&self.state_dir);
        if intent.is_recorded(&source, &newest.checkpoint).context("looking for the event")? {
            for step in remove::steps(&self.store, intent.to)? {
                remove::take(&self.store, step)?;
            }
            self.forget()?;
            return Ok(Done::Removed);
        }
        // After a start it is not known whether it was told: twice does no harm.
        if self.told_ns.is_none_or(|told| now.mono_ns >= told + TELL_AGAIN_NS) {
            self.told_ns = Some(now.mono_ns);
            return Ok(Done::Told(intent));
        }
        Ok(Done::Waiting)
    }

    /// Up to which entry everything is covered that has to be.
    fn covered(&self, newest: &Newest) -> Result<u64> {
        let signed = newest.checkpoint.size;
        if self.config.anchors.anchors.is_empty() {
            return Ok(signed);
        }
        let anchored = covered(&self.state_dir, &newest.checkpoint.origin)?;
        Ok(anchored.unwrap_or(0).min(signed))
    }

    /// What may go now.
    pub fn plan(&self, now: Time, newest: &Newest) -> Result<Plan> {
        plan(&self.store, self.config.retention.keep, self.covered(newest)?, now.wall_ns / 1_000_000)
    }

    async fn begin(&mut self, now: Time, newest: &Newest) -> Result<Done> {
        let plan = self.plan(now, newest)?;
        if plan.is_empty() {
            return Ok(Done::Nothing);
        }
        let origin = &newest.checkpoint.origin;
        let retention = &self.config.retention;
        let destination = match &retention.ship_to {
            Some(to) => Some((Store::open(to, Duration::from_nanos(retention.timeout_ns))?, name_of(to))),
            None => None,
        };
        let (mut total, mut bytes) = (Total::default(), 0);
        for index in plan.removed_before / TILE_WIDTH..plan.cut / TILE_WIDTH {
            let bundle = sealed(&self.store, index, newest)?;
            if let Some((store, _)) = &destination {
                store.ship(origin, index, &bundle).await?;
            }
            total.add(&bundle);
            bytes += bundle.len() as u64;
        }
        if let Some((store, _)) = &destination {
            // What the archive is checked with.
            let key = fs::read(self.store.root().join(key::PUBLIC_NAME)).context("reading the public key")?;
            store.ship_file(origin, key::PUBLIC_NAME, &key).await?;
            let name = format!("checkpoint.{}", newest.checkpoint.size);
            store.ship_file(origin, &name, newest.signed.as_bytes()).await?;
        }
        let intent = Intent {
            id: uuid::Uuid::now_v7().to_string(),
            origin: origin.clone(),
            from: plan.removed_before,
            to: plan.cut,
            bytes,
            sha256: total.hex(),
            shipped_to: destination.map(|(_, name)| name),
            checkpoint: newest.checkpoint.size,
            look_from: newest.checkpoint.size,
        };
        self.remember(&intent)?;
        self.told_ns = Some(now.mono_ns);
        Ok(Done::Told(intent))
    }

    fn path(&self) -> PathBuf {
        self.state_dir.join(INTENT_NAME)
    }

    fn intent(&self) -> Result<Option<Intent>> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        // One that is damaged is planned anew: nothing was removed for it.
        Ok(serde_json::from_slice(&bytes).ok())
    }

    fn remember(&self, intent: &Intent) -> Result<()> {
        let path = self.path();
        let written = serde_json::to_vec_pretty(intent)
            .map_err(io::Error::from)
            .and_then(|bytes| whole_file::replace(&path, &bytes));
        written.with_context(|| format!("writing {}", path.display()))
    }

    fn forget(&mut self) -> Result<()> {
        self.told_ns = None;
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.path().display()))
            }
            _ => Ok(()),
        }
    }
}

/// What the daemon with this state directory and configuration would let go now. Nothing is changed.
///
/// # Errors
///
/// When there is no log, or it cannot be read.
pub fn dry_run(state_dir: &Path, config: &LogConfig, now: Time) -> Result<Plan> {
    let keeper = Keeper::new(state_dir, config.clone());
    let newest = newest(&keeper.store)?.ok_or_else(|| anyhow!("the log has no checkpoint yet"))?;
    keeper.plan(now, &newest)
}

/// As events name it.
fn name_of(to: &Destination) -> String {
    match to {
        Destination::Directory(path) => path.display().to_string(),
        Destination::S3(config) => format!("s3://{}/{}", config.bucket, config.prefix),
    }
}
