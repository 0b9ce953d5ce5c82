//! Classes 6002 and 6008: the daemon, the agents, their snapshots, and what was lost.

use super::class::Class;
use super::document::Document;
use super::parts::{Severity, peek};
use serde_json::{Map, Value, json};

pub(super) fn daemon(document: &mut Document, activity: (u32, &str), data: Map<String, Value>) {
    document.class(Class::ApplicationLifecycle, activity);
    document.severity(Severity::Informational);
    document.status((1, "Success"));
    let version = data.get("version").and_then(Value::as_str).unwrap_or(env!("CARGO_PKG_VERSION"));
    let app = json!({ "name": "AgentSec", "uid": "agentsec", "vendor_name": "AgentSec", "version": version });
    document.set("app", app);
    document.set("message", format!("the daemon: {}", activity.1.to_lowercase()));
    document.leave_all(data);
}

pub(super) fn agent(
    document: &mut Document,
    activity: (u32, &str),
    agent: Option<&str>,
    data: Map<String, Value>,
) {
    document.class(Class::ApplicationLifecycle, activity);
    let failed = peek(&data, "why") == "failed";
    document.severity(match (activity.0, failed) {
        (_, true) => Severity::High,
        // An agent that our programs do not see.
        (7, false) => Severity::Low,
        _ => Severity::Informational,
    });
    document.status(if failed { (2, "Failure") } else { (1, "Success") });
    app(document, agent);
    let who = agent.unwrap_or("an agent");
    document.set("message", format!("{who}: {}", what_happened(activity.0)));
    document.leave_all(data);
}

const fn what_happened(activity: u32) -> &'static str {
    match activity {
        1 => "became known",
        2 => "is no longer known",
        6 => "is attached",
        _ => "is not attached",
    }
}

/// The agent as the application that it is about.
fn app(document: &mut Document, agent: Option<&str>) {
    let name = agent.unwrap_or("agentsec");
    document.set("app", json!({ "name": name, "uid": name }));
}

pub(super) fn snapshot(document: &mut Document, agent: Option<&str>, data: Map<String, Value>) {
    let action = peek(&data, "action").to_owned();
    let failed = action == "failed";
    document.class(Class::ApplicationLifecycle, (99, &format!("Snapshot {action}")));
    document.severity(if failed { Severity::Medium } else { Severity::Informational });
    document.status(if failed { (2, "Failure") } else { (1, "Success") });
    if failed {
        document.set("status_detail", peek(&data, "error"));
    }
    app(document, agent);
    document.set("message", format!("snapshot of {}: {action}", agent.unwrap_or("an agent")));
    document.leave_all(data);
}

pub(super) fn evidence(document: &mut Document, agent: Option<&str>, data: Map<String, Value>) {
    let action = peek(&data, "action_type").to_owned();
    let failed = matches!(action.as_str(), "EVIDENCE_FAILED" | "EVIDENCE_LOST");
    let words = action.to_lowercase().replace('_', " ");
    document.class(Class::ApplicationLifecycle, (99, &words));
    document.severity(if failed { Severity::Medium } else { Severity::Informational });
    document.status(if failed { (2, "Failure") } else { (1, "Success") });
    if failed {
        document.set("status_detail", peek(&data, "error"));
    }
    app(document, agent);
    document.set("message", format!("{}: {words}", agent.unwrap_or("an agent")));
    document.leave_all(data);
}

pub(super) fn loss(document: &mut Document, _agent: Option<&str>, data: Map<String, Value>) {
    let what = peek(&data, "what").to_owned();
    document.class(Class::ApplicationError, (1, "General Error"));
    // What is let go on purpose is no mishap.
    let meant = matches!(what.as_str(), "retention" | "sampled" | "interactions_sampled");
    document.severity(if meant { Severity::Informational } else { Severity::Medium });
    document.status(if meant { (1, "Success") } else { (2, "Failure") });
    let what = if what.is_empty() { "data".to_owned() } else { what.replace('_', " ") };
    document.set("message", if meant { format!("let go: {what}") } else { format!("lost: {what}") });
    document.leave_all(data);
}
