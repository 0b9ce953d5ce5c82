//! The daemon: the only place that sees the kernel, the core, the record and the API.
//!
//! One task owns everything and handles one thing at a time: a tick, a notice, a change of interfaces, an
//! operator's request. So nothing is locked, and what the core decides is carried out before the next input.

mod agents;
mod attach;
mod bells;
mod bundles;
mod clock_steps;
mod endpoint_views;
mod endpoints;
mod execute;
mod flows;
mod interactions;
mod networks;
mod observe;
mod operate;
mod outside;
mod recorder;
mod recovery;
mod reload;
mod report;
mod roster;
mod samples;
mod saver;
mod signals;
mod silence;
mod start;
mod state;
mod told;
mod views;

use std::collections::BTreeMap;
use std::time::Duration;

use agentsec_common::agent::Slot;
use agentsec_common::notice::{Notice, NoticeKind};
use anyhow::{Context, Result};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use crate::api::{Request, Server};
pub use crate::cli::RunOptions;
use crate::clock;
use crate::config::Config;
use crate::core::recent::Recent;
use crate::core::{Draft, Engine, EventKind, Input, Time};
use crate::kernel::Kernel;
use crate::record::evidence::EvidenceSource;
use crate::record::writer::Told as Written;
use crate::record::{Writer, index};
use crate::recovery::{Service, Told};

use agents::Row;
use attach::cgroups::Cgroups;
use bells::{Bells, Rung};
use bundles::Bundles;
use clock_steps::ClockSteps;
use flows::Flows;
use interactions::Interactions;
use networks::Networks;
use recorder::Recorders;
use roster::Roster;
use samples::Samples;
use silence::Silence;
use state::StateFile;

/// How often filters are looked for whose removal the bell may have missed, nanoseconds.
const REPAIR_NS: u64 = 5_000_000_000;

/// The most that each file is waited for when the daemon stops.
const LAST_SAVE: Duration = Duration::from_secs(10);

/// Notices handled before anything else gets its turn.
const NOTICES_PER_TURN: usize = 256;
/// The same of samples.
const SAMPLES_PER_TURN: usize = 64;

/// Everything that the loop owns.
struct Daemon {
    options: RunOptions,
    config: Config,
    boot_id: String,
    started: Time,
    kernel: Kernel,
    engine: Engine,
    log: Writer,
    silence: Silence,
    clock_steps: ClockSteps,
    state: StateFile,
    roster: Roster,
    rows: BTreeMap<String, Row>,
    alerts: Vec<String>,
    cgroups: Cgroups,
    networks: Networks,
    flows: Flows,
    recent: BTreeMap<Slot, Recent>,
    samples: Samples,
    interactions: Interactions,
    recorders: Recorders,
    recovery: Option<Service>,
    outside: outside::Outside,
    bundles: Bundles,
    /// Whether recovery has to hear at once how the agents are now.
    changed: bool,
    /// Keeps the index; `None` if there is no thread for it, and then the log is read instead.
    _index: Option<index::Keeper>,
    next_reclaim_ns: u64,
    next_ageing_ns: u64,
    next_repair_ns: u64,
}

/// Runs until told to stop by SIGTERM or SIGINT. Stopping leaves enforcement in place.
///
/// # Errors
///
/// When it cannot start; nothing is changed then. Once started it goes on whatever fails.
pub fn run(options: RunOptions, config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // The bells first: what appears while we start rings.
        let bells = Bells::new(&config)?;
        let (requests, inbox) = mpsc::channel(64);
        let (mut daemon, written) = Daemon::start(options, config)?;
        daemon.start_bundles();
        let told = daemon.start_recovery();
        let drafts = daemon.start_outside();
        let server = daemon.serve(requests)?;
        let stopped = daemon.work(bells, inbox, told, drafts, written).await;
        server.stop().await;
        daemon.stop();
        stopped
    })
}

/// When to read the words.
fn ticks(config: &Config) -> Interval {
    let mut ticks = tokio::time::interval(interval(config));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn interval(config: &Config) -> Duration {
    Duration::from_nanos(config.daemon.interval_ns)
}

impl Daemon {
    async fn work(
        &mut self,
        mut bells: Bells,
        mut inbox: mpsc::Receiver<Request>,
        mut told: mpsc::UnboundedReceiver<Told>,
        mut drafts: mpsc::UnboundedReceiver<Draft>,
        mut written: mpsc::UnboundedReceiver<Written>,
    ) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        let mut tick = ticks(&self.config);
        let ring = self.kernel.notices.watch()?;
        let samples = self.kernel.samples.watch()?;
        let flows = self.kernel.flows.watch()?;
        loop {
            tokio::select! {
                biased;
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                // What is wrong is in the events and in `status`.
                _ = hangup.recv() => drop(self.reload("SIGHUP")),
                ready = ring.readable() => {
                    let mut ready = ready.context("watching the ring of notices")?;
                    if self.take_notices() {
                        ready.clear_ready();
                    }
                    // Under a flood of notices everything else still gets its turn.
                    tokio::task::yield_now().await;
                    self.answer_waiting(&mut inbox);
                }
                Some(written) = written.recv() => self.hear_log(written),
                request = inbox.recv() => match request {
                    Some(request) => self.answer(request),
                    None => return Ok(()),
                },
                Some(told) = told.recv() => self.hear(told),
                Some(draft) = drafts.recv() => self.record(clock::now(), draft),
                told = self.bundles.told() => self.hear_bundle(told),
                rung = bells.ring() => {
                    self.networks.ring();
                    match rung? {
                        Rung::Interfaces => self.reconcile(),
                        Rung::Cgroups => self.reconcile_cgroups(),
                    }
                }
                _ = tick.tick() => {
                    self.tick();
                    if bells.is_deaf(clock::now()) {
                        self.reconcile_cgroups();
                    }
                }
                // Only when the ring is half full; else they are read with each tick.
                ready = flows.readable() => {
                    let mut ready = ready.context("watching the ring of connections")?;
                    if self.take_flows() {
                        ready.clear_ready();
                    }
                }
                // Last: under a flood of samples everything else gets its turn.
                ready = samples.readable() => {
                    let mut ready = ready.context("watching the ring of samples")?;
                    if self.take_samples() {
                        ready.clear_ready();
                    }
                }
            }
            if tick.period() != interval(&self.config) {
                tick = ticks(&self.config);
            }
            self.watch_more(&mut bells);
            self.order_bundles();
            if std::mem::take(&mut self.changed) {
                self.publish_recovery(clock::now());
            }
            self.save();
        }
    }

    /// Listens for cgroups once an agent is known by its own, which a new configuration may bring.
    fn watch_more(&mut self, bells: &mut Bells) {
        match bells.hear_cgroups(&self.config) {
            Ok(false) => {}
            Ok(true) => self.reconcile_cgroups(),
            Err(error) => self.complain("cgroups", &error),
        }
    }

    /// Reads the words, keeps deadlines, tries again what has failed.
    fn tick(&mut self) {
        let now = clock::now();
        self.take_flows();
        // First what only we see, so that it is judged with what the kernel does.
        self.keep_flows(now);
        let observations = self.observe_all(now);
        self.keep_times(now, &observations);
        self.handle(now, Input::Observed(observations));
        self.keep_interactions(now);
        self.tell_trouble("state", self.state.trouble());
        self.watch_log(now);
        self.watch_clock(now);
        self.keep_recorders(now);
        if now.mono_ns >= self.next_reclaim_ns {
            self.next_reclaim_ns = now.mono_ns + 1_000_000_000;
            // A profile that nobody has now may be that of the next agent that a pattern adopts.
            let configured = self.rows.values().map(|row| row.index);
            if let Err(error) = self.kernel.enforcer.reclaim_rows(configured, now.mono_ns) {
                self.complain("profile rows", &error);
            }
            self.retry_attachments();
            self.forget_released();
            self.publish_recovery(now);
            self.tend_bundles(now);
        }
        if now.mono_ns >= self.next_repair_ns {
            self.next_repair_ns = now.mono_ns + REPAIR_NS;
            self.repair_filters();
        }
        self.look_around(now);
        if now.mono_ns >= self.next_ageing_ns {
            self.age_endpoints(now);
        }
    }

    /// Handles waiting notices; true when there are none left.
    fn take_notices(&mut self) -> bool {
        for _ in 0..NOTICES_PER_TURN {
            let Some(notice) = self.kernel.notices.take() else { return true };
            self.notice(notice);
        }
        false
    }

    /// Takes waiting samples; true when there are none left.
    fn take_samples(&mut self) -> bool {
        for _ in 0..SAMPLES_PER_TURN {
            let Some(sample) = self.kernel.samples.take() else { return true };
            self.sample(&sample);
        }
        false
    }

    fn notice(&mut self, notice: Notice) {
        let now = clock::now();
        if NoticeKind::from_byte(notice.kind) == Some(NoticeKind::Trip) {
            // The ledger says all about a trip; its notice only says that it is time to look.
            let observations = self.observe(now, notice.slot).into_iter().collect();
            self.handle(now, Input::Observed(observations));
        } else {
            self.handle(now, Input::Notice(notice));
        }
    }

    fn answer_waiting(&mut self, inbox: &mut mpsc::Receiver<Request>) {
        while let Ok(request) = inbox.try_recv() {
            self.answer(request);
        }
    }

    /// Says that the daemon stops; enforcement stays.
    fn stop(&mut self) {
        if let Some(recovery) = &self.recovery {
            recovery.stop();
        }
        self.settle_bundles();
        let now = clock::now();
        self.finish_interactions(now);
        let data = json!({ "enforcement": "stays in place", "pin_path": self.options.pin_path });
        self.record(now, Draft::daemon(now, EventKind::DaemonStopped, data));
        self.state.touch();
        self.save();
        self.state.wait(LAST_SAVE);
        if !self.log.close() {
            eprintln!("agentsec: the log could not be ended in time; its next writer takes up what it finds");
        }
        // What waited for the log need not be told again by the next daemon.
        self.finish_bundles();
    }

    /// Something failed that the daemon lives with: operators see it in `status` and in the daemon's log.
    fn complain(&mut self, about: &str, error: &anyhow::Error) {
        let complaint = format!("{about}: {error:#}");
        if !self.alerts.contains(&complaint) {
            eprintln!("agentsec: {complaint}");
            self.alerts.push(complaint);
            if self.alerts.len() > 32 {
                self.alerts.remove(0);
            }
        }
    }
}

/// Serves the API for the daemon's loop.
impl Daemon {
    fn serve(&self, requests: mpsc::Sender<Request>) -> Result<Server> {
        use crate::api::peer::Guard;
        use crate::api::server::{SOCKET_NAME, ServerOptions};
        let guard = Guard::of_this_process().context("finding this process's namespaces")?;
        Server::spawn(ServerOptions {
            socket: self.options.run_dir.join(SOCKET_NAME),
            log: EvidenceSource::in_state(&self.options.state_dir),
            index: index::Files::in_state(&self.options.state_dir),
            guard,
            requests,
            recovery: self.recovery.clone(),
        })
    }
}
