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
        is_over: true,
        message: Message::default(),
    }
}

fn peer(agent: &str) -> Peer {
    Peer { agent: agent.into(), by: KnownBy::Flow }
}

fn standing(agent: &str, state: State, risk_milli: u16) -> Standing {
    Standing { agent: agent.into(), state, risk_milli, complete: false }
}

/// A flow from this port.
fn from_port(port: u16) -> FlowSummary {
    flow("a", OpenedBy::Agent, &format!("10.0.0.1:{port}"), "10.0.0.2:80")
}

#[test]
fn both_sides_of_a_flow_tell_the_same_source_target_and_id() {
    let opened = flow("a", OpenedBy::Agent, "10.0.0.1:40000", "10.0.0.2:8000").draft(at(3), Some(&peer("b")));
    let accepted =
        flow("b", OpenedBy::Remote, "10.0.0.2:8000", "10.0.0.1:40000").draft(at(3), Some(&peer("a")));
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
        payload_bytes: Some(99),
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
        "source_agent": "a", "target_agent": null, "peer_known_by": null, "ended": true,
        "payload_hash_bytes": 99, "message_type": "http POST", "payload_hash": "ab".repeat(32),
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
    let calm = settings.calm_below_milli - 1;
    for (state, risk, complete, expected) in [
        (State::Closed, 0, false, 50..=200),
        (State::Closed, calm, false, 50..=200),
        (State::Closed, calm, true, 1000..=1000),
        (State::Closed, settings.calm_below_milli, false, 1000..=1000),
        (State::HalfOpen, 0, false, 1000..=1000),
        (State::Open, 0, false, 1000..=1000),
    ] {
        let mut sampler = Sampler::new(settings, 5);
        let standing = Standing { complete, ..standing("a", state, risk) };
        let admitted =
            (0..1000).filter(|port| sampler.admits(at(0), &from_port(*port), &standing, None)).count();
        assert!(expected.contains(&admitted), "{admitted} at {state:?}, risk {risk}, {complete}");
    }
}

#[test]
fn which_flows_are_sampled_nobody_can_foresee_without_the_seed() {
    let chosen = |seed| {
        let mut sampler = Sampler::new(SamplingSettings::default(), seed);
        let standing = standing("a", State::Closed, 0);
        (0..1000).filter(|port| sampler.admits(at(0), &from_port(*port), &standing, None)).collect::<Vec<_>>()
    };
    assert_eq!(chosen(1), chosen(1));
    assert_ne!(chosen(1), chosen(2));
}

#[test]
fn the_first_interaction_with_each_endpoint_is_recorded_in_every_interval() {
    let mut sampler = Sampler::new(SamplingSettings { one_in: 1_000_000, ..SamplingSettings::default() }, 3);
    let calm = standing("a", State::Closed, 0);
    let to = |port: u16| flow("a", OpenedBy::Agent, "10.0.0.1:1", &format!("10.0.0.2:{port}"));
    for second in [0, 60] {
        assert!(sampler.admits(at(second), &to(80), &calm, None), "{second}");
        assert!(sampler.admits(at(second), &to(81), &calm, None), "{second}");
        assert!(!sampler.admits(at(second), &to(80), &calm, None), "{second}");
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

#[test]
fn both_sides_record_the_same_flows_whenever_they_were_first_seen() {
    let interval_ns = 6_000_000_000;
    let mut sampler =
        Sampler::new(SamplingSettings { one_in: 8, interval_ns, ..SamplingSettings::default() }, 3);
    let [one, other] = ["a", "b"].map(|agent| standing(agent, State::Closed, 0));
    let mut both_ways = |second: u64, from: &str, agents: [&str; 2], standings: [&Standing; 2]| {
        sampler.end_intervals(at(second));
        let (opens, accepts) = (format!("{from}:{}", 1000 + second), "10.0.0.2:80");
        let sides = [
            flow(agents[0], OpenedBy::Agent, &opens, accepts),
            flow(agents[1], OpenedBy::Remote, accepts, &opens),
        ];
        let [opened, accepted] = [0, 1]
            .map(|side| sampler.admits(at(second), &sides[side], standings[side], Some(standings[1 - side])));
        assert_eq!(opened, accepted, "{} at {second}", agents[0]);
        opened
    };
    // B has talked for a while when A comes.
    let mut recorded = 0;
    for second in 2..100 {
        both_ways(second, "10.0.0.3", ["c", "b"], [&one, &other]);
        if second >= 5 {
            recorded += u32::from(both_ways(second, "10.0.0.1", ["a", "b"], [&one, &other]));
        }
    }
    assert!((16..95).contains(&recorded), "{recorded} of 95: one in each interval, and some others");
}

proptest! {
    #[test]
    fn everything_is_either_recorded_or_counted(
        flows in prop::collection::vec((0u8..3, 0u16..2000, 0u16..1000), 0..300), one_in in 0u32..9,
    ) {
        let mut sampler = Sampler::new(SamplingSettings { one_in, ..SamplingSettings::default() }, 3);
        let mut admitted = 0;
        for (agent, port, risk) in &flows {
            let one = flow(&format!("agent-{agent}"), OpenedBy::Agent, "10.0.0.1:1", &format!("10.0.0.2:{port}"));
            admitted += u64::from(sampler.admits(at(0), &one, &standing("a", State::Closed, *risk), None));
        }
        let told = sampler.end_intervals(at(1000));
        let counted: u64 = told.iter().map(|draft| draft.data["interactions"].as_u64().unwrap()).sum();
        prop_assert_eq!(admitted + counted, flows.len() as u64);
    }
}
