//! Class 6003: what operators asked for.

use super::class::Class;
use super::document::Document;
use super::parts::{Severity, peek, resource};
use serde_json::{Map, Value, json};

pub(super) fn command(document: &mut Document, agent: Option<&str>, data: Map<String, Value>) {
    document.class(Class::ApiActivity, (3, "Update"));
    let outcomes = data.get("outcomes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let refused: Vec<&str> = outcomes.iter().filter_map(|one| one["refused"].as_str()).collect();
    let failed = !refused.is_empty() && refused.len() == outcomes.len();
    document.severity(if refused.is_empty() { Severity::Informational } else { Severity::Low });
    document.status(if failed { (2, "Failure") } else { (1, "Success") });
    if let Some(why) = refused.first() {
        document.set("status_detail", *why);
    }
    let (command, by) = (peek(&data, "command"), peek(&data, "by"));
    let by = if by.is_empty() { "unknown" } else { by };
    document.set("actor", json!({ "user": { "name": by } }));
    document.observe("actor.user.name", (4, "User Name"), by);
    let api = json!({ "operation": command, "service": { "name": "agentsec" } });
    document.set("api", api);
    // Operators speak over a socket of this host.
    document.set("src_endpoint", json!({ "name": "the operators' socket" }));
    let named = outcomes.iter().filter_map(|one| one["agent_id"].as_str());
    let mut agents: Vec<&str> = named.chain(agent).collect();
    agents.sort_unstable();
    agents.dedup();
    if !agents.is_empty() {
        document.set("resources", agents.iter().map(|agent| resource(agent)).collect::<Vec<_>>());
    }
    document.set("message", format!("{by} asked for {command}"));
    document.leave_all(data);
}
