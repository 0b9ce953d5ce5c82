//! What an operator has configured of a breaker.

use agentsec_common::policy::Mode;
use agentsec_common::profile::Profile;

/// How a breaker comes back from OPEN. Durations are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// First cool-down.
    pub cooldown_ns: u64,
    /// Longest cool-down after back-off.
    pub max_cooldown_ns: u64,
    /// How long an agent must stay clean while HALF_OPEN.
    pub probe_ns: u64,
    /// Whether a cool-down ends in a probe by itself.
    pub auto_probe: bool,
    /// Factor by which a failed probe lengthens the cool-down.
    pub backoff: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        const SECOND: u64 = 1_000_000_000;
        Self {
            cooldown_ns: 30 * SECOND,
            max_cooldown_ns: 600 * SECOND,
            probe_ns: 15 * SECOND,
            auto_probe: true,
            backoff: 2,
        }
    }
}

/// The bound on our own mistakes: more than `trips` automatic trips by one cause within `window_ns` alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    /// Automatic trips by one cause, over all agents, that are still ordinary.
    pub trips: u32,
    /// Nanoseconds.
    pub window_ns: u64,
    /// Whether further automatic trips by that cause are held in shadow.
    pub hold_in_shadow: bool,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { trips: 10, window_ns: 60_000_000_000, hold_in_shadow: false }
    }
}

/// Everything configured about one agent that the core needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// Name of its profile, for explanations.
    pub profile_name: String,
    /// Its profile as compiled.
    pub profile: Profile,
    /// The row that holds the profile in the kernel.
    pub row: u16,
    /// Its breaker's times.
    pub breaker: BreakerSettings,
    /// Its configured mode.
    pub mode: Mode,
    /// Judged, never dropped: enforcement becomes shadow, and a quarantine is refused.
    pub never_isolate: bool,
    /// Free words by which operators name several agents at once.
    pub tags: Vec<String>,
}

impl AgentSettings {
    /// `mode` as far as this agent may have it.
    #[must_use]
    pub fn admitted(&self, mode: Mode) -> Mode {
        if self.never_isolate && mode == Mode::Enforce { Mode::Shadow } else { mode }
    }
}
