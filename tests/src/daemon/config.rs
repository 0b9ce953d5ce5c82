//! The daemon's configuration, put together by tests.

use std::fmt;

use anyhow::{Context, Result};
use toml::{Table, Value};

/// A TOML document that grows by settings. It knows nothing of their meaning; the daemon judges them.
#[derive(Clone, Debug, Default)]
pub struct Config {
    table: Table,
}

impl Config {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that begins with this text.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self { table: text.parse().context("the configuration is not TOML")? })
    }

    /// Sets what a dotted path such as `breaker.cool_down` names.
    ///
    /// # Panics
    /// When a part of the path before the last is something else than a table.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        insert(&mut self.table, path, value.into());
        self
    }

    /// Adds an agent that meets the kernel at this interface: an element of `agents` with its `id` and `interface`.
    #[must_use]
    pub fn agent(self, id: &str, interface: &str) -> Self {
        let mut agent = Table::new();
        agent.insert("id".to_owned(), id.into());
        agent.insert("interface".to_owned(), interface.into());
        self.element("agents", agent)
    }

    /// Sets something of the agent that was added last.
    ///
    /// # Panics
    /// When there is none, and as [`Config::set`] does.
    #[must_use]
    pub fn of_agent(mut self, path: &str, value: impl Into<Value>) -> Self {
        let agents = self.table.get_mut("agents").and_then(Value::as_array_mut);
        let last = agents.and_then(|agents| agents.last_mut()).and_then(Value::as_table_mut);
        insert(last.expect("an agent was added before"), path, value.into());
        self
    }

    /// Adds a table to the array of tables `name`.
    ///
    /// # Panics
    /// When `name` is something else.
    #[must_use]
    pub fn element(mut self, name: &str, element: Table) -> Self {
        let array = self.table.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        array.as_array_mut().expect("an array of tables").push(Value::Table(element));
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
            .set("breaker.cool_down", "5s")
            .agent("a", "agent-0")
            .of_agent("profile.max_volume", 1000)
            .agent("b", "agent-1");
        let again: Table = config.to_string().parse().unwrap();
        assert_eq!(again["breaker"]["cool_down"].as_str(), Some("5s"));
        assert_eq!(again["agents"][0]["profile"]["max_volume"].as_integer(), Some(1000));
        assert_eq!(again["agents"][1]["interface"].as_str(), Some("agent-1"));
    }
}
