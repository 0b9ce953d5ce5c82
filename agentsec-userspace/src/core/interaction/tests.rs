//! Flows become events, and what becomes none is counted.

use super::*;
use agentsec_common::policy::State;
use proptest::prelude::*;

fn at(mono_s: u64) -> Time {
    Time { mono_ns: mono_s * 1_000_000_000, wall_ns: (1_700_000_000 + mono_s) * 1_000_000_000 }
}

fn flow(agent: &str, opened_by: OpenedBy, local: &str, remote: &str) -> FlowSummary {
    FlowSummary {
        agent: agent.into(),
        opened_by,
        protocol: 6,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        outbound: Traffic { bytes: 100, packets: 2 },
        inbound: Traffic { bytes: 50, packets: 1 },
        first_seen_ns: 1_000_000_000,
        last_seen_ns: 2_000_000_000,
        message: Message::default(),
    }
}

#[test]
fn both_sides_of_a_flow_tell_the_same_source_target_and_id() {
    let opened = flow("a", OpenedBy::Agent, "10.0.0.1:40000", "10.0.0.2:8000").draft(at(3), Some("b"));
    let accepted = flow("b", OpenedBy::Remote, "10.0.0.2:8000", "10.0.0.1:40000").draft(at(3), Some("a"));
    for draft in [&opened, &accepted] {
        assert_eq!(draft.kind, EventKind::AgentInteraction);
        assert_eq!((&draft.data["source_agent"], &draft.data["target_agent"]), (&"a".into(), &"b".into()));
        assert_eq!(draft.correlation_id.as_deref(), draft.data["community_id"].as_str());
    }
    assert_eq!(opened.correlation_id, accepted.correlation_id);
    assert!(opened.correlation_id.is_some_and(|id| id.starts_with("1:")));
}

#[test]
fn an_interaction_has_every_field_of_the_contract_with_its_unit() {
    let mut summary = flow("a", OpenedBy::Agent, "[::ffff:10.0.0.1]:40000", "[2001:db8::2]:80");
    summary.message = Message {
        kind: Some("http POST".into()),
        payload_hash: Some("ab".repeat(32)),
        requests: 3,
        response_code: Some(401),
        latency_us: Some(1500),
        auth_method: Some("bearer".into()),
        trace_id: trace::trace_id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .map(str::to_owned),
        reported_id: Some("order-7".into()),
    };
    let data = summary.draft(at(3), None).data;
    let expected = serde_json::json!({
        "source_agent": "a", "target_agent": null, "message_type": "http POST", "payload_hash": "ab".repeat(32),
        "response_code": 401, "latency_ms": 1.5, "auth_method": "bearer", "requests": 3,
        "community_id": summary.community_id(), "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "reported_id": "order-7", "protocol": "tcp", "opened_by": "agent",
        "local_address": "10.0.0.1", "local_port": 40000, "remote_address": "2001:db8::2", "remote_port": 80,
        "outbound": { "bytes": 100, "packets": 2 }, "inbound": { "bytes": 50, "packets": 1 },
        "first_seen": "2023-11-14T22:13:21.000000000Z", "last_seen": "2023-11-14T22:13:22.000000000Z",
    });
    assert_eq!(data, expected);
}

#[test]
fn what_has_no_community_id_is_known_by_its_trace_else_by_what_was_reported() {
    let mut ping = FlowSummary { protocol: 1, ..flow("a", OpenedBy::Agent, "10.0.0.1:0", "10.0.0.2:0") };
    assert_eq!(ping.draft(at(3), None).correlation_id, None);
    ping.message.reported_id = Some("r".into());
    assert_eq!(ping.draft(at(3), None).correlation_id.as_deref(), Some("r"));
    ping.message.trace_id = Some("t".into());
    assert_eq!(ping.draft(at(3), None).correlation_id.as_deref(), Some("t"));
}

#[test]
fn a_risky_agent_is_recorded_completely_and_a_calm_one_sampled() {
    let settings = SamplingSettings { one_in: 10, ..SamplingSettings::default() };
    let one = flow("a", OpenedBy::Agent, "10.0.0.1:1", "10.0.0.2:80");
    for (state, risk, expected) in [
        (State::Closed, 0, 10),
        (State::Closed, settings.calm_below_milli - 1, 10),
        (State::Closed, settings.calm_below_milli, 100),
        (State::HalfOpen, 0, 100),
        (State::Open, 0, 100),
    ] {
        let mut sampler = Sampler::new(settings);
        let admitted = (0..100).filter(|_| sampler.admits(at(0), &one, state, risk)).count();
        assert_eq!(admitted, expected, "{state:?}, risk {risk}");
    }
}

#[test]
fn the_first_interaction_with_each_endpoint_is_recorded_in_every_interval() {
    let mut sampler = Sampler::new(SamplingSettings { one_in: 1000, ..SamplingSettings::default() });
    let to = |port: u16| flow("a", OpenedBy::Agent, "10.0.0.1:1", &format!("10.0.0.2:{port}"));
    for second in [0, 60] {
        assert!(sampler.admits(at(second), &to(80), State::Closed, 0), "{second}");
        assert!(sampler.admits(at(second), &to(81), State::Closed, 0), "{second}");
        assert!(!sampler.admits(at(second), &to(80), State::Closed, 0), "{second}");
        assert!(sampler.end_intervals(at(second + 59)).is_empty());
        let told = sampler.end_intervals(at(second + 60));
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].kind, told[0].agent_id.as_deref()), (EventKind::Loss, Some("a")));
        assert_eq!(told[0].data["interactions"], 1);
        assert_eq!(
            (&told[0].data["outbound_bytes"], &told[0].data["inbound_bytes"]),
            (&100.into(), &50.into())
        );
    }
}

proptest! {
    #[test]
    fn everything_is_either_recorded_or_counted(
        flows in prop::collection::vec((0u8..3, 0u16..2000, 0u16..1000), 0..300), one_in in 0u32..9,
    ) {
        let mut sampler = Sampler::new(SamplingSettings { one_in, ..SamplingSettings::default() });
        let mut admitted = 0;
        for (agent, port, risk) in &flows {
            let one = flow(&format!("agent-{agent}"), OpenedBy::Agent, "10.0.0.1:1", &format!("10.0.0.2:{port}"));
            admitted += u64::from(sampler.admits(at(0), &one, State::Closed, *risk));
        }
        let told = sampler.end_intervals(at(1000));
        let counted: u64 = told.iter().map(|draft| draft.data["interactions"].as_u64().unwrap()).sum();
        prop_assert_eq!(admitted + counted, flows.len() as u64);
    }
}
