//! What no section can know alone: names that must exist, cgroups inside the root, capacities.

use super::attachment::CgroupSelector;
use super::section::Section;
use super::selector::Selector;
use super::source::{Spot, Value};
use super::{Config, dependencies, overlap, recorder};
use agentsec_common::typical::RULES_PER_PREFIX;

/// Reports every problem between sections.
pub(super) fn check(config: &Config, root: &Section<'_>) {
    check_profiles_exist(config, root);
    overlap::check(config, root);
    dependencies::check(config, root);
    check_cgroup_root(config, root);
    check_never_isolate(config, root);
    check_typical(config, root);
    check_capacities(config, root);
    recorder::check(config, root);
}

/// Where `key` of the entry `name` of `section` was written, else the entry itself.
pub(super) fn spot_of(root: &Section<'_>, section: &'static str, name: &str, key: &str) -> Option<Spot> {
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

/// Programs at a cgroup see what is inside it only. A unit may be anywhere and is looked for inside it.
fn check_cgroup_root(config: &Config, root: &Section<'_>) {
    let Some(outer) = &config.daemon.cgroup_root else { return };
    for (name, agent) in &config.agents {
        let Some(CgroupSelector::Path(selector)) = &agent.cgroup else { continue };
        if is_inside(selector, outer) {
            continue;
        }
        let Some(spot) = spot_of(root, "agents", name, "cgroup") else { continue };
        let message = format!("{:?} is not inside daemon.cgroup_root", selector.text());
        let allowed = Some(format!("cgroups inside {outer:?}"));
        root.report.problem(spot, &format!("agents.{name}.cgroup"), message, allowed);
    }
}

/// Whether what `selector` means can be `outer` or inside it.
fn is_inside(selector: &Selector, outer: &str) -> bool {
    let mut components = selector.text().split('/');
    outer
        .split('/')
        .all(|wanted| components.next().is_some_and(|component| Selector::of(component).matches(wanted)))
}

fn check_never_isolate(config: &Config, root: &Section<'_>) {
    let breaker = root.section("breaker");
    let Some(node) = breaker.node("never_isolate") else { return };
    let Value::Array(items) = &node.value else { return };
    for item in items {
        let Value::String(name) = &item.value else { continue };
        let adoptable = config.agents.values().any(|agent| agent.could_name(name));
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
    let exact = config.agents.values().filter(|agent| !agent.adopts()).count();
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
