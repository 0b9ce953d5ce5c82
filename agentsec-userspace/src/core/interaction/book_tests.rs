//! Records become events: once, with what was known of the flow, within the bound.

use super::super::opening;
use super::*;
use crate::core::draft::EventKind;
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::flow::{Asked, Language, Sent, Statuses};
use agentsec_common::policy::State;
use proptest::prelude::*;

const A: Address = [0, 0, agentsec_common::endpoint::MAPPED, 0x0100_000a];
const B: Address = [0, 0, agentsec_common::endpoint::MAPPED, 0x0200_000a];
const ROOM: usize = 1_000_000;

fn at(mono_ms: u64) -> Time {
    Time { mono_ns: mono_ms * 1_000_000, wall_ns: (1_700_000_000_000 + mono_ms) * 1_000_000 }
}

fn teller(agent: &str) -> Teller<'_> {
    Teller { agent, owns_addresses: true, is_open: false }
}

fn standing(agent: &str, risk_milli: u16) -> Standing {
    Standing { agent: agent.into(), state: State::Closed, risk_milli, complete: false }
}

/// Agents by slot, all of this risk.
fn agents(names: &[&str], risk_milli: u16) -> BTreeMap<Slot, Standing> {
    names.iter().enumerate().map(|(slot, name)| (slot as Slot, standing(name, risk_milli))).collect()
}

fn flow(local: Address, opened: bool, bytes: u64) -> Flow {
    let kind = if opened { EndpointKind::Opened } else { EndpointKind::Accepted };
    Flow {
        kind: kind as u64,
        local,
        first_seen_ns: 1_000_000_000,
        last_seen_ns: 1_500_000_000,
        bytes: [bytes, bytes / 2],
        packets: [bytes / 100, 1],
        sent: if opened { Sent::default().speaking(Language::Http1).0 } else { 0 },
        asked: Asked::new(1, 0).0,
        statuses: Statuses::default().met(200, 1, false).0,
        response_ns: 4_000_000,
        responses: 2,
        ..Flow::default()
    }
}

fn key(slot: Slot, local: Address, ports: (u16, u16), remote: Address) -> FlowKey {
    FlowKey::new(slot, 6, &local, ports, remote)
}

fn book() -> Book {
    Book::new(BookSettings::default(), 7)
}

#[test]
fn both_sides_of_a_flow_are_told_with_each_other_and_one_id_whoever_ends_first() {
    for b_first in [false, true] {
        let mut book = book();
        let standings = agents(&["a", "b"], 0);
        let a = FlowRecord::of(key(0, A, (40_000, 80), B), &flow(A, true, 1000));
        let b = FlowRecord::of(key(1, B, (80, 40_000), A), &flow(B, false, 500));
        let order = if b_first { [("b", &b), ("a", &a)] } else { [("a", &a), ("b", &b)] };
        // The second one ends a turn later.
        book.ended(at(2000), teller(order[0].0), order[0].1);
        assert!(book.turn(at(2100), &standings, ROOM).is_empty(), "it waits for the other side");
        book.ended(at(2200), teller(order[1].0), order[1].1);
        let mut drafts = book.turn(at(2250), &standings, ROOM);
        drafts.extend(book.turn(at(2500), &standings, ROOM));
        assert_eq!(drafts.len(), 2);
        for draft in &drafts {
            let data = &draft.data;
            assert_eq!((&data["source_agent"], &data["target_agent"]), (&"a".into(), &"b".into()));
            assert_eq!((&data["peer_known_by"], &data["ended"]), (&"flow".into(), &true.into()));
        }
        assert_eq!(drafts[0].correlation_id, drafts[1].correlation_id);
        assert!(book.turn(at(2750), &standings, ROOM).is_empty(), "once");
    }
}

#[test]
fn what_a_flow_began_with_is_told_with_it_and_not_with_the_next_on_its_ports() {
    let mut book = book();
    let standings = agents(&["a"], 0);
    let key = key(0, A, (40_000, 80), B);
    let flow = flow(A, true, 1000);
    let request = b"GET /x HTTP/1.1\r\nAuthorization: Bearer secret\r\n\r\n";
    book.opened(at(1000), key, flow.first_seen_ns, opening::read(request));
    book.ended(at(2000), teller("a"), &FlowRecord::of(key, &flow));
    let later = Flow { first_seen_ns: 3_000_000_000, ..flow };
    book.ended(at(4000), teller("a"), &FlowRecord::of(key, &later));
    book.turn(at(4001), &standings, ROOM);
    let drafts = book.turn(at(4002), &BTreeMap::new(), ROOM);
    let facts: Vec<_> = drafts
        .iter()
        .map(|draft| (draft.data["message_type"].as_str().unwrap(), draft.data["auth_method"].as_str()))
        .collect();
    assert_eq!(facts, [("http GET", Some("bearer")), ("http", None)]);
    let data = &drafts[0].data;
    assert_eq!((&data["response_code"], &data["latency_ms"]), (&200.into(), &2.0.into()));
    assert_eq!(data["payload_hash_bytes"], request.len());
    assert!(drafts.iter().all(|draft| !draft.data.to_string().contains("secret")));
}

#[test]
fn a_long_flow_is_told_at_an_interval_and_at_its_end_each_byte_once() {
    let mut book = book();
    let standings = agents(&["a"], 900);
    let key = key(0, A, (40_000, 80), B);
    let mut told = Vec::new();
    // From one second on, a byte-counting flow of 200 seconds.
    for second in 1..=200u64 {
        let flow = Flow { last_seen_ns: second * 1_000_000_000, ..flow(A, true, 100 * second) };
        book.living(at(second * 1000), teller("a"), key, &flow);
        book.saw_all(at(second * 1000));
        told.extend(book.turn(at(second * 1000), &standings, ROOM));
    }
    let end = flow(A, true, 100 * 250);
    book.ended(at(201_000), teller("a"), &FlowRecord::of(key, &end));
    told.extend(book.finish(at(201_000), &standings, ROOM));
    let told: Vec<_> = told.iter().filter(|draft| draft.kind == EventKind::AgentInteraction).collect();
    let ended: Vec<_> = told.iter().map(|draft| draft.data["ended"].as_bool().unwrap()).collect();
    assert_eq!(ended, [false, false, false, true]);
    let bytes: u64 = told.iter().map(|draft| draft.data["outbound"]["bytes"].as_u64().unwrap()).sum();
    assert_eq!(bytes, end.bytes[0]);
    let requests: u64 = told.iter().map(|draft| draft.data["requests"].as_u64().unwrap()).sum();
    assert_eq!(requests, 1);
}

#[test]
fn the_next_book_tells_only_what_the_log_does_not_have() {
    let standings = agents(&["a"], 900);
    let key = key(0, A, (40_000, 80), B);
    let at_second =
        |second: u64| Flow { last_seen_ns: second * 1_000_000_000, ..flow(A, true, 100 * second) };
    let mut first = book();
    let mut kept = None;
    for second in 1..=70u64 {
        first.living(at(second * 1000), teller("a"), key, &at_second(second));
        first.saw_all(at(second * 1000));
        if let Some(flows) = first.take_for_keeping() {
            assert!(kept.is_none(), "once for each change");
            kept = Some((second, flows));
        }
        first.turn(at(second * 1000 + 500), &standings, ROOM);
    }
    let (second, flows) = kept.unwrap();
    assert!(second > 62, "not before it is in the log: {second}");
    let mut next = book();
    next.remember(at(71_000), flows);
    next.ended(at(71_000), teller("a"), &FlowRecord::of(key, &at_second(71)));
    let drafts = next.finish(at(71_000), &standings, ROOM);
    // The first one told 61 seconds.
    assert_eq!(drafts[0].data["outbound"]["bytes"], 1000);
}

#[test]
fn of_an_open_agent_everything_is_told_at_once_and_once() {
    let mut book = book();
    let standings = agents(&["a"], 900);
    let key = key(0, A, (40_000, 80), B);
    for second in 2..6 {
        book.living(at(second * 1000), Teller { is_open: true, ..teller("a") }, key, &flow(A, true, 1000));
    }
    book.turn(at(6000), &standings, ROOM);
    assert_eq!(book.turn(at(6100), &standings, ROOM).len(), 1);
    // It ends without another packet: it was told already.
    book.ended(at(7000), teller("a"), &FlowRecord::of(key, &flow(A, true, 1000)));
    assert!(book.finish(at(7000), &standings, ROOM).is_empty());
}

#[test]
fn calm_agents_are_sampled_alike_on_both_sides_and_completely_with_a_risky_one() {
    for (risk_of_b, least, most) in [(0, 30, 180), (900, 1000, 1000)] {
        let mut book = book();
        let mut standings = agents(&["a", "b"], 0);
        standings.insert(1, standing("b", risk_of_b));
        for port in 0..1000 {
            let (a, b) = (key(0, A, (port, 80), B), key(1, B, (80, port), A));
            book.ended(at(2000), teller("a"), &FlowRecord::of(a, &flow(A, true, 1000)));
            book.ended(at(2000), teller("b"), &FlowRecord::of(b, &flow(B, false, 1000)));
        }
        let settings = BookSettings { max_per_second: 1_000_000, ..BookSettings::default() };
        book.configure(settings);
        let drafts = book.finish(at(2000), &standings, ROOM);
        let ids = |agent: &str| -> Vec<_> {
            let of = drafts.iter().filter(|draft| draft.agent_id.as_deref() == Some(agent));
            of.filter(|draft| draft.kind == EventKind::AgentInteraction)
                .map(|draft| draft.correlation_id.clone())
                .collect()
        };
        assert_eq!(ids("a"), ids("b"), "the same flows");
        assert!((least..=most).contains(&ids("a").len()), "{} of 1000", ids("a").len());
        let sampled: Vec<_> =
            drafts.iter().filter(|draft| draft.data["what"] == "interactions_sampled").collect();
        let left_out: u64 = sampled.iter().map(|draft| draft.data["interactions"].as_u64().unwrap()).sum();
        assert_eq!(left_out as usize, 2 * (1000 - ids("a").len()));
    }
}

#[test]
fn beyond_the_bound_who_has_few_has_all_and_the_rest_is_counted() {
    let mut book = Book::new(BookSettings { max_per_second: 100, ..BookSettings::default() }, 7);
    let standings = agents(&["loud", "quiet"], 900);
    for port in 0..1000 {
        let record = FlowRecord::of(key(0, A, (port, 80), B), &flow(A, true, 1000));
        book.ended(at(2000), teller("loud"), &record);
    }
    for port in 0..10 {
        let record = FlowRecord::of(key(1, B, (port, 90), A), &flow(B, true, 1000));
        book.ended(at(2000), teller("quiet"), &record);
    }
    let drafts = book.finish(at(2000), &standings, ROOM);
    let of = |agent: &str| {
        let of = drafts.iter().filter(|draft| draft.agent_id.as_deref() == Some(agent));
        of.filter(|draft| draft.kind == EventKind::AgentInteraction).count()
    };
    assert_eq!((of("loud"), of("quiet")), (90, 10));
    let loss = drafts.iter().find(|draft| draft.data["what"] == "interactions_dropped").unwrap();
    assert_eq!((loss.agent_id.as_deref(), &loss.data["interactions"]), (Some("loud"), &910.into()));
    assert_eq!(loss.data["outbound_bytes"], 910 * 1000);
}

#[test]
fn shares_are_fair() {
    for (counts, bound, expected) in [
        (vec![("a", 5), ("b", 100), ("c", 100)], 50, vec![5, 23, 22]),
        (vec![("a", 5)], 3, vec![3]),
        (vec![("a", 5), ("b", 5)], 0, vec![0, 0]),
        (vec![], 9, vec![]),
    ] {
        let shares = shares(&counts.into_iter().collect(), bound);
        assert_eq!(shares.into_values().collect::<Vec<_>>(), expected);
    }
}

proptest! {
    #[test]
    fn every_flow_is_an_event_or_counted(
        flows in prop::collection::vec((0u32..3, any::<u16>(), 0u16..400), 0..400),
        max_per_second in 1u32..200,
        room in 0usize..300,
    ) {
        let mut book = Book::new(BookSettings { max_per_second, ..BookSettings::default() }, 1);
        let mut ended = 0u64;
        let mut counted = 0;
        let mut events = 0;
        let mut tell = |drafts: Vec<Draft>| for draft in drafts {
            match draft.kind {
                EventKind::AgentInteraction => events += 1,
                _ => counted += draft.data["interactions"].as_u64().unwrap(),
            }
        };
        for (index, (slot, port, risk)) in flows.into_iter().enumerate() {
            let record = FlowRecord::of(key(slot, A, (port, 80), B), &flow(A, true, 1000));
            book.ended(at(2000 + index as u64), teller(["a", "b", "c"][slot as usize]), &record);
            ended += 1;
            if index % 50 == 0 {
                tell(book.turn(at(2000 + index as u64), &agents(&["a", "b", "c"], risk), room));
            }
        }
        tell(book.finish(at(1_000_000), &agents(&["a", "b", "c"], 0), room));
        prop_assert_eq!(events + counted, ended);
    }
}
