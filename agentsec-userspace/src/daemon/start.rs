//! Starting: take over what an earlier daemon left, make known what is configured, attach.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use agentsec_common::gate::state_in_force;
use agentsec_common::policy::State;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::clock;
use crate::config::Config;
use crate::config::log::DeadLettersConfig;
use crate::core::{Draft, Engine, EventKind};
use crate::kernel::pins::Pins;
use crate::kernel::{Capacities, Kernel};
use crate::record::dead_letters::DeadLetters;
use crate::record::entries::EventSource;
use crate::record::event::UuidV7;
use crate::record::evidence::{EvidenceLog, EvidenceSource, LOG_NAME, Opened};
use crate::record::index::{Files, Keeper};
use crate::record::writer::Told as Written;
use crate::record::{Journal, Sealer, Writer};

use super::attach::cgroups::Cgroups;
use super::flows::Flows;
use super::interactions::Interactions;
use super::networks::Networks;
use super::reload::install_profiles;
use super::roster::Roster;
use super::state::StateFile;
use super::{Daemon, RunOptions, told};

impl Daemon {
    /// Loads or takes over, and puts the configuration into force.
    ///
    /// # Errors
    ///
    /// When something needed cannot be had; what was in force stays in force.
    pub(super) fn start(
        options: RunOptions,
        config: Config,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Written>)> {
        make_directory(&options.state_dir)?;
        let boot_id = clock::boot_id();
        let started = clock::now();
        let pins = Pins::new(&options.pin_path);
        // The pins' lock also keeps a second daemon from the files.
        let mut kernel = Kernel::open(&pins, &capacities(&config))?;
        let state = StateFile::open(&options.state_dir)?;
        let told_of = told::saver(&options.state_dir)?;
        let log = open_log(&options.state_dir, &config, &boot_id)
            .with_context(|| format!("cannot open the log in {}", options.state_dir.display()))?;
        let (amiss, no_second) = (log.amiss, log.no_second);
        let (log, written) = Writer::start(log.journal, clock::now).context("starting the log's thread")?;
        let rows = install_profiles(&mut kernel, &config, None)?;
        let taken = kernel.links.take_over()?;
        let mut daemon = Self {
            engine: Engine::new(config.guard),
            log,
            silence: super::Silence::new(started),
            clock_steps: super::ClockSteps::new(started),
            state,
            roster: Roster::default(),
            rows,
            alerts: Vec::new(),
            cgroups: Cgroups::default(),
            networks: Networks::default(),
            flows: Flows::default(),
            recent: BTreeMap::new(),
            samples: super::Samples::default(),
            interactions: Interactions::new(config.interactions.settings, told_of),
            recorders: super::Recorders::start(&options, host_name()),
            recovery: None,
            outside: super::outside::Outside::default(),
            bundles: super::Bundles::default(),
            changed: false,
            _index: keep_index(&options.state_dir),
            next_reclaim_ns: 0,
            next_ageing_ns: 0,
            next_repair_ns: 0,
            options,
            config,
            boot_id,
            started,
            kernel,
        };
        for data in amiss {
            daemon.record(started, Draft::daemon(started, EventKind::Loss, data));
        }
        daemon.say_started();
        if let Some(error) = no_second {
            let data = json!({ "what": "dead_letters_missing", "error": format!("{error:#}") });
            daemon.record(started, Draft::daemon(started, EventKind::Alert, data));
            daemon.complain("second path", &error);
        }
        daemon.say_loaded("start");
        daemon.remember_flows(started)?;
        daemon.adopt_pinned()?;
        daemon.adopt_links(&taken)?;
        daemon.keep_recordings_at_start();
        daemon.add_configured()?;
        daemon.reconcile();
        daemon.tick();
        daemon.save();
        Ok((daemon, written))
    }

    fn say_started(&mut self) {
        let now = self.started;
        let data = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "config": self.options.config,
            "pin_path": self.options.pin_path,
            "took_over": self.kernel.took_over,
            "agents": self.config.agents.len(),
            "profiles": self.config.profiles.len(),
        });
        self.record(now, Draft::daemon(now, EventKind::DaemonStarted, data));
    }

    /// Makes the agents in the pins known again. Who is no longer configured is let go, unless it is contained:
    /// a contained agent stays so until an operator releases it.
    fn adopt_pinned(&mut self) -> Result<()> {
        for (slot, id, pinned) in self.kernel.enforcer.agents()? {
            let trip_seq = self.kernel.collector.ledger(slot).trip_seq;
            let contained = pinned.is_some_and(|control| state_in_force(control, trip_seq) != State::Closed);
            if contained || self.config.agent_called(&id).is_some() {
                self.introduce(slot, &id, pinned);
            } else {
                self.let_go(slot)?;
            }
        }
        Ok(())
    }

    /// Makes the configured agents known that are not yet. Those of patterns come with their interfaces.
    pub(super) fn add_configured(&mut self) -> Result<()> {
        let is_exact = |name: &&String| !self.config.agents[*name].adopts();
        let names: Vec<String> = self.config.agents.keys().filter(is_exact).cloned().collect();
        for name in names {
            if self.roster.slot_of(&name).is_none() {
                let slot = self.assign(&name)?;
                self.introduce(slot, &name, None);
            }
        }
        Ok(())
    }
}

fn keep_index(state_dir: &Path) -> Option<Keeper> {
    Keeper::start(Files::in_state(state_dir), Box::new(EvidenceSource::in_state(state_dir))).ok()
}

/// The log, and what was found amiss in it.
struct Log {
    journal: Journal<EvidenceLog>,
    amiss: Vec<Value>,
    /// Why there is no second path, though one is configured.
    no_second: Option<anyhow::Error>,
}

fn open_log(state_dir: &Path, config: &Config, boot_id: &str) -> Result<Log> {
    let Opened { log, amiss } = EvidenceLog::open(&state_dir.join(LOG_NAME), &host_name())?;
    let open_letters = |second: &DeadLettersConfig| {
        let recent = |count: u64| {
            let source = EvidenceSource::in_state(state_dir);
            let first = source.size()?.saturating_sub(count);
            source.entries_from(first)?.map(|entry| entry.map(|(_, line)| line)).collect()
        };
        DeadLetters::open(&second.directory, second.most_bytes, recent)
    };
    let mut no_second = None;
    // Only the second path: without it there still is the first, and somebody who contains.
    let dead_letters = config.log.dead_letters.as_ref().and_then(|second| match open_letters(second) {
        Ok(letters) => Some(letters),
        Err(error) => {
            no_second = Some(error.context("log.dead_letters is not used"));
            None
        }
    });
    let sealer = Sealer::new(host_name(), boot_id.to_owned(), Box::<UuidV7>::default());
    Ok(Log { journal: Journal::new(log, sealer, dead_letters), amiss, no_second })
}

fn capacities(config: &Config) -> Capacities {
    Capacities {
        agents: config.daemon.max_agents,
        profiles: config.daemon.max_profiles,
        typical_prefixes: config.daemon.max_typical_prefixes,
        endpoints: config.daemon.max_endpoints,
        flows: config.daemon.max_flows,
        records: u32::try_from(config.recorder.records()).unwrap_or(u32::MAX),
    }
}

/// The state holds evidence: nobody else may read it.
fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

pub(super) fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
