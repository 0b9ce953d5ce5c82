//! The same chain in each format.

use super::*;
use crate::cli::style::Style;
use crate::record::chain::{Counts, Excluded, Hop, Moment, Outflow};

fn moment(second: u64, agent: &str, kind: &str, what: &str) -> Moment {
    Moment { at: Timestamp(second * 1000), agent: agent.into(), event_type: kind.into(), what: what.into() }
}

fn chain() -> Chain {
    Chain {
        agent: "a".into(),
        from: Timestamp(0),
        earlier_signs: Some(Earlier { count: 1200, since: Timestamp(0) }),
        to: Timestamp(100_000),
        initial_compromise: vec![moment(1, "a", "SECURITY_VIOLATION", "x \"quoted\" \u{1b}[2J")],
        lateral_movement: vec![Hop {
            hop: 1,
            at: Timestamp(2000),
            from: "a".into(),
            to: "b".into(),
            protocol: "tcp".into(),
            endpoint: "10.0.0.2:80".into(),
            correlation_id: Some("1:x=".into()),
            interactions: 3,
            bytes_sent: 2048,
            bytes_received: 10,
            clients: 1,
            because: vec!["both sides tell of the same flow".into()],
            other_ways: vec!["c".into()],
        }],
        exfiltration: vec![Outflow {
            agent: "b".into(),
            endpoint: "203.0.113.9:443".into(),
            protocol: "tcp".into(),
            first: Timestamp(3000),
            last: Timestamp(4000),
            interactions: 1,
            bytes_sent: 5 << 20,
            bytes_received: 0,
            correlation_id: None,
            because: vec!["much was sent".into()],
        }],
        containment: vec![moment(5, "b", "CONTAINMENT_ACTION", "QUARANTINE CLOSED → OPEN")],
        excluded: vec![Excluded {
            what: "dns".into(),
            clients: 9,
            talked_to_by: vec!["a".into()],
            bytes_sent: 7,
        }],
        counts: Counts { agents: 9, interactions: 1234, left_out: 0, sampled_out: 5, other_endpoints: 2 },
    }
}

#[test]
fn a_compromise_begins_after_the_latest_day_without_a_sign() {
    const HOUR: u64 = 3_600_000;
    let earlier = Earlier { count: 2, since: Timestamp(5 * HOUR) };
    for (signs, from, before) in [
        (vec![], 0, None),
        (vec![HOUR / 2], 0, None),
        (vec![29 * HOUR, 5 * HOUR, 53 * HOUR], 4 * HOUR, None),
        (vec![90 * HOUR, 5 * HOUR, 30 * HOUR, 80 * HOUR], 79 * HOUR, Some(earlier)),
    ] {
        assert_eq!(latest_compromise(signs.clone()), (Timestamp(from), before), "{signs:?}");
    }
}

#[test]
fn the_text_is_a_timeline_with_reasons_and_what_was_left_out() {
    let expected = "\
from a, taken as compromised from 1970-01-01T00:00:00.000Z on, until 1970-01-01T00:01:40.000Z

1,200 earlier signs, since 1970-01-01T00:00:00.000Z: `--from` takes them in
1970-01-01T00:00:01.000Z  compromise        a: SECURITY_VIOLATION x \"quoted\" \u{fffd}[2J
1970-01-01T00:00:02.000Z  lateral movement  a → b (hop 1), tcp 10.0.0.2:80
                                            interactions: 3, 2.0 KiB there, 10 B back; agents that talk to b: 1
                                            flow 1:x=
                                            because both sides tell of the same flow
                                            also possible from c
1970-01-01T00:00:03.000Z  exfiltration      b ⇒ tcp 203.0.113.9:443
                                            1 interactions until 1970-01-01T00:00:04.000Z, 5.0 MiB out, 0 B back
                                            because much was sent
1970-01-01T00:00:05.000Z  containment       b: CONTAINMENT_ACTION QUARANTINE CLOSED → OPEN

not followed, since so many talk to it (--common changes that)
  dns: 9 agents, of the chain a (7 B)

1,234 interactions of 9 agents; 2 other endpoints of these agents show nothing suspicious
5 of these agents' interactions were sampled out
";
    assert_eq!(text::render(&chain(), Style::default()), expected);
}

#[test]
fn the_graphs_have_a_node_for_each_party_and_an_edge_for_each_movement() {
    let mermaid = mermaid::render(&chain());
    let expected = "\
flowchart LR
  n0[\"a<br/>1970-01-01T00:00:01.000Z SECURITY_VIOLATION x #quot;quoted#quot; \u{fffd}[2J\"]
  n1[\"b<br/>containment 1970-01-01T00:00:05.000Z\"]
  n2([\"tcp 203.0.113.9:443\"])
  n3([\"dns<br/>9 agents talk to it: not followed\"])
  n0 -->|\"hop 1<br/>1970-01-01T00:00:02.000Z<br/>tcp 10.0.0.2:80<br/>because both sides tell of the same flow\"| n1
  n1 ==>|\"exfiltration<br/>1970-01-01T00:00:03.000Z<br/>5.0 MiB<br/>because much was sent\"| n2
  n0 -.-> n3
  classDef start fill:#fdd,stroke:#c00
  class n0 start
  classDef contained stroke-width:3px,stroke:#080
  class n1 contained
";
    assert_eq!(mermaid, expected);
    let dot = dot::render(&chain());
    let lines: Vec<_> = dot.lines().collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"digraph chain {"), Some(&"}")));
    assert!(
        dot.contains("n0 -> n1 [label=\"hop 1\\n1970-01-01T00:00:02.000Z\\ntcp 10.0.0.2:80\\nbecause both sides tell of the same flow\"];"),
        "{dot}"
    );
    assert!(dot.contains("n0 [label=\"a\\n1970-01-01T00:00:01.000Z SECURITY_VIOLATION x "), "{dot}");
    assert!(
        dot.contains("n3 [label=\"dns\\n9 agents talk to it: not followed\" shape=ellipse style=dashed];"),
        "{dot}"
    );
    assert!(dot.contains("n0 -> n3 [label=\"\" style=dashed];"), "{dot}");
    assert!(dot.contains("n1 -> n2 [label=\"exfiltration\\n"), "{dot}");
}

#[test]
fn a_name_cannot_leave_its_quotes() {
    let mut chain = chain();
    chain.lateral_movement[0].to = "b\"]; evil \\\n".into();
    let dot = dot::render(&chain);
    assert!(dot.contains("label=\"b\\\"]; evil \\\\\u{fffd}\""), "{dot}");
    assert!(mermaid::render(&chain).contains("\"b#quot;]; evil \\\u{fffd}\""));
    chain.lateral_movement[0].to = "<img src=x>&#1;`".into();
    assert!(mermaid::render(&chain).contains("\"#lt;img src=x#gt;#amp;#35;1;#96;\""));
}
