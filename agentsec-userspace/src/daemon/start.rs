//! Starting: take over what an earlier daemon left, make known what is configured, attach.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use agentsec_common::gate::state_in_force;
use agentsec_common::policy::State;
use anyhow::{Context, Result};
use serde_json::json;

use crate::clock;
use crate::config::Config;
use crate::core::{Draft, Engine, EventKind};
use crate::kernel::pins::Pins;
use crate::kernel::{Capacities, Kernel};
use crate::record::entries::JsonLinesSource;
use crate::record::event::UuidV7;
use crate::record::index::{Files, Keeper};
use crate::record::{Journal, JsonLines, Sealer};

use super::attach::cgroups::Cgroups;
use super::flows::Flows;
use super::networks::Networks;
use super::reload::install_profiles;
use super::roster::Roster;
use super::state::StateFile;
use super::{Daemon, EVENTS_NAME, RunOptions};

impl Daemon {
    /// Loads or takes over, and puts the configuration into force.
    ///
    /// # Errors
    ///
    /// When something needed cannot be had; what was in force stays in force.
    pub(super) fn start(options: RunOptions, config: Config) -> Result<Self> {
        make_directory(&options.state_dir)?;
        let boot_id = clock::boot_id();
        let started = clock::now();
        let pins = Pins::new(&options.pin_path);
        // The pins' lock also keeps a second daemon from the files.
        let mut kernel = Kernel::open(&pins, &capacities(&config))?;
        let state = StateFile::open(&options.state_dir)?;
        let log = JsonLines::open(&options.state_dir.join(EVENTS_NAME))
            .with_context(|| format!("cannot open the events in {}", options.state_dir.display()))?;
        let sealer = Sealer::new(host_name(), boot_id.clone(), Box::<UuidV7>::default());
        let rows = install_profiles(&mut kernel, &config, None)?;
        let taken = kernel.links.take_over()?;
        let mut daemon = Self {
            engine: Engine::new(config.guard),
            journal: Journal::new(log, sealer, started),
            state,
            roster: Roster::default(),
            rows,
            events_written: 0,
            alerts: Vec::new(),
            cgroups: Cgroups::default(),
            networks: Networks::default(),
            flows: Flows::default(),
            recent: BTreeMap::new(),
            samples: super::Samples::default(),
            recorders: super::Recorders::start(&options, host_name()),
            recovery: None,
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
        daemon.say_started();
        daemon.say_loaded("start");
        daemon.adopt_pinned()?;
        daemon.adopt_links(&taken)?;
        daemon.keep_recordings_at_start();
        daemon.add_configured()?;
        daemon.reconcile();
        daemon.tick();
        daemon.save();
        Ok(daemon)
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
    let source = JsonLinesSource::new(&state_dir.join(EVENTS_NAME));
    Keeper::start(Files::in_state(state_dir), Box::new(source)).ok()
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

fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
