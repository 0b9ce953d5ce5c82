//! What the documents say. Whether they keep to the schema is checked with another's code, in `tests/tests/exports.rs`.

use super::document;
use crate::core::draft::{Draft, EventKind};
use crate::core::time::Time;
use crate::record::event::{Sealer, UuidV7};
use serde_json::{Value, json};

const ORIGIN: &str = "agentsec.local/host/1";

fn sealed(kind: EventKind, agent: Option<&str>, data: Value) -> String {
    let mut sealer = Sealer::new("host".into(), "boot".into(), Box::new(UuidV7::default()));
    let at = Time { mono_ns: 5, wall_ns: 1_700_000_000_123_456_789 };
    let draft = Draft {
        agent_id: agent.map(str::to_owned),
        correlation_id: Some("incident".into()),
        ..Draft::daemon(at, kind, data)
    };
    sealer.seal(draft).to_line()
}

fn of(kind: EventKind, agent: Option<&str>, data: Value) -> Value {
    document(Some(ORIGIN), 7, sealed(kind, agent, data).as_bytes())
}

fn tag<'a>(document: &'a Value, name: &str) -> &'a Value {
    let tags = document["metadata"]["tags"].as_array().unwrap();
    &tags.iter().find(|tag| tag["name"] == name).unwrap()["value"]
}

#[test]
fn a_document_says_which_entry_it_is_and_that_it_is_intact() {
    let line = sealed(EventKind::DaemonStarted, None, json!({ "version": "9.9", "pid": 7 }));
    let event: Value = serde_json::from_str(&line).unwrap();
    let document = document(Some(ORIGIN), 7, line.as_bytes());
    assert_eq!(document["time"], 1_700_000_000_123u64);
    let metadata = &document["metadata"];
    assert_eq!((&metadata["uid"], &metadata["sequence"]), (&event["event_id"], &json!(7)));
    assert_eq!(
        (&metadata["event_code"], &metadata["correlation_uid"]),
        (&json!("DAEMON_STARTED"), &json!("incident"))
    );
    assert_eq!((&metadata["log_provider"], &metadata["log_name"]), (&json!("agentsec"), &json!(ORIGIN)));
    assert_eq!(metadata["original_time"], event["timestamp"]);
    assert_eq!(
        (tag(&document, "integrity"), tag(&document, "integrity_hash")),
        (&json!("verified"), &event["integrity_hash"])
    );
    assert_eq!(
        (&document["class_uid"], &document["activity_id"], &document["type_uid"]),
        (&json!(6002), &json!(3), &json!(600_203))
    );
    assert_eq!(document["unmapped"]["event_data"], json!({ "version": "9.9", "pid": 7 }));
    assert_eq!(document["app"]["version"], "9.9");
}

#[test]
fn what_is_altered_or_no_event_is_told_and_never_left_out() {
    let line = sealed(EventKind::Alert, Some("a"), json!({ "what": "many_trips" }));
    let altered = document(Some(ORIGIN), 7, line.replace("many_trips", "no_trouble").as_bytes());
    assert_eq!(tag(&altered, "integrity"), "the line does not match its integrity_hash");
    assert_eq!(altered["class_uid"], 2004);
    for line in [&b"words"[..], b"\xff\xfe", b"{}", b""] {
        let document = document(Some(ORIGIN), 7, line);
        assert_eq!((&document["class_uid"], &document["severity_id"]), (&json!(0), &json!(4)));
        assert_eq!(document["raw_data"], String::from_utf8_lossy(line).as_ref());
        assert_eq!(tag(&document, "integrity"), "the line is not an event");
    }
}

#[test]
fn an_interaction_has_who_opened_it_first_and_counts_in_that_direction() {
    let data = |opened_by: &str, source: Value, target: Value| {
        json!({
            "source_agent": source, "target_agent": target, "opened_by": opened_by, "message_type": "http GET",
            "payload_hash": "ab".repeat(32), "response_code": 503, "latency_ms": 1.5, "auth_method": "bearer",
            "requests": 1, "community_id": "1:x=", "trace_id": null, "reported_id": null, "protocol": "tcp",
            "local_address": "10.0.0.1", "local_port": 4000, "remote_address": "2001:db8::7", "remote_port": 80,
            "outbound": { "bytes": 100, "packets": 2 }, "inbound": { "bytes": 300, "packets": 3 },
            "first_seen": "2023-11-14T22:13:19.000000000Z", "last_seen": "2023-11-14T22:13:20.000000000Z",
        })
    };
    let ours = of(EventKind::AgentInteraction, Some("a"), data("agent", json!("a"), Value::Null));
    assert_eq!(ours["src_endpoint"], json!({ "uid": "a", "name": "a", "ip": "10.0.0.1", "port": 4000 }));
    assert_eq!(ours["dst_endpoint"], json!({ "ip": "2001:db8::7", "port": 80 }));
    assert_eq!((&ours["traffic"]["bytes_out"], &ours["traffic"]["packets_in"]), (&json!(100), &json!(3)));
    assert_eq!(
        (&ours["connection_info"]["direction_id"], &ours["connection_info"]["community_uid"]),
        (&json!(2), &json!("1:x="))
    );
    assert_eq!((&ours["status_id"], &ours["status_code"]), (&json!(2), &json!("503")));
    assert_eq!(ours["end_time"], 1_700_000_000_000u64);
    assert_eq!(ours["message"], "http GET from a to 2001:db8::7");
    let left = &ours["unmapped"]["event_data"];
    assert_eq!((&left["auth_method"], &left["local_port"]), (&json!("bearer"), &Value::Null));
    let theirs = of(EventKind::AgentInteraction, Some("a"), data("remote", json!("b"), json!("a")));
    assert_eq!((&theirs["src_endpoint"]["uid"], &theirs["dst_endpoint"]["uid"]), (&json!("b"), &json!("a")));
    assert_eq!(
        (&theirs["traffic"]["bytes_out"], &theirs["connection_info"]["direction_id"]),
        (&json!(300), &json!(3))
    );
    let ips: Vec<&Value> =
        theirs["observables"].as_array().unwrap().iter().filter(|one| one["type_id"] == 2).collect();
    assert_eq!(
        (ips.len(), &ips[0]["value"], &ips[0]["name"]),
        (2, &json!("2001:db8::7"), &json!("src_endpoint.ip"))
    );
}

#[test]
fn containment_isolates_or_restores() {
    let data = |from: &str, level: &str, from_mode: &str| {
        json!({
            "action_type": "X", "trigger_reason": "risk of 0.8", "automated": true, "isolation_level": level,
            "from": from, "from_mode": from_mode, "risk": 0.812,
        })
    };
    for (from, level, mode, activity, disposition) in [
        ("CLOSED", "full", "enforce", 1, 4),
        ("CLOSED", "partial", "enforce", 1, 4),
        ("OPEN", "partial", "enforce", 3, 9),
        ("HALF_OPEN", "none", "enforce", 3, 9),
        ("OPEN", "none", "shadow", 99, 17),
        ("OPEN", "full", "shadow", 1, 4),
    ] {
        let document = of(EventKind::ContainmentAction, Some("a"), data(from, level, mode));
        assert_eq!(
            (&document["activity_id"], &document["disposition_id"]),
            (&json!(activity), &json!(disposition)),
            "{from} {level} {mode}"
        );
        assert_eq!((&document["class_uid"], &document["risk_score"]), (&json!(7001), &json!(81)));
    }
    let back = json!({ "action_type": "EMERGENCY_RECOVERY", "isolation_level": "full" });
    assert_eq!(of(EventKind::ContainmentAction, Some("a"), back)["activity_id"], 3);
}

#[test]
fn no_field_of_any_events_data_is_lost() {
    // Whatever shape the data has, its words are somewhere in the document.
    for kind in EventKind::ALL {
        for data in [
            json!({ "severity": 7, "violation_type": ["odd-1"], "protocol": { "odd": "odd-2" }, "local_port": "odd-3",
                    "response_code": "odd-4", "remote_address": "odd-5", "packet": "odd-6", "context": ["odd-7"] }),
            json!(["odd-1", "odd-2", "odd-3", "odd-4", "odd-5", "odd-6", "odd-7"]),
        ] {
            let document = of(kind, None, data).to_string();
            for number in 1..=7 {
                assert!(document.contains(&format!("odd-{number}")), "{kind:?}: odd-{number} in {document}");
            }
        }
    }
}
