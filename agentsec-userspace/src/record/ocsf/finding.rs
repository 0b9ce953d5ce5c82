//! Class 2004: what somebody should look at.

use super::class::Class;
use super::document::Document;
use super::parts::{Severity, Talk, peek, per_cent, resource, text};
use serde_json::{Map, Value, json};

pub(super) fn violation(document: &mut Document, agent: Option<&str>, mut data: Map<String, Value>) {
    let word = text(&mut data, "severity");
    let severity = word.and_then(|word| Severity::of(&word)).unwrap_or(Severity::Medium);
    let kind = text(&mut data, "violation_type").unwrap_or_else(|| "violation".into());
    let action = text(&mut data, "attempted_action").unwrap_or_default();
    let policy = text(&mut data, "policy_violated");
    begin(document, agent, severity, &kind);
    document.set("message", format!("{}: {action}", words(&kind)));
    let mut info = info(document, &kind, &action);
    if let Some(policy) = policy {
        info["analytic"] = json!({ "type_id": 1, "type": "Rule", "name": policy });
    }
    document.set("finding_info", info);
    document.set_some("risk_score", per_cent(&data, "risk_score"));
    let context = data.get("context").unwrap_or(&Value::Null);
    let evidences: Vec<Value> = [packet(agent, context), process(context)].into_iter().flatten().collect();
    if !evidences.is_empty() {
        document.set("evidences", evidences);
    }
    document.leave_all(data);
}

pub(super) fn alert(document: &mut Document, agent: Option<&str>, data: Map<String, Value>) {
    let kind = [peek(&data, "what"), peek(&data, "alert")].concat();
    let severity = match kind.as_str() {
        "anchor_working" => Severity::Informational,
        "clock_stepped" => Severity::Medium,
        _ => Severity::High,
    };
    begin(document, agent, severity, &kind);
    let detail = ["why", "error", "problems", "interface", "cause"].iter().map(|key| peek(&data, key));
    let detail = detail.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ");
    document.set("message", format!("{}: {detail}", words(&kind)).trim_end_matches(": "));
    let info = info(document, &kind, &detail);
    document.set("finding_info", info);
    document.leave_all(data);
}

fn begin(document: &mut Document, agent: Option<&str>, severity: Severity, kind: &str) {
    document.class(Class::DetectionFinding, (1, "Create"));
    document.severity(severity);
    document.status((1, "New"));
    document.set("is_alert", severity >= Severity::High);
    document.disposition((3, "Observed"), (15, "Detected"));
    document.set_some("resources", agent.map(|agent| json!([resource(agent)])));
    document.leave("kind", kind.into());
}

fn info(document: &Document, kind: &str, description: &str) -> Value {
    json!({
        "uid": document.uid(), "title": words(kind), "desc": description, "types": [kind],
        "data_sources": ["AgentSec"],
    })
}

/// `many_trips` as people write it.
fn words(kind: &str) -> String {
    if kind.is_empty() { "alert".into() } else { kind.replace('_', " ") }
}

fn packet(agent: Option<&str>, context: &Value) -> Option<Value> {
    let packet = context.get("packet").filter(|packet| packet.is_object())?;
    Talk::of_packet(agent, packet, context["opened_by"].as_str().unwrap_or_default()).evidence()
}

/// Somebody on this host: who tried the operators' socket.
fn process(context: &Value) -> Option<Value> {
    let pid = context["pid"].as_i64()?;
    let mut process = json!({ "pid": pid });
    if let Some(uid) = context["uid"].as_u64() {
        process["user"] = json!({ "uid": uid.to_string() });
    }
    Some(json!({ "process": process }))
}
