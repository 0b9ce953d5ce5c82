//! Class 7001: containment, and the way back.

use super::class::Class;
use super::document::Document;
use super::parts::{Severity, peek, per_cent};
use serde_json::{Map, Value, json};

pub(super) fn containment(document: &mut Document, agent: Option<&str>, data: Map<String, Value>) {
    let step = Step::of(&data);
    document.class(Class::RemediationActivity, step.activity());
    document.severity(match (step, data.get("automated")) {
        (Step::Isolate, Some(Value::Bool(true))) => Severity::High,
        (Step::Isolate, _) => Severity::Medium,
        _ => Severity::Informational,
    });
    document.status((1, "Success"));
    document.set("status_detail", peek(&data, "isolation_level"));
    let uid = document.uid();
    document.set("command_uid", uid);
    match step {
        Step::Isolate => document.disposition((2, "Denied"), (4, "Isolated")),
        Step::Restore => document.disposition((1, "Allowed"), (9, "Restored")),
        Step::Other => document.disposition((3, "Observed"), (17, "Logged")),
    }
    if let Some((tactic, uid, technique)) = step.countermeasure() {
        let countermeasure =
            json!({ "d3f_tactic": { "name": tactic }, "d3f_technique": { "uid": uid, "name": technique } });
        document.set("countermeasures", json!([countermeasure]));
    }
    let who = agent.unwrap_or("an agent");
    let (action, reason) = (peek(&data, "action_type"), peek(&data, "trigger_reason"));
    document.set("message", format!("{action} of {who}: {reason}"));
    document.set_some("risk_score", per_cent(&data, "risk"));
    let packet = [&data, data.get("tripped").and_then(Value::as_object).unwrap_or(&data)]
        .into_iter()
        .find_map(|holder| holder.get("packet")?.get("remote")?.as_str().map(str::to_owned));
    if let Some(remote) = super::parts::address(packet.as_deref()) {
        document.observe("unmapped.event_data.packet.remote", (2, "IP Address"), &remote);
    }
    document.leave_all(data);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Isolate,
    Restore,
    Other,
}

impl Step {
    /// Stricter or laxer than before?
    fn of(data: &Map<String, Value>) -> Self {
        if peek(data, "action_type") == "EMERGENCY_RECOVERY" {
            return Self::Restore;
        }
        let rank = |state: &str| match state {
            "OPEN" | "open" => 2,
            "HALF_OPEN" | "half_open" => 1,
            _ => 0,
        };
        let now = match peek(data, "isolation_level") {
            "full" => 2,
            "partial" => 1,
            _ => 0,
        };
        let enforced = peek(data, "from_mode") == "enforce";
        let before = if enforced { rank(peek(data, "from")) } else { 0 };
        match now.cmp(&before) {
            std::cmp::Ordering::Greater => Self::Isolate,
            std::cmp::Ordering::Less => Self::Restore,
            std::cmp::Ordering::Equal => Self::Other,
        }
    }

    const fn activity(self) -> (u32, &'static str) {
        match self {
            Self::Isolate => (1, "Isolate"),
            Self::Restore => (3, "Restore"),
            Self::Other => (99, "Other"),
        }
    }

    /// Tactic and technique of MITRE D3FEND.
    const fn countermeasure(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Isolate => Some(("Isolate", "D3-NI", "Network Isolation")),
            Self::Restore => Some(("Restore", "D3-RNA", "Restore Network Access")),
            Self::Other => None,
        }
    }
}
