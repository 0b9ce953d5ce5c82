//! The chain of stories that are known, and against trying out every path.

use super::contact::Contact;
use super::reach::{Arrival, earliest};
use super::*;
use crate::core::draft::{Draft, EventKind};
use crate::core::interaction::{FlowSummary, Message, OpenedBy, Traffic};
use crate::core::time::Time;
use crate::record::Sealer;
use crate::record::event::UuidV7;
use crate::record::timestamp::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

const START_S: u64 = 1_767_225_600;

fn at(second: u64) -> Time {
    Time { mono_ns: second * 1_000_000_000, wall_ns: (START_S + second) * 1_000_000_000 }
}

/// Lines of a log, as the daemon writes them.
#[derive(Default)]
struct Script(Vec<Draft>);

impl Script {
    /// `agent` opens to `remote`; both seconds are of the flow, which is told at its end.
    fn opens(self, agent: &str, local: &str, remote: &str, span: (u64, u64), bytes: (u64, u64)) -> Self {
        self.flow(agent, OpenedBy::Agent, local, remote, span, bytes)
    }

    fn flow(
        mut self,
        agent: &str,
        opened_by: OpenedBy,
        local: &str,
        remote: &str,
        span: (u64, u64),
        bytes: (u64, u64),
    ) -> Self {
        let summary = FlowSummary {
            agent: agent.into(),
            opened_by,
            protocol: 6,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            outbound: Traffic { bytes: bytes.0, packets: 1 },
            inbound: Traffic { bytes: bytes.1, packets: 1 },
            first_seen_ns: span.0 * 1_000_000_000,
            last_seen_ns: span.1 * 1_000_000_000,
            is_over: true,
            message: Message::default(),
        };
        self.0.push(summary.draft(at(span.1), None));
        self
    }

    fn event(mut self, agent: &str, second: u64, kind: EventKind, data: serde_json::Value) -> Self {
        self.0.push(Draft { agent_id: Some(agent.into()), ..Draft::daemon(at(second), kind, data) });
        self
    }

    fn violation(self, agent: &str, second: u64) -> Self {
        let data = json!({ "violation_type": "untypical", "attempted_action": "a packet", "context": {} });
        self.event(agent, second, EventKind::SecurityViolation, data)
    }

    fn trip(self, agent: &str, second: u64) -> Self {
        let data = json!({ "action_type": "QUARANTINE", "from": "CLOSED", "to": "OPEN", "by": "kernel", "trigger_reason": "max_volume" });
        self.event(agent, second, EventKind::ContainmentAction, data)
    }

    fn chain(self, agent: &str, from: u64) -> Chain {
        let mut sealer = Sealer::new("host".into(), "boot".into(), Box::<UuidV7>::default());
        let mut story = Story::default();
        let (from, to) = (Timestamp((START_S + from) * 1000), Timestamp((START_S + 10_000) * 1000));
        for draft in self.0 {
            let facts = read(sealer.seal(draft).to_line().as_bytes()).into_iter();
            facts.filter_map(|fact| within(fact, from, to)).for_each(|fact| story.tell(fact));
        }
        find(&story, &Settings { agent: agent.into(), from, to, common_percent: 50 }).unwrap()
    }
}

/// A → B → C, and C to the outside.
fn story() -> Script {
    let [a, b, c] = ["10.0.0.1:40001", "10.0.0.2:40002", "10.0.0.3:40003"];
    Script::default()
        .opens("c", "10.0.0.3:39000", "198.51.100.9:443", (1, 2), (500, 5000))
        // Before anything: B talked to D, which therefore is not reached.
        .opens("b", "10.0.0.2:39999", "10.0.0.4:8000", (2, 3), (10, 10))
        .flow("d", OpenedBy::Remote, "10.0.0.4:8000", "10.0.0.2:39999", (2, 3), (10, 10))
        .violation("a", 10)
        .opens("a", a, "10.0.0.2:8000", (12, 13), (2000, 300))
        .flow("b", OpenedBy::Remote, "10.0.0.2:8000", a, (12, 13), (300, 2000))
        .opens("b", b, "10.0.0.3:8000", (20, 25), (4000, 100))
        .flow("c", OpenedBy::Remote, "10.0.0.3:8000", b, (20, 25), (100, 4000))
        .opens("c", c, "203.0.113.9:443", (30, 40), (5_000_000, 1000))
        .opens("c", "10.0.0.3:39001", "198.51.100.9:443", (31, 32), (500, 5000))
        .trip("c", 41)
}

fn edges(chain: &Chain) -> Vec<(u32, &str, &str)> {
    chain.lateral_movement.iter().map(|hop| (hop.hop, hop.from.as_str(), hop.to.as_str())).collect()
}

#[test]
fn the_scripted_story_gives_its_chain() {
    let chain = story().chain("a", 5);
    assert_eq!(edges(&chain), [(1, "a", "b"), (2, "b", "c")]);
    assert_eq!(chain.initial_compromise.len(), 1);
    let first = &chain.lateral_movement[0];
    assert_eq!((first.endpoint.as_str(), first.bytes_sent, first.interactions), ("10.0.0.2:8000", 2000, 1));
    assert!(first.because[0].contains("both sides"), "{first:?}");
    assert_eq!(chain.exfiltration.len(), 1, "{:?}", chain.exfiltration);
    let out = &chain.exfiltration[0];
    assert_eq!(
        (out.agent.as_str(), out.endpoint.as_str(), out.bytes_sent),
        ("c", "203.0.113.9:443", 5_000_000)
    );
    assert_eq!(out.because.len(), 2, "{out:?}");
    assert_eq!(chain.counts.other_endpoints, 1, "where C always went is not listed, but counted");
    assert_eq!(chain.containment.iter().map(|moment| moment.agent.as_str()).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn what_the_first_agent_had_not_talked_to_before_is_suspicious() {
    let opens = |script: Script, remote, second| {
        script.opens("a", "10.0.0.1:1", remote, (second, second), (500, 500))
    };
    let script = opens(Script::default(), "198.51.100.9:443", 10);
    let script = opens(opens(script, "198.51.100.9:443", 60), "203.0.113.9:443", 61);
    let chain = script.violation("a", 55).chain("a", 50);
    let found: Vec<_> = chain.exfiltration.iter().map(|out| out.endpoint.as_str()).collect();
    assert_eq!((found, chain.counts.other_endpoints), (vec!["203.0.113.9:443"], 1), "{chain:?}");
    // Of whom nothing is known, nothing is said.
    let chain = opens(Script::default(), "203.0.113.9:443", 61).violation("a", 55).chain("a", 50);
    assert!(chain.exfiltration.is_empty(), "{chain:?}");
}

#[test]
fn time_is_respected() {
    // From a later moment on, B was not talked to any more, so nothing was reached.
    assert_eq!(edges(&story().chain("a", 14)), []);
    // A flow that was open already carries what comes while it is.
    let script =
        Script::default().violation("a", 1).opens("a", "10.0.0.1:1", "10.0.0.2:80", (10, 100), (1, 1));
    let script = script.flow("b", OpenedBy::Remote, "10.0.0.2:80", "10.0.0.1:1", (10, 100), (1, 1));
    let chain = script.chain("a", 50);
    assert_eq!(
        (edges(&chain), chain.lateral_movement[0].at),
        (vec![(1, "a", "b")], Timestamp((START_S + 50) * 1000))
    );
}

#[test]
fn an_address_is_an_agents_only_if_no_other_agent_is_there() {
    let listener = |agent, local| {
        move |script: Script| script.flow(agent, OpenedBy::Remote, local, "10.9.9.9:5", (6, 7), (1, 1))
    };
    let opens =
        |script: Script| script.violation("a", 10).opens("a", "10.0.0.1:7", "10.0.0.2:80", (11, 12), (1, 1));
    let one = opens(listener("b", "10.0.0.2:80")(Script::default())).chain("a", 5);
    assert!(one.lateral_movement[0].because[0].contains("only b accepts"), "{one:?}");
    // Two on the host's address, each with a port of its own: the port decides.
    let two = listener("c", "10.0.0.2:81")(listener("b", "10.0.0.2:80")(Script::default()));
    assert_eq!(edges(&opens(two).chain("a", 5)), [(1, "a", "b")]);
    // Both on the same port at different times: nobody is named, and it counts as outside.
    let both = listener("c", "10.0.0.2:80")(listener("b", "10.0.0.2:80")(Script::default()));
    assert_eq!(edges(&opens(both).chain("a", 5)), []);
    let attached = Script::default().event(
        "b",
        0,
        EventKind::AgentAdded,
        json!({ "attachments": [{ "address": "10.0.0.2/32", "interface": "br0" }] }),
    );
    assert!(opens(attached).chain("a", 5).lateral_movement[0].because[0].contains("only b is at"));
}

/// Ten agents that all talk to `gateway`, which talks to each of them.
fn with_gateway(mut script: Script) -> Script {
    for agent in 0..10 {
        let (name, local) = (format!("agent-{agent}"), format!("10.0.1.{agent}:1000"));
        script = script.opens(&name, &local, "10.0.0.100:80", (100, 101), (9, 9));
        script =
            script.opens("gateway", "10.0.0.100:2000", &format!("10.0.1.{agent}:90"), (200, 201), (9, 9));
        script = script.opens(&name, &local, "198.51.100.1:53", (100, 101), (9, 9));
    }
    script
}

#[test]
fn a_service_that_everybody_talks_to_is_listed_and_not_followed() {
    let chain = with_gateway(Script::default()).violation("agent-3", 50).chain("agent-3", 50);
    assert_eq!(edges(&chain), []);
    let told: Vec<_> = chain.excluded.iter().map(|one| (one.what.as_str(), one.clients)).collect();
    assert_eq!(told, [("gateway", 10), ("tcp 198.51.100.1:53", 10)]);
    assert_eq!(chain.excluded[0].talked_to_by, ["agent-3"]);
    let signed = with_gateway(Script::default()).violation("agent-3", 50).violation("gateway", 150);
    assert_eq!(signed.chain("agent-3", 50).lateral_movement.len(), 10, "it shows signs of its own");
    let before = with_gateway(Script::default()).violation("agent-3", 50).violation("gateway", 90);
    assert_eq!(edges(&before.chain("agent-3", 50)), [], "signs from before it was reached are not of this");
}

#[test]
fn interactions_that_were_sampled_out_are_told() {
    let script = story().event(
        "b",
        60,
        EventKind::Loss,
        json!({ "what": "interactions_sampled", "interactions": 70 }),
    );
    let script =
        script.event("z", 60, EventKind::Loss, json!({ "what": "interactions_sampled", "interactions": 1 }));
    assert_eq!(script.chain("a", 5).counts.sampled_out, 70, "only those of reached agents");
}

/// Every path there is, tried out: the least time, and the fewest hops at that time.
fn by_trying(contacts: &[Contact], start: u32, at: u64, refused: u32) -> BTreeMap<u32, (u64, u32)> {
    fn walk(
        contacts: &[Contact],
        used: &mut Vec<bool>,
        here: (u32, u64, u32),
        refused: u32,
        best: &mut BTreeMap<u32, (u64, u32)>,
    ) {
        let (agent, now, hops) = here;
        let known = best.entry(agent).or_insert((now, hops));
        *known = (*known).min((now, hops));
        for number in 0..contacts.len() {
            let contact = contacts[number];
            if !used[number] && contact.from == agent && contact.span.1 >= now && contact.to != refused {
                used[number] = true;
                walk(contacts, used, (contact.to, now.max(contact.span.0), hops + 1), refused, best);
                used[number] = false;
            }
        }
    }
    let mut best = BTreeMap::new();
    walk(contacts, &mut vec![false; contacts.len()], (start, at, 0), refused, &mut best);
    best
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn who_is_reached_and_when_is_what_trying_every_path_finds(
        raw in prop::collection::vec((0u32..6, 0u32..6, 0u64..20, 0u64..6), 0..9), at in 0u64..12, refused in 1u32..12,
    ) {
        let contacts: Vec<_> = raw.iter().map(|&(from, to, begin, length)| Contact::for_test(from, to, (begin, begin + length))).collect();
        let found = earliest(6, &contacts, 0, at, |agent, _| agent != refused);
        let times: BTreeMap<u32, (u64, u32)> = (0..).zip(&found).filter_map(|(agent, arrival)| arrival.map(|Arrival { at, hops, .. }| (agent, (at, hops)))).collect();
        let expected = by_trying(&contacts, 0, at, refused);
        let only_times = |all: &BTreeMap<u32, (u64, u32)>| all.iter().map(|(agent, (time, _))| (*agent, *time)).collect::<Vec<_>>();
        prop_assert_eq!(only_times(&times), only_times(&expected));
        // Each arrival is by a contact that carries it from an agent that was reached in time.
        for (agent, arrival) in (0u32..).zip(&found) {
            let Some(Arrival { at: then, through: Some(through), hops }) = arrival else { continue };
            let contact = contacts[*through as usize];
            let before = found[contact.from as usize].unwrap();
            prop_assert_eq!((contact.to, contact.span.0.max(before.at), before.hops + 1), (agent, *then, *hops));
            prop_assert!(contact.span.1 >= before.at);
        }
    }
}
