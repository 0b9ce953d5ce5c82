//! What rings when places come and go.

use anyhow::Result;

use crate::config::Config;
use crate::core::Time;
use crate::kernel::cgroups::{Coverage, Tree, Watch};
use crate::kernel::interfaces::Bell;

/// Between two looks at cgroups of which not all can be watched.
const DEAF_NS: u64 = 1_000_000_000;

/// The bells. What has changed is found by listing again, so a lost ring means nothing.
pub(super) struct Bells {
    interfaces: Bell,
    /// None when no agent is known by its cgroup.
    cgroups: Option<Watch>,
    looked_ns: u64,
}

/// Which one has rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    /// Interfaces have changed.
    Interfaces,
    /// Cgroups have come or gone.
    Cgroups,
}

impl Bells {
    /// Hangs them up: what appears from now on rings.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let mut bells = Self { interfaces: Bell::new()?, cgroups: None, looked_ns: 0 };
        bells.hear_cgroups(config)?;
        Ok(bells)
    }

    /// Listens for cgroups from now on, if an agent is known by its own. True when it has just begun to.
    pub(super) fn hear_cgroups(&mut self, config: &Config) -> Result<bool> {
        if self.cgroups.is_some() || !config.has_cgroups() {
            return Ok(false);
        }
        self.cgroups = Some(Watch::new(&Tree::find()?)?);
        Ok(true)
    }

    /// Waits for any of them.
    pub(super) async fn ring(&mut self) -> Result<Rung> {
        let Some(watch) = &mut self.cgroups else {
            return self.interfaces.ring().await.map(|()| Rung::Interfaces);
        };
        tokio::select! {
            rung = self.interfaces.ring() => rung.map(|()| Rung::Interfaces),
            rung = watch.ring() => rung.map(|()| Rung::Cgroups),
        }
    }

    /// Whether cgroups have to be looked at without having rung, because the kernel does not let all be watched.
    /// At most once a second.
    pub(super) fn is_deaf(&mut self, now: Time) -> bool {
        let Some(watch) = &mut self.cgroups else { return false };
        if watch.coverage() == Coverage::Whole || now.mono_ns.saturating_sub(self.looked_ns) < DEAF_NS {
            return false;
        }
        self.looked_ns = now.mono_ns;
        // One that cannot be read now is read the next time.
        drop(watch.look_again());
        true
    }
}
