//! `[agents.NAME]`: which interface carries which agent.

use super::section::Section;
use crate::core::settings::BreakerSettings;
use agentsec_common::policy::Mode;
use std::fmt;

/// Longest interface name that the kernel accepts, in bytes.
pub const INTERFACE_BYTES: usize = 15;

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

/// The interface or interfaces of an agent section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// One agent, named after its section.
    Exact(String),
    /// Every interface that matches, each an agent named after its interface. `*` is any run of characters and
    /// `?` any one.
    Pattern(String),
}

impl Interface {
    /// Whether it means the interface `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Pattern(pattern) => wildcard(pattern.as_bytes(), name.as_bytes()),
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) | Self::Pattern(text) => out.write_str(text),
        }
    }
}

/// Matches without backtracking further than the latest `*`.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// One agent section, with the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Its interface or pattern.
    pub interface: Interface,
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
    /// `FILE:LINE` of the section, for messages.
    pub place: String,
}

/// What sections without an own value get.
pub(super) struct Defaults {
    pub profile: String,
    pub newcomer: Newcomer,
    pub breaker: BreakerSettings,
}

/// Reads one agent; `None` when it has no usable interface.
pub(super) fn read(section: Section<'_>, place: String, defaults: &Defaults) -> Option<AgentConfig> {
    let modes = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow), ("exempt", Mode::Exempt)];
    let interface = section.parsed("interface", INTERFACES, |value| interface(super::section::text(value)?));
    let newcomer = read_newcomer(&section);
    if newcomer.is_some()
        && matches!(interface, Some(Interface::Exact(_)))
        && let Some(node) = section.node("newcomer")
    {
        let allowed = Some("an interface with * or ?".to_owned());
        section.report.problem(node.spot, &section.key("newcomer"), "needs a pattern".into(), allowed);
    }
    let profile = section.string("profile", "the name of a profile");
    let mode = section.choice("mode", &modes).unwrap_or(Mode::Enforce);
    let tags = section.strings("tags").unwrap_or_default();
    let breaker = read_breaker(&section.section("breaker"), &defaults.breaker, true);
    section.finish();
    Some(AgentConfig {
        interface: interface?,
        profile: profile.unwrap_or_else(|| defaults.profile.clone()),
        mode,
        newcomer: newcomer.unwrap_or(defaults.newcomer),
        tags,
        breaker,
        place,
    })
}

const INTERFACES: &str = "an interface name of 1 to 15 bytes, or a pattern with * and ?";

fn interface(text: &str) -> Result<Interface, String> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text == "." || text == ".." || text.contains(bad) {
        return Err(format!("{text:?} is no interface name"));
    }
    // A star may stand for nothing; every other byte of a pattern stands for at least one of the name.
    let least = text.bytes().filter(|&byte| byte != b'*').count();
    if least > INTERFACE_BYTES {
        return Err(format!("{text:?} is longer than {INTERFACE_BYTES} bytes"));
    }
    let pattern = text.contains(['*', '?']);
    Ok(if pattern { Interface::Pattern(text.into()) } else { Interface::Exact(text.into()) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, matches) in [
            ("veth*", "veth7", true),
            ("veth*", "veth", true),
            ("veth*", "eth0", false),
            ("v?th?", "veth7", true),
            ("v?th?", "veth", false),
            ("*a*b", "xaabab", true),
            ("*a*b", "xaaba", false),
            ("*", "", true),
        ] {
            assert_eq!(wildcard(pattern.as_bytes(), name.as_bytes()), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn an_interface_name_fits_the_kernel() {
        assert!(interface("veth-fifteen-ch").is_ok());
        assert!(interface("veth-sixteen-chs").is_err());
        assert_eq!(interface("veth*"), Ok(Interface::Pattern("veth*".into())));
        for bad in ["", "a b", "a/b", ".."] {
            assert!(interface(bad).is_err(), "{bad:?}");
        }
    }
}
