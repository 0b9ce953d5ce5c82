//! Which agent an interface or a cgroup is, and which section an id belongs to.

use super::attachment::{AddressAttachment, CGROUP_DEPTH, is_agent_id, last_component};
use super::{AgentConfig, Config, Newcomer};
use agentsec_common::agent::NAME_BYTES;
use agentsec_common::policy::State;

/// An interface's or a cgroup's agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match<'a> {
    /// The agent's id: the section's name, or when a pattern adopted it the interface's, or the last component of
    /// the cgroup's path.
    pub id: &'a str,
    /// Name of the section.
    pub section: &'a str,
    /// The section.
    pub agent: &'a AgentConfig,
    /// Whether a pattern adopted it.
    pub adopted: bool,
}

impl Match<'_> {
    /// The state in which the agent starts when nothing is known of it.
    #[must_use]
    pub fn newcomer_state(&self) -> State {
        match self.agent.newcomer {
            Newcomer::Open if self.adopted => State::Open,
            Newcomer::HalfOpen if self.adopted => State::HalfOpen,
            _ => State::Closed,
        }
    }
}

impl Config {
    /// The agent on `interface`. An exact name wins over patterns, and of several patterns the first section in
    /// the order of names wins. `None` also when the interface's name is the id of another agent, and for the
    /// link of addresses.
    #[must_use]
    pub fn agent_on<'a>(&'a self, interface: &'a str) -> Option<Match<'a>> {
        if let Some(found) = self.named(|agent| agent.exact_interface() == Some(interface)) {
            return Some(found);
        }
        let is_link = self.addresses().any(|(_, address)| address.link == interface);
        if is_link || self.is_section_id(interface) {
            return None;
        }
        self.adopted(interface, |agent| {
            agent.interface.as_ref().is_some_and(|selector| selector.matches(interface))
        })
    }

    /// The agent of the cgroup at `cgroup`, a path relative to the root of the v2 tree: by its exact path, else by
    /// its unit, else by patterns in the order of section names.
    ///
    /// `None` for a cgroup inside one that is an agent already, unless its exact path is configured: otherwise an
    /// agent could make a cgroup of a promising name in its own and be somebody else there. `None` also outside
    /// `daemon.cgroup_root`, deeper than the kernel looks, and where [`Config::unnameable`] says why.
    #[must_use]
    pub fn agent_in<'a>(&'a self, cgroup: &'a str) -> Option<Match<'a>> {
        let path = cgroup.strip_prefix('/').unwrap_or(cgroup);
        let is_deep = path.split('/').count() > CGROUP_DEPTH;
        if path.is_empty() || is_deep || !self.is_in_cgroup_root(path) {
            return None;
        }
        self.at_path(path).or_else(|| {
            let found = self.by_name(path)?;
            ancestors(path).all(|ancestor| self.agent_in(ancestor).is_none()).then_some(found)
        })
    }

    /// Why a pattern that matches `cgroup` cannot adopt it: its name is not one that an agent can have, or is the
    /// name of another agent.
    #[must_use]
    pub fn unnameable(&self, cgroup: &str) -> Option<String> {
        let path = cgroup.strip_prefix('/').unwrap_or(cgroup);
        let id = last_component(path);
        let matching = |agent: &AgentConfig| agent.adopts() && agent.is_in(path);
        if self.at_path(path).is_some() || self.by_name(path).is_some() {
            return None;
        }
        let (section, _) = self.agents.iter().find(|(_, agent)| matching(agent))?;
        Some(if self.is_section_id(id) {
            format!("agents.{section} cannot name an agent {id:?}: that is another agent's name")
        } else {
            format!(
                "agents.{section} cannot name an agent {id:?}; names have up to {NAME_BYTES} bytes and no control \
                 characters"
            )
        })
    }

    /// The agent `id`: an exact section of that name, or whom a pattern adopts under that name.
    #[must_use]
    pub fn agent_called<'a>(&'a self, id: &'a str) -> Option<Match<'a>> {
        if let Some((section, agent)) = self.agents.get_key_value(id).filter(|(_, agent)| !agent.adopts()) {
            return Some(Match { id: section, section, agent, adopted: false });
        }
        let on_interface = self.agent_on(id).filter(|found| found.adopted);
        on_interface.or_else(|| {
            let could_name =
                |agent: &AgentConfig| agent.cgroup.as_ref().is_some_and(|cgroup| cgroup.could_name(id));
            self.adopted(id, could_name)
        })
    }

    /// Agents known by their addresses, each with its id.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, &AddressAttachment)> {
        self.agents.iter().filter_map(|(section, agent)| Some((section.as_str(), agent.address.as_ref()?)))
    }

    /// Whether any agent is known by its cgroup.
    #[must_use]
    pub fn has_cgroups(&self) -> bool {
        self.agents.values().any(|agent| agent.cgroup.is_some())
    }

    /// Whether the cgroup at `path` is `daemon.cgroup_root` or inside it.
    #[must_use]
    pub fn is_in_cgroup_root(&self, path: &str) -> bool {
        let Some(root) = &self.daemon.cgroup_root else { return true };
        path.strip_prefix(root.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The agent whose exact path it is.
    fn at_path(&self, path: &str) -> Option<Match<'_>> {
        self.named(|agent| agent.cgroup.as_ref().and_then(|cgroup| cgroup.exact_path()) == Some(path))
    }

    /// By unit or pattern, wherever it is.
    fn by_name<'a>(&'a self, path: &'a str) -> Option<Match<'a>> {
        let id = last_component(path);
        let unit = |agent: &AgentConfig| {
            agent.cgroup.as_ref().and_then(|cgroup| cgroup.exact_unit()).is_some_and(|unit| unit == id)
        };
        self.named(unit).or_else(|| {
            let nameable = is_agent_id(id) && !self.is_section_id(id);
            nameable.then(|| self.adopted(id, |agent| agent.is_in(path))).flatten()
        })
    }

    /// Whether a section that adopts nobody has that name.
    pub(super) fn is_section_id(&self, id: &str) -> bool {
        self.agents.get(id).is_some_and(|agent| !agent.adopts())
    }

    fn named(&self, is: impl Fn(&AgentConfig) -> bool) -> Option<Match<'_>> {
        let (section, agent) = self.agents.iter().find(|(_, agent)| !agent.adopts() && is(agent))?;
        Some(Match { id: section, section, agent, adopted: false })
    }

    fn adopted<'a>(&'a self, id: &'a str, is: impl Fn(&AgentConfig) -> bool) -> Option<Match<'a>> {
        let (section, agent) = self.agents.iter().find(|(_, agent)| agent.adopts() && is(agent))?;
        Some(Match { id, section, agent, adopted: true })
    }
}

/// The cgroups that hold the one at `path`, from the outermost.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}
