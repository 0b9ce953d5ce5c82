//! The contract, word for word.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::api::time::Timestamp;

/// An agent that the kernel has tripped, with every field set.
pub(crate) fn tripped_agent() -> AgentStatus {
    AgentStatus {
        id: "crawler".into(),
        state: State::Open,
        mode: Mode::Enforce,
        risk: Risk(700),
        contributions: Contributions { volume: Risk(400), endpoints: Risk(300), ..Contributions::default() },
        epoch: 3,
        outbound: Direction {
            bytes: 10_485_760,
            packets: 7_000,
            dropped_bytes: 4_200_000,
            dropped_packets: 2_800,
        },
        inbound: Direction { bytes: 99, packets: 1, dropped_bytes: 0, dropped_packets: 0 },
        attachments: vec![Attachment {
            kind: AttachmentKind::Interface,
            interface: Some("veth-crawler".into()),
            ifindex: Some(12),
            status: AttachmentStatus::Attached,
            hook: Some("tcx".into()),
            ..Attachment::default()
        }],
        tripped: Some(Trip {
            by: "kernel".into(),
            at: Timestamp(1_700_000_000_123),
            reason: "volume limit".into(),
            risk: Risk(400),
            contributions: Contributions { volume: Risk(400), ..Contributions::default() },
        }),
        profile: "web".into(),
        tags: vec!["batch".into(), "eu".into()],
        slot: 4,
        trips: 1,
        hold: false,
        next: Some("probes in 12 s".into()),
        signals: Signals {
            volume: 10_485_760,
            unusual_endpoints: 3,
            deviation_ms: 12.5,
            auth: AuthCounts { http_401: 2, ..AuthCounts::default() },
            response_time: ResponseTimes {
                samples: 40,
                p50_ms: Some(51.5),
                p99_ms: Some(130.25),
                deviation_ms: Some(12.5),
            },
            requests: 40,
            requests_per_minute: 40.0,
            expected_requests_per_minute: Some(100),
            anomalous_requests: 1,
            flows: 3,
            ..Signals::default()
        },
        limits: Limits { max_volume: Some(10_485_760), quarantine_threshold: Risk(700), ..Limits::default() },
        would_drop: WouldDrop::default(),
        classes: Classes { ipv4: 7_001, ..Classes::default() },
        endpoints: EndpointCounts { opened: 3, accepted: 0, overflow: 0 },
        uncovered: Vec::new(),
        totals: TotalCounts { requests: 90, anomalous_requests: 1, responses: 80 },
        lost: LossCounts { flows: 7, ..LossCounts::default() },
    }
}

pub(crate) fn one_agent() -> Status {
    Status {
        agents: vec![tripped_agent()],
        daemon: DaemonStatus {
            pid: 42,
            version: "0.1.0".into(),
            started_at: Timestamp(1_700_000_000_000),
            uptime_s: 90,
            config: "/etc/agentsec/agentsec.toml".into(),
            interval_ms: 250,
            layout: 1,
            pin_path: "/sys/fs/bpf/agentsec".into(),
            kernel: "6.18.0".into(),
            agents_by_state: AgentsByState { closed: 0, half_open: 0, open: 1 },
            strays: StrayPackets::default(),
            events: EventCounts { written: 5, queued: 0, lost: 0 },
            bundles: BundleCounts { collected: 2, partial: 1, ..BundleCounts::default() },
            anchors: BTreeMap::new(),
            samples_read: 11,
            samples_cut: 2,
            attachments_pending: 0,
            packet_sockets: None,
            alerts: Vec::new(),
        },
    }
}

#[test]
fn the_status_is_the_contract() {
    let expected = json!({
        "agents": [{
            "id": "crawler", "state": "OPEN", "mode": "enforce", "risk": 0.7,
            "contributions": {
                "auth": 0.0, "volume": 0.4, "endpoints": 0.3, "deviation": 0.0, "requests": 0.0, "anomalous": 0.0,
                "extra": 0.0
            },
            "epoch": 3,
            "outbound": {"bytes": 10485760, "packets": 7000, "dropped_bytes": 4200000, "dropped_packets": 2800},
            "inbound": {"bytes": 99, "packets": 1, "dropped_bytes": 0, "dropped_packets": 0},
            "attachments": [{
                "kind": "interface", "interface": "veth-crawler", "ifindex": 12, "status": "attached", "hook": "tcx"
            }],
            "tripped": {
                "by": "kernel", "at": "2023-11-14T22:13:20.123Z", "reason": "volume limit", "risk": 0.4,
                "contributions": {
                    "auth": 0.0, "volume": 0.4, "endpoints": 0.0, "deviation": 0.0, "requests": 0.0, "anomalous": 0.0,
                    "extra": 0.0
                }
            },
            "profile": "web", "tags": ["batch", "eu"], "slot": 4, "trips": 1, "hold": false, "next": "probes in 12 s",
            "signals": {
                "volume": 10485760, "unusual_endpoints": 3, "auth_failures": 0, "deviation_ms": 12.5,
                "auth": {
                    "http_401": 2, "http_403": 0, "http_407": 0, "tls_alert": 0, "refused": 0, "reset_before_data": 0,
                    "sampled": 0
                },
                "response_time": {"samples": 40, "p50_ms": 51.5, "p99_ms": 130.25, "deviation_ms": 12.5},
                "requests": 40, "requests_per_minute": 40.0, "expected_requests_per_minute": 100,
                "anomalous_requests": 1, "flows": 3
            },
            "limits": {
                "max_volume": 10485760, "max_unusual_endpoints": null, "max_auth_failures": null,
                "max_variance_ms": null,
                "quarantine_threshold": 0.7
            },
            "would_drop": {"bytes": 0, "packets": 0},
            "classes": {"ipv4": 7001, "ipv6": 0, "arp": 0, "other": 0, "malformed": 0, "fragment": 0},
            "endpoints": {"opened": 3, "accepted": 0, "overflow": 0},
            "uncovered": [],
            "totals": {"requests": 90, "anomalous_requests": 1, "responses": 80},
            "lost": {"notices": 0, "endpoints": 0, "flows": 7, "responses": 0, "samples": 0, "interactions": 0, "requests": 0, "records": 0}
        }],
        "daemon": {
            "pid": 42, "version": "0.1.0", "started_at": "2023-11-14T22:13:20.000Z", "uptime_s": 90,
            "config": "/etc/agentsec/agentsec.toml", "interval_ms": 250, "layout": 1,
            "pin_path": "/sys/fs/bpf/agentsec", "kernel": "6.18.0",
            "agents_by_state": {"CLOSED": 0, "HALF_OPEN": 0, "OPEN": 1},
            "strays": {"unidentified_packets": 0, "unpoliced_packets": 0},
            "events": {"written": 5, "queued": 0, "lost": 0},
            "bundles": {"collected": 2, "partial": 1, "failed": 0, "waiting": 0, "removed": 0},
            "samples_read": 11, "samples_cut": 2, "attachments_pending": 0, "alerts": []
        }
    });
    assert_eq!(serde_json::to_value(one_agent()).unwrap(), expected);
    assert_eq!(serde_json::from_value::<Status>(expected).unwrap(), one_agent());
}

#[test]
fn an_agent_that_never_tripped_says_null() {
    let calm = serde_json::to_value(AgentStatus::default()).unwrap();
    assert_eq!(calm["tripped"], json!(null));
    assert_eq!(calm["state"], "CLOSED");
    assert_eq!(serde_json::to_value(State::HalfOpen).unwrap(), "HALF_OPEN");
    for (mode, name) in [(Mode::Enforce, "enforce"), (Mode::Shadow, "shadow"), (Mode::Exempt, "exempt")] {
        assert_eq!(serde_json::to_value(mode).unwrap(), name);
        assert_eq!(mode.name(), name);
    }
}

#[test]
fn every_risk_survives_its_number() {
    for milli in 0..=1000 {
        let text = serde_json::to_string(&Risk(milli)).unwrap();
        assert!(text.len() <= 5, "{text} has at most three decimals");
        assert_eq!(serde_json::from_str::<Risk>(&text).unwrap(), Risk(milli));
    }
    assert_eq!(Risk(1000).to_string(), "1.000");
    assert_eq!(Risk(7).to_string(), "0.007");
}

#[test]
fn the_top_contribution_is_the_greatest_and_the_first_of_equals() {
    assert_eq!(Contributions::default().top(), None);
    let terms = Contributions { auth: Risk(300), endpoints: Risk(300), ..Contributions::default() };
    assert_eq!(terms.top(), Some(("auth", Risk(300))));
}
