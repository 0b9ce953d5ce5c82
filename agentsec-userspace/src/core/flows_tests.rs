//! Connections as the kernel's words describe them, and what is found in them.

use super::*;
use agentsec_common::flow::{Asking, Hears, Says, Segment, Start};
use agentsec_common::packet::tcp;
use agentsec_common::risk::RESPONSES_MIN;
use proptest::prelude::*;

const NOW: u64 = 1 << 45;
const MS: u64 = 1_000_000;

const EXPECTED: Expected = Expected {
    normal_ns: 50 * MS,
    late_ns: 100 * MS,
    window_ns: 60 * SECOND_NS,
    since_ns: NOW - 3600 * SECOND_NS,
    presses: false,
};

const TCP: FlowKey = key(protocol::TCP);
const UDP: FlowKey = key(protocol::UDP);

const fn key(protocol: u8) -> FlowKey {
    FlowKey::new(3, protocol, &[7; 4], (40_000, 80), [1, 2, 3, 4])
}

/// A connection that the agent has opened and the remote has accepted.
fn reached() -> Flow {
    let syn = Segment { sequence: 99, flags: tcp::SYN, ..Segment::default() };
    let (asking, _) =
        Asking { sent: Sent::new(true, false), ..Asking::default() }.tcp(&syn, Start::Unread, 0);
    Flow {
        sent: asking.sent.0,
        statuses: Statuses::default().reaching().0,
        last_seen_ns: NOW,
        ..Flow::default()
    }
}

/// The same, once the agent has sent a message that was asked so long ago.
fn asks(flow: Flow, ago_ns: u64) -> Flow {
    let asking = Asking { sent: Sent(flow.sent), asked: Asked(flow.asked), answer: 0 };
    let sequence = asking.sent.end();
    let segment = Segment { sequence, payload: 10, flags: tcp::ACK | tcp::PSH, ..Segment::default() };
    let (asking, says) = asking.tcp(&segment, Start::Unread, Answered(flow.answered).count());
    let asked_ns = if says == Says::Asks { NOW - ago_ns } else { flow.asked_ns };
    Flow { sent: asking.sent.0, asked: asking.asked.0, asked_ns, ..flow }
}

/// The same, once it is answered.
fn answers(flow: Flow) -> Flow {
    let statuses = Statuses(flow.statuses);
    let acknowledgment = Sent(flow.sent).end();
    let sequence = Answered(flow.answered).heard();
    let segment = Segment { sequence, acknowledgment, payload: 10, flags: tcp::ACK };
    let (answered, hears) = Answered(flow.answered).tcp(&segment, Asked(flow.asked), statuses.has_heard());
    assert_eq!(hears, Hears::Answer);
    Flow { answered: answered.0, statuses: statuses.hearing().0, ..flow }
}

fn speaks(flow: Flow, language: Language) -> Flow {
    Flow { sent: Sent(flow.sent).speaking(language).0, ..flow }
}

fn closed(flow: Flow) -> Flow {
    Flow { statuses: Statuses(flow.statuses).finishing().0, ..flow }
}

fn dns(ago_ns: u64) -> Flow {
    let asking = Asking { sent: Sent::new(true, false).speaking(Language::Dns), ..Asking::default() };
    let (asking, _) = asking.started().udp(1 << 16 | 7, 0);
    Flow {
        sent: asking.sent.0,
        asked: asking.asked.0,
        asked_ns: NOW - ago_ns,
        last_seen_ns: NOW,
        ..Flow::default()
    }
}

#[test]
fn requests_that_wait_are_late_and_what_is_none_is_not() {
    use Finding::{Fine, Late};
    let ago = 500 * MS;
    let late = Late(450 * MS);
    let asked = asks(reached(), ago);
    let again = asks(answers(asks(reached(), SECOND_NS)), ago);
    let accepted = Flow { kind: EndpointKind::Accepted as u64, ..asked };
    let table = [
        ("nothing was asked", TCP, reached(), Fine),
        ("one message waits", TCP, asked, late),
        ("it waits no longer than is normal", TCP, asks(reached(), 150 * MS), Fine),
        ("it waits a little longer than that", TCP, asks(reached(), 151 * MS), Late(101 * MS)),
        ("it is answered", TCP, answers(asked), Fine),
        ("the next one waits", TCP, again, late),
        ("several wait, of a connection that answers", TCP, asks(again, ago), late),
        ("a stream that nobody ever answers", TCP, asks(asked, ago), Fine),
        ("the agent is who is asked", TCP, accepted, Fine),
        ("the remote has closed", TCP, closed(asked), Fine),
        ("it was asked before the window", TCP, asks(reached(), 61 * SECOND_NS), Fine),
        ("it was asked in the window", TCP, asks(reached(), 59 * SECOND_NS), Late(58_950 * MS)),
        ("a hello of TLS waits", TCP, speaks(asked, Language::Tls), late),
        ("a later message of TLS", TCP, speaks(again, Language::Tls), Fine),
        ("a later frame of HTTP/2", TCP, speaks(again, Language::Http2), Fine),
        ("a later request of HTTP/1", TCP, speaks(again, Language::Http1), late),
        ("a query waits", UDP, dns(ago), late),
        ("a query was given up", UDP, dns(11 * SECOND_NS), Fine),
        ("a datagram", UDP, speaks(dns(ago), Language::Other), Fine),
    ];
    for (what, key, flow, expected) in table {
        assert_eq!(look(NOW, &key, &flow, &EXPECTED), expected, "{what}");
    }
}

#[test]
fn what_was_asked_before_the_epoch_is_not_late() {
    let flow = asks(reached(), SECOND_NS);
    let since = |since_ns| look(NOW, &TCP, &flow, &Expected { since_ns, ..EXPECTED });
    assert_eq!(since(NOW - SECOND_NS), Finding::Late(950 * MS));
    assert_eq!(since(NOW - SECOND_NS + 1), Finding::Fine);
}

#[test]
fn silence_ends_a_connection_sooner_the_less_was_made_of_it() {
    let syn = Flow { statuses: 0, ..reached() };
    // The agent's side of a connection that a remote opens says nothing before it accepts.
    let knocked = Flow { sent: 0, kind: EndpointKind::Accepted as u64, ..reached() };
    let accepted = Flow { kind: EndpointKind::Accepted as u64, ..reached() };
    let used = Flow { statuses: Statuses(accepted.statuses).hearing().0, ..accepted };
    let table = [
        ("never reached", TCP, syn, 30),
        ("never accepted", TCP, knocked, 30),
        ("accepted and not used", TCP, accepted, 60),
        ("accepted and used", TCP, used, 600),
        ("reached", TCP, reached(), 600),
        ("closed by the remote", TCP, closed(reached()), 60),
        ("UDP", UDP, dns(0), 60),
    ];
    for (what, key, flow, seconds) in table {
        for (presses, limit_ns) in [(false, seconds * SECOND_NS), (true, seconds * SECOND_NS / 2)] {
            let expected = Expected { presses, ..EXPECTED };
            let after = |silent_ns| look(flow.last_seen_ns + silent_ns, &key, &flow, &expected);
            assert_ne!(after(limit_ns), Finding::Over, "{what}");
            assert_eq!(after(limit_ns + 1), Finding::Over, "{what}");
        }
    }
}

#[test]
fn what_is_late_weighs_with_what_came_and_only_when_they_are_enough() {
    let late = |deviations: &[u64]| {
        let mut late = Late::default();
        deviations.iter().for_each(|ms| late.add(ms * MS));
        late
    };
    assert_eq!(late(&[]).deviation_100us(1_000_000, 20), 0, "the kernel knows what came");
    assert_eq!(late(&[1000]).deviation_100us(0, 8), 0, "nine are too few");
    assert_eq!(late(&[1000]).deviation_100us(0, 9), 1000);
    assert_eq!(late(&[1000, 3000]).deviation_100us(10_000, 18), 2500);
    assert_eq!(late(&[100_000_000]).deviation_100us(0, 9), u16::MAX);
}

#[test]
fn a_connection_counts_for_the_endpoint_that_it_has_not_told_yet() {
    let flow = Flow { bytes: [500, 70], told_bytes: [400, 70], packets: [5, 1], ..reached() };
    let mut untold = Untold::of(&flow);
    assert_eq!(untold, Untold { bytes: [100, 0], packets: [5, 1] });
    untold.add(&Untold { bytes: [1, 2], packets: [3, 4] });
    assert_eq!(untold, Untold { bytes: [101, 2], packets: [8, 5] });
    let ahead = Flow { told_bytes: [501, 70], told_packets: [5, 1], ..flow };
    assert!(!Untold::of(&ahead).any());
    let endpoint = endpoint_of(&TCP, &flow);
    assert_eq!((endpoint.port, endpoint.kind, endpoint.protocol), (80, EndpointKind::Opened as u8, 6));
    let accepted = endpoint_of(&UDP, &Flow { kind: EndpointKind::Accepted as u64, ..flow });
    assert_eq!((accepted.port, accepted.kind, accepted.protocol), (40_000, EndpointKind::Accepted as u8, 17));
    assert_eq!((endpoint.slot, endpoint.remote), (3, [1, 2, 3, 4]));
}

proptest! {
    #[test]
    fn the_mean_is_the_exact_one(
        late in prop::collection::vec(0u64..60_000, 0..40), came in prop::collection::vec(0u64..600_000, 0..40),
    ) {
        let mut found = Late::default();
        late.iter().for_each(|ms| found.add(ms * MS));
        let sum: u64 = late.iter().map(|ms| ms * 10).sum::<u64>() + came.iter().sum::<u64>();
        let count = (late.len() + came.len()) as u64;
        let exact = if late.is_empty() || count < RESPONSES_MIN { 0 } else { (sum / count).min(65_535) };
        let told = found.deviation_100us(came.iter().sum(), came.len() as u64);
        prop_assert_eq!(u64::from(told), exact);
    }

    #[test]
    fn any_words_are_looked_at_without_harm_and_what_is_answered_is_never_late(
        words: [u64; 8], protocol in prop::sample::select(vec![protocol::TCP, protocol::UDP]), now: u64,
    ) {
        let [sent, asked, asked_ns, answered, statuses, last_seen_ns, kind, _] = words;
        let flow = Flow {
            sent, asked, asked_ns, answered, statuses, last_seen_ns, kind: kind & 1, ..Flow::default()
        };
        let finding = look(now, &key(protocol), &flow, &EXPECTED);
        let answered = Flow { answered: flow.asked, ..flow };
        let quiet = look(now, &key(protocol), &answered, &EXPECTED);
        prop_assert!(!matches!(quiet, Finding::Late(_)));
        prop_assert_eq!(finding == Finding::Over, quiet == Finding::Over, "an answer is no packet");
        if let Finding::Late(deviation_ns) = finding {
            prop_assert!(deviation_ns > EXPECTED.late_ns && deviation_ns <= EXPECTED.window_ns);
        }
    }
}
