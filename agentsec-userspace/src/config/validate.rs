//! What no section can know alone: names that must exist, interfaces that must differ, capacities.

use super::section::Section;
use super::source::{Spot, Value};
use super::{Config, Interface};
use agentsec_common::typical::RULES_PER_PREFIX;
use std::collections::BTreeMap;

/// Reports every problem between sections.
pub(super) fn check(config: &Config, root: &Section<'_>) {
    check_profiles_exist(config, root);
    check_interfaces(config, root);
    check_never_isolate(config, root);
    check_typical(config, root);
    check_capacities(config, root);
}

/// Where `key` of the entry `name` of `section` was written, else the entry itself.
fn spot_of(root: &Section<'_>, section: &'static str, name: &str, key: &str) -> Option<Spot> {
    let Value::Table(entries) = &root.node(section)?.value else { return None };
    let entry = entries.get(name)?;
    match &entry.node.value {
        Value::Table(keys) => Some(keys.get(key).map_or(entry.key, |entry| entry.node.spot)),
        _ => Some(entry.key),
    }
}

fn check_profiles_exist(config: &Config, root: &Section<'_>) {
    let known: Vec<&str> = config.profiles.keys().map(String::as_str).collect();
    for (name, agent) in &config.agents {
        if config.profiles.contains_key(&agent.profile) {
            continue;
        }
        let Some(spot) = spot_of(root, "agents", name, "profile") else { continue };
        let message = format!("{:?} is no profile", agent.profile);
        root.report.problem(spot, &format!("agents.{name}.profile"), message, Some(known.join(", ")));
    }
    let Some(node) = root.section("defaults").node("profile") else { return };
    if let Value::String(profile) = &node.value
        && !config.profiles.contains_key(profile)
    {
        let message = format!("{profile:?} is no profile");
        root.report.problem(node.spot, "defaults.profile", message, Some(known.join(", ")));
    }
}

fn check_interfaces(config: &Config, root: &Section<'_>) {
    let mut owners: BTreeMap<&str, (&str, Spot)> = BTreeMap::new();
    for (name, agent) in &config.agents {
        let Interface::Exact(interface) = &agent.interface else { continue };
        let Some(spot) = spot_of(root, "agents", name, "interface") else { continue };
        let key = format!("agents.{name}.interface");
        if let Some((other, place)) = owners.get(interface.as_str()) {
            let message =
                format!("{interface:?} is already agents.{other}'s, at {}", root.report.place(*place));
            root.report.problem(spot, &key, message, Some("one agent per interface".into()));
        }
        owners.entry(interface).or_insert((name, spot));
        check_id_is_free(config, root, name, interface, spot);
    }
}

/// A pattern names agents after their interfaces: it must not adopt one under another agent's name.
fn check_id_is_free(config: &Config, root: &Section<'_>, name: &str, interface: &str, spot: Spot) {
    if name == interface
        || config.agents.values().any(|agent| agent.interface == Interface::Exact(name.into()))
    {
        return;
    }
    let patterns = config.agents.iter().filter(|(_, agent)| matches!(agent.interface, Interface::Pattern(_)));
    for (section, _) in patterns.filter(|(_, agent)| agent.interface.matches(name)) {
        let message = format!("agents.{section} would name an agent on interface {name:?} the same");
        let allowed = Some("an agent name that no pattern matches".to_owned());
        root.report.problem(spot, &format!("agents.{name}"), message, allowed);
    }
}

fn check_never_isolate(config: &Config, root: &Section<'_>) {
    let breaker = root.section("breaker");
    let Some(node) = breaker.node("never_isolate") else { return };
    let Value::Array(items) = &node.value else { return };
    for item in items {
        let Value::String(name) = &item.value else { continue };
        let adoptable = config.agents.values().any(|agent| agent.interface.matches(name));
        if !config.agents.contains_key(name) && !adoptable {
            let names: Vec<&str> = config.agents.keys().map(String::as_str).collect();
            let message = format!("{name:?} is no agent and no pattern would name one so");
            root.report.problem(item.spot, "breaker.never_isolate", message, Some(names.join(", ")));
        }
    }
}

fn check_typical(config: &Config, root: &Section<'_>) {
    for (name, profile) in &config.profiles {
        if let Err(error) = profile.typical_prefixes()
            && let Some(spot) = spot_of(root, "profiles", name, "typical")
        {
            let message =
                format!("{} needs {} rules, its own and those that cover it", error.prefix, error.needed);
            let allowed = Some(format!("up to {RULES_PER_PREFIX} rules per prefix"));
            root.report.problem(spot, &format!("profiles.{name}.typical"), message, allowed);
        }
    }
}

fn check_capacities(config: &Config, root: &Section<'_>) {
    let exact = config.agents.values().filter(|agent| matches!(agent.interface, Interface::Exact(_))).count();
    let prefixes =
        config.profiles.values().filter_map(|profile| Some(profile.typical_prefixes().ok()?.len())).sum();
    check_capacity(root, "agents", exact, "daemon.max_agents", config.daemon.max_agents);
    check_capacity(
        root,
        "profiles",
        config.profiles.len(),
        "daemon.max_profiles",
        config.daemon.max_profiles,
    );
    check_capacity(
        root,
        "profiles",
        prefixes,
        "daemon.max_typical_prefixes",
        config.daemon.max_typical_prefixes,
    );
}

fn check_capacity(root: &Section<'_>, section: &'static str, used: usize, setting: &str, capacity: u32) {
    if used <= capacity as usize {
        return;
    }
    let key = setting.trim_start_matches("daemon.");
    let configured = root.node("daemon").and_then(|node| match &node.value {
        Value::Table(table) => table.get(key).map(|entry| entry.node.spot),
        _ => None,
    });
    let Some(spot) = configured.or(root.node(section).map(|node| node.spot)) else { return };
    let message = format!("is {capacity}, but {section} need {used}");
    root.report.problem(spot, setting, message, Some(format!("at least {used}, or fewer {section}")));
}
