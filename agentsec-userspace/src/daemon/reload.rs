//! Puts an edited configuration into force while everything goes on.
//!
//! With any problem nothing changes. Otherwise edited profiles get rows of their own, agents that are new become
//! known, those that are edited get their new word at once, and those that are gone are let go. Who is contained
//! stays so, and keeps its places, until an operator releases it, whatever the configuration says now.

use std::collections::{BTreeMap, BTreeSet};

use agentsec_common::agent::Slot;
use agentsec_common::policy::State;
use anyhow::{Context, Result};
use serde_json::json;

use crate::api::{ReloadReply, RequestError, RequestErrorCode};
use crate::clock;
use crate::config::{self, Config};
use crate::core::{AttachmentChange, Draft, EventKind, Input, Place};
use crate::kernel::Kernel;

use super::Daemon;
use super::agents::{Row, awaited};
use super::roster::{Key, Seat};

impl Daemon {
    /// Reads the configuration again and puts it into force, or says all that is wrong with it.
    pub(super) fn reload(&mut self, by: &str) -> Result<ReloadReply, RequestError> {
        let loaded = config::load(&self.options.config)
            .map_err(|errors| errors.to_string())
            .and_then(|config| self.check_fixed(&config).map(|()| config))
            .and_then(|config| {
                match install_profiles(&mut self.kernel, &config, Some((&self.config, &self.rows))) {
                    Ok(rows) => Ok((config, rows)),
                    Err(error) => Err(format!("{error:#}")),
                }
            });
        match loaded {
            Ok((config, rows)) => {
                self.alerts.retain(|alert| !alert.starts_with("configuration:"));
                let reply = self.put_into_force(config, rows, by);
                // Whoever hears that it is in force may ask for a snapshot at once.
                self.publish_recovery(clock::now());
                Ok(reply)
            }
            Err(problems) => {
                let now = clock::now();
                let data = json!({ "what": "reload_refused", "by": by, "problems": problems });
                self.record(now, Draft::daemon(now, EventKind::Alert, data));
                self.alerts.retain(|alert| !alert.starts_with("configuration:"));
                self.complain("configuration", &anyhow::anyhow!("not reloaded: {problems}"));
                Err(RequestError::new(RequestErrorCode::Config, problems))
            }
        }
    }

    /// Maps in use cannot be resized, and contained agents may be in what another root would not see.
    fn check_fixed(&self, config: &Config) -> Result<(), String> {
        let (old, new) = (&self.config.daemon, &config.daemon);
        let recorders = (&self.config.recorder, &config.recorder);
        let root =
            |root: &Option<String>| root.as_ref().map_or("absent".to_owned(), |path| format!("{path:?}"));
        let fixed = [
            ("daemon.max_agents", old.max_agents.to_string(), new.max_agents.to_string()),
            ("daemon.max_profiles", old.max_profiles.to_string(), new.max_profiles.to_string()),
            (
                "daemon.max_typical_prefixes",
                old.max_typical_prefixes.to_string(),
                new.max_typical_prefixes.to_string(),
            ),
            ("daemon.max_endpoints", old.max_endpoints.to_string(), new.max_endpoints.to_string()),
            ("daemon.max_flows", old.max_flows.to_string(), new.max_flows.to_string()),
            ("daemon.cgroup_root", root(&old.cgroup_root), root(&new.cgroup_root)),
            ("recorder.max_agents", recorders.0.max_agents.to_string(), recorders.1.max_agents.to_string()),
            ("recorder.packets", recorders.0.packets().to_string(), recorders.1.packets().to_string()),
        ];
        let file = self.options.config.display();
        let changed: Vec<String> = fixed
            .into_iter()
            .filter(|(_, old, new)| old != new)
            .map(|(key, old, new)| {
                format!(
                    "{file}: {key}: is {new}, and {old} in force; allowed: {old}, or `agentsec unload` and a \
                     new start"
                )
            })
            .collect();
        if changed.is_empty() { Ok(()) } else { Err(changed.join("\n")) }
    }

    fn put_into_force(&mut self, config: Config, rows: BTreeMap<String, Row>, by: &str) -> ReloadReply {
        let old = std::mem::replace(&mut self.config, config);
        self.rows = rows;
        self.say_loaded(by);
        self.engine.configure_guard(self.config.guard);
        self.outside.reconfigure(&self.config.log);
        self.interactions.configure(self.config.interactions.settings);
        let mut reply = ReloadReply { sources: self.config.sources.clone(), ..ReloadReply::default() };
        for slot in self.roster.slots() {
            self.reconfigure(slot, &old, &mut reply);
        }
        let known: BTreeSet<Slot> = self.roster.slots().into_iter().collect();
        if let Err(error) = self.add_configured() {
            self.complain("agents", &error);
        }
        self.cgroups.look_again();
        self.networks.ring();
        self.reconcile();
        let is_new = |(slot, _): &(Slot, _)| !known.contains(slot);
        reply.added = self.roster.iter().filter(is_new).map(|(_, member)| member.id.clone()).collect();
        reply.added.sort();
        self.state.touch();
        reply
    }

    /// Says which configuration is in force from now on.
    pub(super) fn say_loaded(&mut self, by: &str) {
        let now = clock::now();
        let data = json!({
            "by": by,
            "sources": self.config.sources,
            "agents": self.config.agents.len(),
            "profiles": self.config.profiles.len(),
        });
        self.record(now, Draft::daemon(now, EventKind::ConfigLoaded, data));
    }

    /// Gives an agent what the configuration says of it now.
    fn reconfigure(&mut self, slot: Slot, old: &Config, reply: &mut ReloadReply) {
        let Some(id) = self.roster.get(slot).map(|member| member.id.clone()) else { return };
        let Some(found) = self.config.agent_called(&id) else { return self.abandon(slot, id, reply) };
        let settings = self.config.settings(&found, self.rows[&found.agent.profile].index);
        let places = if found.adopted { Vec::new() } else { awaited(found.agent) };
        let is_adopted = found.adopted;
        let window_ns = self.rows[&settings.profile_name].window_ns;
        let Some(member) = self.roster.get_mut(slot) else { return };
        let is_changed = member.settings != settings || member.awaited != places;
        (member.is_configured, member.is_adopted) = (true, is_adopted);
        (member.awaited, member.window_ns) = (places, window_ns);
        member.settings = settings.clone();
        let input = Input::AgentConfigured { slot, settings: Box::new(settings) };
        self.handle(clock::now(), input);
        let lost = self.lost_places(slot, &id, old);
        if is_changed || !lost.is_empty() {
            reply.changed.push(id);
        }
        for key in lost {
            self.leave(slot, key);
        }
    }

    /// An agent that nobody configures any more goes, unless it is contained.
    fn abandon(&mut self, slot: Slot, id: String, reply: &mut ReloadReply) {
        let view = self.engine.view(clock::now(), slot);
        if view.is_some_and(|view| State::from(view.state) == State::Closed) {
            if let Err(error) = self.forget(slot, "no longer configured") {
                self.complain("agents", &error);
            }
            reply.removed.push(id);
            return;
        }
        let settings = self.settings_of_nobody(self.kernel.enforcer.control(slot));
        let window_ns = self.rows[&settings.profile_name].window_ns;
        if let Some(member) = self.roster.get_mut(slot) {
            (member.is_configured, member.is_adopted) = (false, true);
            (member.awaited, member.window_ns) = (Vec::new(), window_ns);
            member.settings = settings.clone();
        }
        let input = Input::AgentConfigured { slot, settings: Box::new(settings) };
        self.handle(clock::now(), input);
        reply.kept.push(id);
    }

    /// Places of an agent that are not its own any more. A second way into its namespace goes with the first.
    fn lost_places(&self, slot: Slot, id: &str, old: &Config) -> Vec<Key> {
        let Some(member) = self.roster.get(slot) else { return Vec::new() };
        let is_own = |config: &Config, name: &str| config.agent_on(name).is_some_and(|found| found.id == id);
        let has_first = member.seats.values().any(|seat| match &seat.place {
            Place::Interface(name) => is_own(&self.config, name),
            Place::Cgroup(_) | Place::Address { .. } => false,
        });
        let is_lost = |seat: &Seat| match &seat.place {
            Place::Interface(name) => match self.config.agent_on(name) {
                Some(found) => found.id != id,
                None => !has_first || is_own(old, name),
            },
            Place::Cgroup(path) => self.config.agent_in(path).is_none_or(|found| found.id != id),
            place @ Place::Address { .. } => !member.awaited.contains(place),
        };
        member.seats.iter().filter(|(_, seat)| is_lost(seat)).map(|(key, _)| *key).collect()
    }

    /// Takes our programs off a place that the configuration has taken from an agent.
    fn leave(&mut self, slot: Slot, key: Key) {
        if let Err(error) = self.unidentify(slot, key) {
            self.complain("attachments", &error);
        }
        let seat = self.roster.get_mut(slot).and_then(|member| member.seats.remove(&key));
        if let Some(seat) = seat {
            let change = AttachmentChange::Detached;
            self.handle(clock::now(), Input::Attachment { slot, place: seat.place, change });
        }
    }
}

/// Puts every profile into a row of its own; one that is in force unchanged keeps its row.
///
/// # Errors
///
/// When rows or prefixes are exhausted. Rows that were filled are referred to by nobody, and so free again soon.
pub(super) fn install_profiles(
    kernel: &mut Kernel,
    config: &Config,
    in_force: Option<(&Config, &BTreeMap<String, Row>)>,
) -> Result<BTreeMap<String, Row>> {
    let mut rows = BTreeMap::new();
    for (name, profile) in &config.profiles {
        let unchanged = in_force.filter(|(old, _)| old.profiles.get(name) == Some(profile));
        if let Some(row) = unchanged.and_then(|(_, rows)| rows.get(name)) {
            rows.insert(name.clone(), *row);
            continue;
        }
        let compiled = profile.compile();
        let typical =
            profile.typical_prefixes().map_err(|error| anyhow::anyhow!("profile {name}: {error:?}"))?;
        let index = kernel
            .enforcer
            .install_profile(&compiled, &typical)
            .with_context(|| format!("profile {name}"))?;
        rows.insert(name.clone(), Row { index, profile: compiled, window_ns: profile.window_ns });
    }
    Ok(rows)
}
