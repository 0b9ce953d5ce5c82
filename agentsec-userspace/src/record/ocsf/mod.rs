//! Events as [OCSF](https://schema.ocsf.io) documents, for the systems that collect such. Pure.
//!
//! | event | class |
//! |---|---|
//! | `AGENT_INTERACTION`, `ENDPOINT_NEW`, `DROPS` | 4001 Network Activity |
//! | `SECURITY_VIOLATION`, `ALERT` | 2004 Detection Finding |
//! | `CONTAINMENT_ACTION` | 7001 Remediation Activity |
//! | `DAEMON_*`, `CONFIG_LOADED`, `AGENT_*`, `SNAPSHOT` | 6002 Application Lifecycle |
//! | `OPERATOR_COMMAND` | 6003 API Activity |
//! | `LOSS` | 6008 Application Error |
//! | a line that is no event | 0 Base Event |
//!
//! What a class has no place for is under `unmapped`, so nothing of an event is lost. `metadata` holds the event's id
//! (`uid`), the log (`log_name`), its place there (`sequence`) and its integrity hash (`tags`).

mod class;
mod document;
mod finding;
mod lifecycle;
mod network;
mod operator;
mod parts;
mod remediation;
#[cfg(test)]
mod tests;

use super::event::{Event, Flaw, verify};
use crate::core::draft::EventKind;
use class::Class;
use document::Document;
use serde_json::{Value, json};

/// The version of the schema.
pub const VERSION: &str = "1.5.0";

/// The document of one entry of a log, which its origin names once it has signed anything.
#[must_use]
pub fn document(origin: Option<&str>, place: u64, line: &[u8]) -> Value {
    let mut document = of_entry(place, line);
    document.name_log(origin);
    document.finish()
}

fn of_entry(place: u64, line: &[u8]) -> Document {
    let text = std::str::from_utf8(line);
    let verified = text.map_err(|_| Flaw::NotAnEvent).and_then(verify);
    match verified {
        Ok(event) => of_event(place, event, "verified"),
        // It says what it says, and that it cannot be relied on.
        Err(flaw) => match serde_json::from_slice(line) {
            Ok(event) => of_event(place, event, &flaw.to_string()),
            Err(_) => of_line(place, line),
        },
    }
}

fn of_event(place: u64, event: Event, integrity: &str) -> Document {
    let mut document = Document::of(place, &event, integrity);
    let data = document.take_data(event.event_data);
    let agent = event.agent_id.as_deref();
    match event.event_type {
        EventKind::AgentInteraction => network::interaction(&mut document, agent, data),
        EventKind::EndpointNew => network::new_endpoint(&mut document, agent, data),
        EventKind::Drops => network::drops(&mut document, agent, data),
        EventKind::SecurityViolation => finding::violation(&mut document, agent, data),
        EventKind::Alert => finding::alert(&mut document, agent, data),
        EventKind::ContainmentAction => remediation::containment(&mut document, agent, data),
        EventKind::OperatorCommand => operator::command(&mut document, agent, data),
        EventKind::DaemonStarted => lifecycle::daemon(&mut document, (3, "Start"), data),
        EventKind::DaemonStopped => lifecycle::daemon(&mut document, (4, "Stop"), data),
        EventKind::ConfigLoaded => lifecycle::daemon(&mut document, (8, "Update"), data),
        EventKind::AgentAdded => lifecycle::agent(&mut document, (1, "Install"), agent, data),
        EventKind::AgentRemoved => lifecycle::agent(&mut document, (2, "Remove"), agent, data),
        EventKind::AgentAttached => lifecycle::agent(&mut document, (6, "Enable"), agent, data),
        EventKind::AgentDetached => lifecycle::agent(&mut document, (7, "Disable"), agent, data),
        EventKind::Snapshot => lifecycle::snapshot(&mut document, agent, data),
        EventKind::Evidence => lifecycle::evidence(&mut document, agent, data),
        EventKind::Loss => lifecycle::loss(&mut document, agent, data),
    }
    document
}

fn of_line(place: u64, line: &[u8]) -> Document {
    let mut document = Document::bare(place, Flaw::NotAnEvent.to_string());
    document.class(Class::Base, (0, "Unknown"));
    document.set("raw_data", String::from_utf8_lossy(line));
    document.set("message", "this entry of the log is no event");
    document.severity(parts::Severity::High);
    document.set("time", json!(0));
    document
}
