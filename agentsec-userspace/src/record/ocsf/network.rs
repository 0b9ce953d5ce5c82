//! Class 4001: what agents have to do with others.

use super::class::Class;
use super::document::Document;
use super::parts::{Severity, Talk, address, text};
use crate::record::timestamp::Timestamp;
use serde_json::{Map, Value, json};

pub(super) fn interaction(document: &mut Document, agent: Option<&str>, mut data: Map<String, Value>) {
    document.class(Class::NetworkActivity, (6, "Traffic"));
    document.severity(Severity::Informational);
    document.disposition((1, "Allowed"), (1, "Allowed"));
    let talk = talk(agent, &mut data);
    let moments = [("start_time", "first_seen"), ("end_time", "last_seen")];
    for (name, key) in moments {
        let time = data.get(key).and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
        if let Some(time) = time {
            document.set(name, time.0);
        }
    }
    document.set("traffic", traffic(&data, talk.opened_by_remote));
    if let Some(code) = data.get("response_code").and_then(Value::as_u64) {
        document.set("status_code", code.to_string());
        document.status(if code < 400 { (1, "Success") } else { (2, "Failure") });
        data.remove("response_code");
    }
    if let Some(hash) = data.get("payload_hash").and_then(Value::as_str) {
        document.observe("unmapped.event_data.payload_hash", (8, "Hash"), hash);
    }
    document.set("message", message(&talk, &data));
    talk.write(document);
    document.leave_all(data);
}

fn talk(agent: Option<&str>, data: &mut Map<String, Value>) -> Talk {
    let opened_by_remote = data.get("opened_by").and_then(Value::as_str) == Some("remote");
    let peer = if opened_by_remote { "source_agent" } else { "target_agent" };
    let port = |key: &str| data.get(key).and_then(Value::as_u64).and_then(|port| port.try_into().ok());
    let ip = |key: &str| address(data.get(key).and_then(Value::as_str));
    let talk = Talk {
        agent: agent.map(str::to_owned),
        agent_ip: ip("local_address"),
        agent_port: port("local_port"),
        remote_name: data.get(peer).and_then(Value::as_str).map(str::to_owned),
        remote_ip: ip("remote_address"),
        remote_port: port("remote_port"),
        opened_by_remote,
        protocol_name: text(data, "protocol"),
        community_id: text(data, "community_id"),
        ..Talk::default()
    };
    // What the endpoints say now. What they could not take stays.
    for (key, kept) in [
        ("local_address", talk.agent_ip.is_some()),
        ("local_port", talk.agent_port.is_some()),
        ("remote_address", talk.remote_ip.is_some()),
        ("remote_port", talk.remote_port.is_some()),
    ] {
        if kept {
            data.remove(key);
        }
    }
    talk
}

/// What was sent by who opened it is out.
fn traffic(data: &Map<String, Value>, opened_by_remote: bool) -> Value {
    let number = |way: &str, what: &str| data.get(way).and_then(|way| way[what].as_u64()).unwrap_or(0);
    let (out, back) = if opened_by_remote { ("inbound", "outbound") } else { ("outbound", "inbound") };
    let both = |what: &str| number(out, what).saturating_add(number(back, what));
    json!({
        "bytes": both("bytes"), "packets": both("packets"),
        "bytes_out": number(out, "bytes"), "bytes_in": number(back, "bytes"),
        "packets_out": number(out, "packets"), "packets_in": number(back, "packets"),
    })
}

fn message(talk: &Talk, data: &Map<String, Value>) -> String {
    let what = data.get("message_type").and_then(Value::as_str).unwrap_or("flow");
    let [from, to] = talk.endpoints().map(|endpoint| {
        let endpoint = endpoint.unwrap_or_default();
        let name = endpoint["name"].as_str().or_else(|| endpoint["ip"].as_str());
        name.unwrap_or("somebody").to_owned()
    });
    format!("{what} from {from} to {to}")
}

pub(super) fn new_endpoint(document: &mut Document, agent: Option<&str>, data: Map<String, Value>) {
    document.class(Class::NetworkActivity, (1, "Open"));
    document.severity(Severity::Low);
    document.disposition((3, "Observed"), (15, "Detected"));
    let opened_by = data.get("opened_by").and_then(Value::as_str).unwrap_or_default();
    let talk = Talk::of_packet(agent, data.get("packet").unwrap_or(&Value::Null), opened_by);
    document.set("message", "an endpoint that is not typical, for the first time");
    talk.write(document);
    document.leave_all(data);
}

pub(super) fn drops(document: &mut Document, agent: Option<&str>, data: Map<String, Value>) {
    document.class(Class::NetworkActivity, (6, "Traffic"));
    let number = |which: &str, what: &str| data.get(which).and_then(|one| one[what].as_u64()).unwrap_or(0);
    let dropped = number("dropped", "packets") > 0;
    let which = if dropped { "dropped" } else { "would_drop" };
    if dropped {
        document.severity(Severity::Medium);
        document.disposition((2, "Denied"), (6, "Dropped"));
        document.set("message", "packets were dropped");
    } else {
        document.severity(Severity::Low);
        document.disposition((3, "Observed"), (17, "Logged"));
        document.set("message", "packets would have been dropped");
    }
    let traffic = json!({ "bytes": number(which, "bytes"), "packets": number(which, "packets") });
    document.set("traffic", traffic);
    Talk::of_packet(agent, data.get("packet").unwrap_or(&Value::Null), "").write(document);
    document.leave_all(data);
}
