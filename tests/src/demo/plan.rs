//! Who is who in the demo, what each may do, and how long things take.

use std::time::Duration;

use toml::Table;

use crate::daemon::Config;
use crate::lab::Lab;

/// Nothing of the demo runs longer than this.
pub(super) const LONGEST: Duration = Duration::from_secs(120);
/// How long everybody behaves at first.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// How long a compromised agent may take until its circuit opens, from when it starts to misbehave.
pub(super) const TRIP_WITHIN: Duration = Duration::from_secs(10);
/// How long a contained agent keeps on trying.
pub(super) const STRUGGLE: Duration = Duration::from_secs(4);
/// How long a released agent may take until its circuit is closed again.
pub(super) const CLOSED_WITHIN: Duration = Duration::from_secs(15);
/// How long everybody is watched after that.
pub(super) const AFTERWARDS: Duration = Duration::from_secs(3);
/// The most that is shown of what a command answers.
pub(super) const ANSWER_LINES: usize = 14;

/// Wire bytes that the exfiltrating agent may send in its window of a minute.
pub(super) const LIMIT_BYTES: u64 = 24_000_000;
/// Untypical endpoints that the sweeping agent may talk to in its window.
pub(super) const LIMIT_ENDPOINTS: u64 = 48;

/// Where the world serves HTTP: all that is typical.
pub(super) const HTTP_PORT: u16 = 80;
/// Where the thief's TCP goes.
pub(super) const DROP_TCP_PORT: u16 = 8443;
/// Where the thief's UDP goes.
pub(super) const DROP_UDP_PORT: u16 = 4433;

/// What an agent will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Small requests at a steady rate.
    Requests,
    /// Those, and downloads.
    Downloads,
    /// Turns into a thief.
    Exfiltrates,
    /// Turns into a scout.
    Sweeps,
}

/// One of the four.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Its name.
    pub(super) id: &'static str,
    /// What it will do.
    pub(super) role: Role,
}

impl Part {
    /// Whether it never does anything wrong.
    pub(super) fn is_bystander(&self) -> bool {
        matches!(self.role, Role::Requests | Role::Downloads)
    }
}

/// Everybody, in the order of the lab's agents.
pub(super) const PARTS: [Part; 4] = [
    Part { id: "assistant", role: Role::Requests },
    Part { id: "researcher", role: Role::Downloads },
    Part { id: "summarizer", role: Role::Exfiltrates },
    Part { id: "crawler", role: Role::Sweeps },
];

/// Index of the thief among [`PARTS`].
pub(super) const THIEF: usize = 2;
/// Index of the scout.
pub(super) const SCOUT: usize = 3;

/// The daemon's configuration.
///
/// The volume that is limited is what an agent *sends*, since that is what is measured behind the hook. Only an
/// operator ends a quarantine here (`auto_probe` is off), and a clean probe takes three seconds.
pub(super) fn config(lab: &Lab) -> Config {
    let mut typical = Table::new();
    typical.insert("to".to_owned(), format!("{}/32", lab.world().v4).into());
    typical.insert("ports".to_owned(), HTTP_PORT.to_string().into());
    typical.insert("protocol".to_owned(), "tcp".into());
    let endpoints = i64::try_from(LIMIT_ENDPOINTS).unwrap_or(i64::MAX);
    let mut config = Config::new()
        .set("daemon.interval", "50ms")
        .set("breaker.auto_probe", false)
        .set("breaker.probe", "3s")
        .set("profiles.web.window", "60s")
        .set("profiles.web.volume", "outbound")
        .set("profiles.web.expected_volume", "2MB")
        .set("profiles.web.typical", vec![toml::Value::Table(typical)])
        .set("profiles.web.limits.max_volume", format!("{LIMIT_BYTES}B"))
        .set("profiles.web.limits.max_unusual_endpoints", endpoints);
    for (part, node) in PARTS.iter().zip(lab.agents()) {
        config = config.agent(part.id, &node.host_interface).of_agent("profile", "web");
    }
    config
}
