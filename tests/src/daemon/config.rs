//! The daemon's configuration, put together by tests.

use std::fmt;

use anyhow::{Context, Result};
use toml::{Table, Value};

/// A TOML document that grows by settings. It knows nothing of their meaning; the daemon judges them.
#[derive(Clone, Debug, Default)]
pub struct Config {
    table: Table,
    last_agent: Option<String>,
}

impl Config {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that begins with this text.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self { table: text.parse().context("the configuration is not TOML")?, last_agent: None })
    }

    /// Sets what a dotted path such as `breaker.cooldown` names.
    ///
    /// # Panics
    /// When a part of the path before the last is something else than a table.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        insert(&mut self.table, path, value.into());
        self
    }

    /// Adds an agent section `id` for this interface or pattern.
    #[must_use]
    pub fn agent(self, id: &str, interface: &str) -> Self {
        self.agent_by(id, "interface", interface)
    }

    /// Adds an agent section `id` that says by this key, such as `cgroup` or `address`, where the agent is.
    ///
    /// # Panics
    /// When `agents` is something else than a table.
    #[must_use]
    pub fn agent_by(mut self, id: &str, key: &str, value: impl Into<Value>) -> Self {
        let mut agent = Table::new();
        agent.insert(key.to_owned(), value.into());
        let agents = self.table.entry("agents").or_insert_with(|| Value::Table(Table::new()));
        agents.as_table_mut().expect("a table of agents").insert(id.to_owned(), Value::Table(agent));
        self.last_agent = Some(id.to_owned());
        self
    }

    /// Sets something of the agent that was added last.
    ///
    /// # Panics
    /// When there is none, and as [`Config::set`] does.
    #[must_use]
    pub fn of_agent(mut self, path: &str, value: impl Into<Value>) -> Self {
        let id = self.last_agent.as_deref().expect("an agent was added before");
        let agent = self.table.get_mut("agents").and_then(|agents| agents.get_mut(id));
        insert(agent.and_then(Value::as_table_mut).expect("a table"), path, value.into());
        self
    }
}

impl fmt::Display for Config {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}", self.table)
    }
}

fn insert(mut table: &mut Table, path: &str, value: Value) {
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            table.insert(part.to_owned(), value);
            return;
        }
        let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
        table = inner.as_table_mut().expect("a table in the middle of the path");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_and_agents_become_toml() {
        let config = Config::new()
            .set("breaker.cooldown", "5s")
            .agent("a", "agent-0")
            .of_agent("breaker.probe", "2s")
            .agent("b", "agent-1");
        let again: Table = config.to_string().parse().unwrap();
        assert_eq!(again["breaker"]["cooldown"].as_str(), Some("5s"));
        assert_eq!(again["agents"]["a"]["breaker"]["probe"].as_str(), Some("2s"));
        assert_eq!(again["agents"]["b"]["interface"].as_str(), Some("agent-1"));
    }
}
