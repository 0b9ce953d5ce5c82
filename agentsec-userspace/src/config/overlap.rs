//! No two agents may be the same packets: interfaces, cgroups, addresses and names must differ.

use super::attachment::CgroupSelector;
use super::lookup::ancestors;
use super::prefix::Prefix;
use super::section::Section;
use super::source::Spot;
use super::validate::spot_of;
use super::{AgentConfig, Config, Selector};
use std::collections::BTreeMap;

/// Reports every overlap, with the names of both agents.
pub(super) fn check(config: &Config, root: &Section<'_>) {
    check_same(config, root, "interface", "interface", AgentConfig::exact_interface);
    check_same(config, root, "cgroup", "cgroup", |agent| agent.cgroup.as_ref()?.exact_path());
    check_same(config, root, "unit", "unit", |agent| agent.cgroup.as_ref()?.exact_unit());
    check_links(config, root);
    check_nested_cgroups(config, root);
    check_prefixes(config, root);
    for (name, agent) in config.agents.iter().filter(|(_, agent)| !agent.adopts()) {
        check_id_is_free(config, root, name, agent);
    }
}

/// Where `key` of the agent `name` was written.
fn agent_spot(root: &Section<'_>, name: &str, key: &str) -> Option<Spot> {
    spot_of(root, "agents", name, key)
}

/// What `of` says of two agents must differ.
fn check_same<'a>(
    config: &'a Config,
    root: &Section<'_>,
    key: &str,
    what: &str,
    of: impl Fn(&'a AgentConfig) -> Option<&'a str>,
) {
    let mut owners: BTreeMap<&str, (&str, Spot)> = BTreeMap::new();
    for (name, agent) in &config.agents {
        let (Some(value), Some(spot)) = (of(agent), agent_spot(root, name, key)) else { continue };
        if let Some((other, place)) = owners.get(value) {
            let message = format!("{value:?} is already agents.{other}'s, at {}", root.report.place(*place));
            let allowed = Some(format!("one agent per {what}"));
            root.report.problem(spot, &format!("agents.{name}.{key}"), message, allowed);
        }
        owners.entry(value).or_insert((name, spot));
    }
}

/// What crosses a link of addresses would be counted once more for the agent of that interface.
fn check_links(config: &Config, root: &Section<'_>) {
    for (name, address) in config.addresses() {
        let on_link = |agent: &&AgentConfig| {
            agent.interface.as_ref().is_some_and(|interface| interface.matches(&address.link))
        };
        let owners = config.agents.iter().filter(|(other, agent)| *other != name && on_link(agent));
        for (other, _) in owners {
            let Some(spot) = agent_spot(root, name, "link") else { continue };
            let message = format!("{:?} is an interface of agents.{other}", address.link);
            let allowed = Some("a link that is no agent's interface".to_owned());
            root.report.problem(spot, &format!("agents.{name}.link"), message, allowed);
        }
    }
}

/// A cgroup with a configured path must not be inside another agent's.
fn check_nested_cgroups(config: &Config, root: &Section<'_>) {
    for (name, agent) in &config.agents {
        let Some(path) = agent.cgroup.as_ref().and_then(CgroupSelector::exact_path) else { continue };
        let others = config.agents.iter().filter(|(other, _)| *other != name);
        for (other, outer) in others {
            let Some(ancestor) = ancestors(path).find(|ancestor| outer.is_in(ancestor)) else { continue };
            let (Some(spot), Some(cgroup)) = (agent_spot(root, name, "cgroup"), &outer.cgroup) else {
                continue;
            };
            let place = agent_spot(root, other, cgroup.key()).map(|spot| root.report.place(spot));
            let message = format!(
                "{path:?} is inside {ancestor:?}, which is agents.{other}'s, at {}",
                place.unwrap_or_default()
            );
            let allowed = Some("cgroups that do not hold one another".to_owned());
            root.report.problem(spot, &format!("agents.{name}.cgroup"), message, allowed);
        }
    }
}

/// Of the addresses behind one link, none may hold another.
fn check_prefixes(config: &Config, root: &Section<'_>) {
    let mut all: Vec<(&str, Prefix, &str)> = config
        .addresses()
        .flat_map(|(name, address)| {
            address.prefixes.iter().map(move |prefix| (&*address.link, *prefix, name))
        })
        .collect();
    // Families apart, a prefix is followed by all that it covers.
    all.sort_by_key(|&(link, prefix, name)| (link, prefix.is_ipv4(), prefix, name));
    let mut outer: Option<(&str, Prefix, &str)> = None;
    for (link, prefix, name) in all {
        match outer.filter(|(on, wide, _)| *on == link && wide.covers(&prefix)) {
            Some((_, wide, other)) => report_prefix(root, link, (name, prefix), (other, wide)),
            None => outer = Some((link, prefix, name)),
        }
    }
}

/// Says of the later of two agents that its address is the other's.
fn report_prefix(root: &Section<'_>, link: &str, a: (&str, Prefix), b: (&str, Prefix)) {
    let ((first, taken), (second, prefix)) = if a.0 < b.0 { (a, b) } else { (b, a) };
    let Some(spot) = agent_spot(root, second, "address") else { return };
    let place = agent_spot(root, first, "address").map(|spot| root.report.place(spot)).unwrap_or_default();
    let message =
        format!("{prefix} overlaps {taken}, which is agents.{first}'s on link {link:?} already, at {place}");
    let allowed = Some("addresses that do not overlap on one link".to_owned());
    root.report.problem(spot, &format!("agents.{second}.address"), message, allowed);
}

/// A pattern names agents after what it adopts: it must not adopt one under another section's name.
fn check_id_is_free(config: &Config, root: &Section<'_>, name: &str, agent: &AgentConfig) {
    for (section, adopting) in config.agents.iter().filter(|(_, other)| other.could_name(name)) {
        if is_claimed(config, adopting, name) {
            continue;
        }
        let key = if agent.interface.is_some() { "interface" } else { "address" };
        let key = agent.cgroup.as_ref().map_or(key, CgroupSelector::key);
        let Some(spot) = agent_spot(root, name, key) else { continue };
        let what = if adopting.interface.is_some() { "on interface" } else { "in a cgroup" };
        let message = format!("agents.{section} would name an agent {what} {name:?} the same");
        let allowed = Some("an agent name that no pattern matches".to_owned());
        root.report.problem(spot, &format!("agents.{name}"), message, allowed);
    }
}

/// Whether everything that `adopting` could adopt under `name` is exactly some section's.
fn is_claimed(config: &Config, adopting: &AgentConfig, name: &str) -> bool {
    let any = |is: &dyn Fn(&AgentConfig) -> bool| config.agents.values().any(is);
    if adopting.interface.is_some() {
        return any(&|agent| agent.exact_interface() == Some(name));
    }
    let unit = |agent: &AgentConfig| agent.cgroup.as_ref().and_then(CgroupSelector::exact_unit) == Some(name);
    let path = |agent: &AgentConfig| match (&adopting.cgroup, &agent.cgroup) {
        (Some(CgroupSelector::Path(pattern)), Some(cgroup)) => {
            cgroup.exact_path() == only_path(pattern, name).as_deref() && cgroup.exact_path().is_some()
        }
        _ => false,
    };
    any(&|agent| unit(agent) || path(agent))
}

/// The one path of last component `name` that `pattern` matches; `None` when there may be several.
fn only_path(pattern: &Selector, name: &str) -> Option<String> {
    let Some((parent, _)) = pattern.text().rsplit_once('/') else { return Some(name.to_owned()) };
    matches!(Selector::of(parent), Selector::Exact(_)).then(|| format!("{parent}/{name}"))
}
