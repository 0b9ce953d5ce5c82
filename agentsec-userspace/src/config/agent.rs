//! `[agents.NAME]`: who an agent is, and how it is judged.

use super::attachment::{self, AddressAttachment, CgroupSelector};
use super::recovery::{self, AgentRecovery};
use super::section::{Section, text};
use super::selector::Selector;
use super::source::{Entry, Value};
use crate::core::settings::BreakerSettings;
use agentsec_common::agent::NAME_BYTES;
use agentsec_common::policy::Mode;

/// How an agent that has never been seen before starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomer {
    /// CLOSED: trusted until judged otherwise.
    Closed,
    /// HALF_OPEN: on probation first.
    HalfOpen,
    /// OPEN: dropped until released.
    Open,
    /// CLOSED in shadow mode.
    Shadow,
}

/// One agent section, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Its interface or pattern.
    pub interface: Option<Selector>,
    /// Its cgroup or pattern.
    pub cgroup: Option<CgroupSelector>,
    /// Its addresses behind a shared link.
    pub address: Option<AddressAttachment>,
    /// Name of its profile, which exists.
    pub profile: String,
    /// Its mode; shadow instead of enforce when it is never to be isolated.
    pub mode: Mode,
    /// How agents adopted by its pattern start.
    pub newcomer: Newcomer,
    /// Free words for operators and rules.
    pub tags: Vec<String>,
    /// Its breaker's times.
    pub breaker: BreakerSettings,
    /// How it is brought back, if it is.
    pub recovery: Option<AgentRecovery>,
    /// `FILE:LINE` of the section, for messages.
    pub place: String,
}

impl AgentConfig {
    /// Whether a pattern adopts its agents; else the section is one agent of its name.
    #[must_use]
    pub fn adopts(&self) -> bool {
        let selectors = [self.interface.as_ref(), self.cgroup.as_ref().map(CgroupSelector::selector)];
        selectors.into_iter().flatten().any(|selector| selector.exact().is_none())
    }

    /// Its interface, when it is one and no pattern.
    #[must_use]
    pub fn exact_interface(&self) -> Option<&str> {
        self.interface.as_ref().and_then(Selector::exact)
    }

    /// Whether it means the cgroup at `path`.
    #[must_use]
    pub fn is_in(&self, path: &str) -> bool {
        self.cgroup.as_ref().is_some_and(|cgroup| cgroup.matches(path))
    }

    /// Whether it could adopt an agent named `id`.
    pub(super) fn could_name(&self, id: &str) -> bool {
        let on_interface =
            self.adopts() && self.interface.as_ref().is_some_and(|selector| selector.matches(id));
        on_interface || self.cgroup.as_ref().is_some_and(|cgroup| cgroup.could_name(id))
    }
}

/// What sections without an own value get.
pub(super) struct Defaults {
    pub profile: String,
    pub newcomer: Newcomer,
    pub breaker: BreakerSettings,
}

/// Reads one agent. What has problems is left out.
pub(super) fn read(section: Section<'_>, entry: &Entry, defaults: &Defaults) -> AgentConfig {
    let modes = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow), ("exempt", Mode::Exempt)];
    let newcomer = read_newcomer(&section);
    let agent = AgentConfig {
        interface: attachment::read_interface(&section),
        cgroup: attachment::read_cgroup(&section),
        address: attachment::read_address(&section),
        profile: section
            .string("profile", "the name of a profile")
            .unwrap_or_else(|| defaults.profile.clone()),
        mode: section.choice("mode", &modes).unwrap_or(Mode::Enforce),
        newcomer: newcomer.unwrap_or(defaults.newcomer),
        tags: read_tags(&section),
        breaker: read_breaker(&section.section("breaker"), &defaults.breaker, true),
        recovery: recovery::read_agent(&section),
        place: section.report.place(entry.key),
    };
    check_attachments(&section, entry, &agent);
    if let Some(node) = section.node("newcomer")
        && is_known(&agent)
        && !agent.adopts()
    {
        let allowed = Some("an interface, a unit or a cgroup with * or ?".to_owned());
        section.report.problem(node.spot, &section.key("newcomer"), "needs a pattern".into(), allowed);
    }
    section.finish();
    agent
}

fn is_known(agent: &AgentConfig) -> bool {
    agent.interface.is_some() || agent.cgroup.is_some() || agent.address.is_some()
}

/// Keys that say where an agent is.
const ATTACHMENTS: [&str; 4] = ["interface", "unit", "cgroup", "address"];

/// At least one attachment; only one with a pattern; and no packet that is counted twice.
fn check_attachments(section: &Section<'_>, entry: &Entry, agent: &AgentConfig) {
    let written: Vec<_> =
        ATTACHMENTS.into_iter().filter_map(|key| Some((key, section.node(key)?.spot))).collect();
    if written.is_empty() && matches!(entry.node.value, Value::Table(_)) {
        let allowed = Some("interface, unit or cgroup, address with link".to_owned());
        section.report.problem(entry.key, &section.path, "has no attachment".into(), allowed);
    }
    if let [_, .., (key, spot)] = written[..]
        && agent.adopts()
    {
        let message = "is a second attachment, and a pattern's agents have one each".into();
        let allowed = Some("a section of its own".to_owned());
        section.report.problem(spot, &section.key(key), message, allowed);
        return;
    }
    if agent.interface.is_some()
        && let (Some(_), Some(node)) = (&agent.address, section.node("address"))
    {
        let message = "would count packets a second time that interface counts".into();
        let allowed = Some("interface or address".to_owned());
        section.report.problem(node.spot, &section.key("address"), message, allowed);
    }
}

fn read_tags(section: &Section<'_>) -> Vec<String> {
    let allowed = format!("a list of words of 1 to {NAME_BYTES} bytes without control characters");
    let tags = section.parsed("tags", &allowed, |value| {
        let Value::Array(items) = value else { return Err(format!("is {}", value.kind())) };
        items.iter().map(|item| tag(text(&item.value)?)).collect()
    });
    tags.unwrap_or_default()
}

fn tag(text: &str) -> Result<String, String> {
    if (1..=NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no tag"))
    }
}

/// `newcomer` of a section.
pub(super) fn read_newcomer(section: &Section<'_>) -> Option<Newcomer> {
    let newcomers = [
        ("closed", Newcomer::Closed),
        ("open", Newcomer::Open),
        ("half_open", Newcomer::HalfOpen),
        ("shadow", Newcomer::Shadow),
    ];
    section.choice("newcomer", &newcomers)
}

/// The breaker's times in `section`, with `default` for those absent. An agent's section has no other keys and
/// is `complete` with them; `[breaker]` has more.
pub(super) fn read_breaker(
    section: &Section<'_>,
    default: &BreakerSettings,
    complete: bool,
) -> BreakerSettings {
    const SECOND: u64 = 1_000_000_000;
    let times = SECOND / 10..=7 * 86_400 * SECOND;
    let read = |key, default| section.duration(key, times.clone()).unwrap_or(default);
    let breaker = BreakerSettings {
        cooldown_ns: read("cooldown", default.cooldown_ns),
        max_cooldown_ns: read("max_cooldown", default.max_cooldown_ns),
        probe_ns: read("probe", default.probe_ns),
        auto_probe: section.boolean("auto_probe").unwrap_or(default.auto_probe),
        backoff: section.integer("backoff", 1..=100).unwrap_or(default.backoff),
    };
    if breaker.cooldown_ns > breaker.max_cooldown_ns
        && let Some(node) = section.node("cooldown").or(section.node("max_cooldown"))
    {
        let message = "cooldown is longer than max_cooldown".into();
        let most = super::units::show_duration(breaker.max_cooldown_ns);
        section.report.problem(
            node.spot,
            &section.key("cooldown"),
            message,
            Some(format!("up to \"{most}\"")),
        );
    }
    if complete {
        section.finish();
    }
    breaker
}
