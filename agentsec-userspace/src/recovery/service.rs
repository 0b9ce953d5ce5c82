//! Recovery beside the daemon's loop: threads of its own that do the slow work, and what operators ask of it.
//!
//! The loop publishes a [`World`] now and then and takes what is [`Told`]; it never waits for anything here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use agentsec_common::policy::State;
use tokio::sync::mpsc;

use crate::api::views::recovery::Restored;
use crate::bundle::Gate;
use crate::clock;
use crate::core::EventKind;
use crate::record::evidence::EvidenceSource;
use crate::record::index::Files;

use super::catalogue::Record;
use super::error::{Failure, Kind};
use super::jobs::{Job, Jobs, Standing, Work};
use super::moment::Moment;
use super::plan::{self, Known, Plan};
use super::progress::Progress;
use super::schedule::Turn;
use super::suspicion;
use super::testimony::{Attested, Testimony};
use super::world::{Told, World};
use super::{automatic, bring_back, memory, store, tiers, work};

/// The most that the daemon's end waits for what is cancelled.
const ENDING: Duration = Duration::from_secs(2);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The daemon's state directory.
    pub state_dir: PathBuf,
    /// Evidence that is being collected, which stopping an agent would destroy.
    pub evidence: Gate,
    /// Where the tree of cgroups is mounted, if it is.
    pub cgroups: Option<PathBuf>,
}

/// A snapshot with what is to be known of it before it is chosen.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The snapshot.
    pub record: Record,
    /// Where it lies, the nearest first.
    pub tiers: Vec<&'static str>,
    /// Whether the log says that it is ours.
    pub attested: Attested,
}

/// What all threads share.
#[derive(Debug)]
pub struct Shared {
    pub(super) paths: Paths,
    pub(super) boot_id: String,
    pub(super) world: Mutex<Arc<World>>,
    pub(super) jobs: Mutex<Jobs>,
    pub(super) turns: Mutex<BTreeMap<String, Turn>>,
    told: mpsc::UnboundedSender<Told>,
}

/// Recovery, for the daemon and the API.
#[derive(Clone, Debug)]
pub struct Service {
    shared: Arc<Shared>,
}

/// A lock whose holder has failed holds what it held: each change is one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Starts: what an earlier daemon left frozen or half done is taken up, then the automatic loop begins.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn start(paths: Paths, world: World) -> std::io::Result<(Self, mpsc::UnboundedReceiver<Told>)> {
        let (told, heard) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            paths,
            boot_id: clock::boot_id(),
            world: Mutex::new(Arc::new(world)),
            jobs: Mutex::default(),
            turns: Mutex::default(),
            told,
        });
        let service = Self { shared };
        service.take_up();
        let looped = service.clone();
        thread::Builder::new().name("recovery".into()).spawn(move || automatic::run(&looped))?;
        Ok((service, heard))
    }

    /// Says how the agents are now.
    pub fn publish(&self, world: World) {
        *lock(&self.shared.world) = Arc::new(world);
    }

    /// Cancels what is running, and waits a moment for it, so that nobody stays frozen. A recovery is not undone on the
    /// way out, which would be another race against the end: the next daemon takes it up as if this one had been killed.
    pub fn stop(&self) {
        let started = Instant::now();
        while lock(&self.shared.jobs).cancel() > 0 && started.elapsed() < ENDING {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How the agents are.
    #[must_use]
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&lock(&self.shared.world))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Takes a snapshot of an agent and everybody whom it depends on, and verifies it.
    ///
    /// # Errors
    ///
    /// When it is not recoverable or busy.
    pub fn create(&self, agent: &str, by: &str, automated: bool) -> Result<Job, Failure> {
        let world = self.world();
        world.agent(agent)?;
        let group = plan::order(agent, &world.dependencies()).map_err(no_plan)?;
        let (name, by) = (agent.to_owned(), by.to_owned());
        self.spawn(agent, Work::Create, group.clone(), move |task| {
            work::create(task, &name, &group, &by, automated)
        })
    }

    /// Reads a snapshot again.
    ///
    /// # Errors
    ///
    /// When there is no such snapshot or its agent is busy.
    pub fn verify(&self, agent: &str, id: &str, by: &str) -> Result<Job, Failure> {
        let id = self.world().store(agent, &self.shared.paths.state_dir)?.catalogue()?.find(id)?.id.clone();
        let (name, by) = (agent.to_owned(), by.to_owned());
        self.spawn(agent, Work::Verify, vec![agent.to_owned()], move |task| {
            work::verify(task, &name, &id, &by, false)
                .map(|record| serde_json::to_value(record).unwrap_or_default())
        })
    }

    /// Brings an agent back, with everybody whom it depends on.
    ///
    /// # Errors
    ///
    /// When no snapshot will do, or it is being brought back already.
    pub fn recover(
        &self,
        agent: &str,
        wanted: Option<&str>,
        by: &str,
        automated: bool,
    ) -> Result<Job, Failure> {
        let plan = self.plan(agent, wanted)?;
        let incident = self.world().agent(agent)?.incident.clone();
        let group: Vec<String> = plan.steps.iter().map(|step| step.agent.clone()).collect();
        let since = group.iter().filter_map(|name| self.suspicious_since(name)).reduce(Moment::or_earlier);
        let progress = Progress {
            agent: agent.to_owned(),
            plan,
            since,
            by: by.to_owned(),
            automated,
            incident,
            ..Progress::default()
        };
        self.spawn(agent, Work::Recover, group, move |task| bring_back::recover(task, progress))
    }

    /// What `recover` would do.
    ///
    /// # Errors
    ///
    /// When no snapshot will do, or one of the group could not be stopped or its state not be put in place.
    pub fn plan(&self, agent: &str, wanted: Option<&str>) -> Result<Plan, Failure> {
        let world = self.world();
        world.agent(agent)?;
        let group = plan::order(agent, &world.dependencies()).map_err(no_plan)?;
        let mut known = Known { dependencies: world.dependencies(), ..Known::default() };
        for name in &group {
            let records = world.store(name, &self.shared.paths.state_dir)?.catalogue()?.records;
            let testimony = self.testimony(name, &records);
            known.attested.extend(records.iter().map(|record| (record.id.clone(), testimony.of(record))));
            known.records.insert(name.clone(), records);
            if let Some(since) = self.suspicious_since(name) {
                known.suspicious.insert(name.clone(), since);
            }
        }
        let mut plan = plan::plan(&known, agent, wanted).map_err(no_plan)?;
        plan.warnings.extend(plan::left_out(&plan, &known.dependencies));
        for step in &plan.steps {
            if world.agent(&step.agent)?.hold {
                plan.warnings.push(format!("`{}` is held by an operator, and will be let out", step.agent));
            }
            let (state_dir, cgroups) = (&self.shared.paths.state_dir, self.shared.cgroups());
            world.subject(&step.agent, state_dir, cgroups)?.check(&step.agent)?;
        }
        Ok(plan)
    }

    /// What the log says of an agent's snapshots.
    pub(super) fn testimony(&self, agent: &str, records: &[Record]) -> Testimony {
        let (log, index) = self.log();
        Testimony::read(&log, &index, agent, records)
    }

    fn log(&self) -> (EvidenceSource, Files) {
        let state_dir = &self.shared.paths.state_dir;
        (EvidenceSource::in_state(state_dir), Files::in_state(state_dir))
    }

    /// When an agent with an incident became suspicious.
    #[must_use]
    pub fn suspicious_since(&self, agent: &str) -> Option<Moment> {
        let world = self.world();
        let now = world.agents.get(agent)?;
        let Some(incident) = &now.incident else {
            // Dropped already, and the daemon is still writing down why.
            let is_open = now.state == State::Open;
            return is_open.then(|| self.shared.now().earlier(world.common.lookback_ns));
        };
        let trip_ns = now.tripped_ns.unwrap_or_else(|| clock::now().wall_ns);
        let (log, index) = self.log();
        let lookback_ns = world.common.lookback_ns;
        let first = suspicion::first((&log, &index), agent, incident, trip_ns, lookback_ns);
        // Without a log it is the trip, with the lookback for safety.
        Some(first.unwrap_or_else(|_| Moment::wall(trip_ns).earlier(lookback_ns)))
    }

    /// An agent's snapshots, oldest first, with what is to be known of each.
    ///
    /// # Errors
    ///
    /// When it is not recoverable or its catalogue is spoilt.
    pub fn snapshots(&self, agent: &str) -> Result<Vec<Offer>, Failure> {
        let store = self.world().store(agent, &self.shared.paths.state_dir)?;
        let records = store.catalogue()?.records;
        let testimony = self.testimony(agent, &records);
        let offer = |record: Record| Offer {
            tiers: store.tiers_of(&record),
            attested: testimony.of(&record),
            record,
        };
        Ok(records.into_iter().map(offer).collect())
    }

    /// Where every agent's snapshots lie and how much they take.
    ///
    /// # Errors
    ///
    /// When the environment file cannot be used.
    pub fn tiers(&self) -> Result<BTreeMap<String, Vec<tiers::Tier>>, Failure> {
        let world = self.world();
        let of = |agent: &String| {
            Ok((agent.clone(), tiers::of(&world.store(agent, &self.shared.paths.state_dir)?)))
        };
        world.agents.keys().map(of).collect()
    }

    /// How new every agent's snapshots are; of whom the catalogue is spoilt, as if there were none. Asks no repository.
    ///
    /// # Errors
    ///
    /// When the environment file cannot be used.
    pub fn freshness(&self) -> Result<BTreeMap<String, tiers::Freshness>, Failure> {
        let world = self.world();
        let of = |agent: &String| {
            let store = world.store(agent, &self.shared.paths.state_dir)?;
            let records = store.catalogue().map(|catalogue| catalogue.records).unwrap_or_default();
            Ok((agent.clone(), tiers::Freshness::of(records.iter())))
        };
        world.agents.keys().map(of).collect()
    }

    /// Keeps state that an agent hands over, for its next snapshot.
    ///
    /// # Errors
    ///
    /// When it hands over none, or too much.
    pub fn hand_over(&self, agent: &str, state: &[u8]) -> Result<(), Failure> {
        self.world().store(agent, &self.shared.paths.state_dir)?.hand_over(state)
    }

    /// Records that somebody has restored a snapshot beside the daemon.
    ///
    /// # Errors
    ///
    /// When there is no such snapshot.
    pub fn tell_restored(&self, agent: &str, id: &str, by: &str, what: &Restored) -> Result<(), Failure> {
        let store = self.world().store(agent, &self.shared.paths.state_dir)?;
        let id = store.catalogue()?.find(id)?.id.clone();
        let data = serde_json::json!({
            "action": "restored",
            "snapshot": id,
            "to": what.to,
            "read_from": what.read_from,
            "succeeded": what.error.is_none(),
            "error": what.error,
            "by": by,
        });
        self.shared.tell(Told::Event { agent: agent.to_owned(), kind: EventKind::Snapshot, data });
        Ok(())
    }

    /// A job.
    #[must_use]
    pub fn job(&self, number: u64) -> Option<Job> {
        lock(&self.shared.jobs).get(number)
    }

    /// Whether anything is being done for an agent.
    #[must_use]
    pub fn is_busy(&self, agent: &str) -> bool {
        lock(&self.shared.jobs).is_busy(agent)
    }

    /// What an earlier daemon had frozen, or had begun.
    fn take_up(&self) {
        let home = store::home(&self.shared.paths.state_dir);
        let agents = std::fs::read_dir(home.join("agents")).into_iter().flatten().flatten();
        for agent in agents {
            super::freeze::thaw_left(&agent.path().join("frozen"));
        }
        let world = self.world();
        if let Some(memory) = &world.memory {
            let is_off = world.common.memory_bytes.is_none();
            memory::sweep(memory, world.agents.keys().map(String::as_str).filter(|_| !is_off));
        }
        for left in Progress::left(&home) {
            let taken = left.and_then(|progress| {
                let group = progress.plan.steps.iter().map(|step| step.agent.clone()).collect();
                let agent = progress.agent.clone();
                self.spawn(&agent, Work::Recover, group, move |task| bring_back::resume(task, progress))
            });
            if let Err(failure) = taken {
                let data = serde_json::json!({ "what": "recovery_not_taken_up", "error": failure.message });
                self.shared.tell_alert("", data);
            }
        }
    }

    fn spawn(
        &self,
        agent: &str,
        work: Work,
        group: Vec<String>,
        run: impl FnOnce(&Task) -> Result<serde_json::Value, Failure> + Send + 'static,
    ) -> Result<Job, Failure> {
        let (number, cancel) = lock(&self.shared.jobs).begin(agent, work, group.into_iter().collect())?;
        let task = Task { service: self.clone(), number, cancel };
        let started = thread::Builder::new().name(format!("recovery-{number}")).spawn(move || {
            while lock(&task.service.shared.jobs).must_wait(number) {
                // What was cancelled for it ends within a moment.
                thread::sleep(Duration::from_millis(10));
            }
            let result = run(&task);
            lock(&task.service.shared.jobs).update(number, |job| match result {
                Ok(value) => (job.standing, job.result) = (Standing::Done, value),
                Err(failure) => (job.standing, job.message) = (Standing::Failed, failure.message),
            });
        });
        if let Err(error) = started {
            lock(&self.shared.jobs).update(number, |job| job.standing = Standing::Failed);
            return Err(Failure::io("starting a thread")(error));
        }
        let unknown = || Failure::new(Kind::Other, "the job is gone");
        self.job(number).ok_or_else(unknown)
    }
}

impl Shared {
    pub(super) fn now(&self) -> Moment {
        Moment::new(clock::now(), &self.boot_id)
    }

    pub(super) fn cgroups(&self) -> Option<&Path> {
        self.paths.cgroups.as_deref()
    }

    /// Tells the daemon's loop. One that is gone records nothing any more.
    pub(super) fn tell(&self, told: Told) {
        let _ = self.told.send(told);
    }

    /// Whether the daemon's loop has taken all that it was told. It is gone when the daemon ends.
    pub(super) fn is_heard(&self) -> bool {
        let (heard, wait) = std::sync::mpsc::channel();
        self.tell(Told::Heard(heard));
        wait.recv().is_ok()
    }

    pub(super) fn tell_alert(&self, agent: &str, data: serde_json::Value) {
        self.tell(Told::Event { agent: agent.to_owned(), kind: EventKind::Alert, data });
    }
}

/// A job at work.
pub(super) struct Task {
    pub service: Service,
    pub number: u64,
    pub cancel: super::child::Cancel,
}

impl Task {
    /// Says what is being done now.
    pub fn say(&self, message: impl Into<String>) {
        let message = message.into();
        lock(&self.service.shared.jobs).update(self.number, |job| {
            (job.message, job.done_bytes, job.all_bytes) = (message, 0, 0);
        });
    }

    /// Says how far the current step is.
    pub fn progress(&self, done: u64, all: u64) {
        lock(&self.service.shared.jobs)
            .update(self.number, |job| (job.done_bytes, job.all_bytes) = (done, all));
    }
}

fn no_plan(error: plan::NoPlan) -> Failure {
    Failure::new(Kind::NoSnapshot, error.to_string())
}
