//! What the kernel programs make of questions and answers: response times, failed authentications, requests.

use agentsec_common::agent::Direction::{Inbound, Outbound};
use agentsec_common::auth::AuthKind::{self, Http401, Http403, Http407, Refused, ResetBeforeData, TlsAlert};
use agentsec_common::flow::{Answered, Asked, Language, Sent, Statuses};
use agentsec_common::ledger::Ledger;
use agentsec_common::notice::NoticeKind;
use agentsec_common::packet::protocol::TCP;
use agentsec_common::policy::{Mode, SlowSignals, State};
use agentsec_common::profile::{FOLLOW_FLOWS, PortRange, Profile};
use agentsec_common::risk::Cause;
use agentsec_common::times::quantile_ns;
use agentsec_common::typical::{ANY_PROTOCOL, OPENED, PortRule};
use agentsec_common::window::BucketClock;
use agentsec_tests::kernel_rig::frames::{Flow, flags, stranger};
use agentsec_tests::kernel_rig::profiles::{calm, rule};
use agentsec_tests::kernel_rig::talk::{Segment, Talk};
use agentsec_tests::kernel_rig::{Agent, Arena, Fate, Sizes, coarse_ns};
use anyhow::Result;

const GET: &[u8] = b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const DENIED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

fn following() -> Profile {
    Profile { flags: calm().flags | FOLLOW_FLOWS, ..calm() }
}

fn arena(profile: Profile) -> Result<Arena> {
    let mut arena = Arena::new()?;
    arena.install(0, &profile)?;
    Ok(arena)
}

fn web() -> Flow {
    Flow::to(stranger(1), 80)
}

fn failures(arena: &Arena, agent: &Agent) -> Result<Vec<(AuthKind, u64)>> {
    let totals = arena.maps.ledger(agent.slot)?.auth_total;
    let kinds = (0..8).filter_map(|byte| Some((AuthKind::from_byte(byte)?, totals[byte as usize])));
    Ok(kinds.filter(|(_, count)| *count > 0).collect())
}

/// Sum of one of the ledger's windows now.
fn sum(arena: &Arena, agent: &Agent, window: impl Fn(&Ledger) -> [u64; 8]) -> Result<u64> {
    let clock = BucketClock::from_multiplier(calm().bucket_multiplier);
    let now = clock.moment(coarse_ns(), agent.control.epoch);
    Ok(now.sum(&window(&arena.maps.ledger(agent.slot)?)))
}

fn flow_count(arena: &Arena, agent: &Agent) -> usize {
    arena.maps.flows.keys().flatten().filter(|key| key.slot() == agent.slot).count()
}

#[test]
fn each_status_of_a_refusal_is_counted_once_on_a_connection_that_is_kept() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    for status in ["401 Unauthorized", "200 OK", "403 Forbidden", "407 Proxy", "401 Again", "404 No"] {
        talk.say(&arena, GET)?;
        talk.hear(&arena, format!("HTTP/1.1 {status}\r\nContent-Length: 30\r\n\r\n").as_bytes())?;
        talk.hear(&arena, b"HTTP/1.1 401 Unauthorized\r\n\r\n.")?;
    }
    assert_eq!(failures(&arena, &agent)?, [(Http401, 2), (Http403, 1), (Http407, 1)]);
    assert_eq!(sum(&arena, &agent, |ledger| ledger.auth)?, 400, "hundredths");
    let notices = arena.maps.notices()?;
    let told: Vec<_> = notices.iter().filter(|notice| notice.kind == NoticeKind::AuthFailure as u8).collect();
    assert_eq!(told.iter().map(|notice| notice.detail).collect::<Vec<_>>(), [0, 1, 2, 0]);
    assert_eq!((told[0].remote_port, told[0].slot), (80, agent.slot));
    Ok(())
}

#[test]
fn a_status_line_is_found_however_it_is_cut_and_only_where_it_belongs() -> Result<()> {
    type Step<'a> = (&'a str, &'a [&'a [u8]], u64);
    let interim = [b"HTTP/1.1 100 Continue\r\n\r\n", DENIED].concat();
    let rows: [Step<'_>; 9] = [
        ("in one", &[DENIED], 1),
        ("byte by byte", &[b"H", b"T", b"T", b"P", b"/", b"1", b".", b"1", b" ", b"4", b"0", b"1", b" x"], 1),
        ("in two", &[b"HTTP/1.1 4", b"01 Unauthorized\r\n\r\n"], 1),
        ("an earlier version", &[b"HTTP/1.0 401 Unauthorized\r\n\r\n"], 1),
        ("after an interim one in the same segment", &[&interim], 1),
        ("after an interim one", &[b"HTTP/1.1 103 Early Hints\r\n\r\n", DENIED], 1),
        ("in a body", &[OK, DENIED, DENIED], 0),
        ("in what is no HTTP", &[b"SSH-2.0-x\r\n", DENIED], 0),
        ("of absurd length", &[b"HTTP/1.1 40100000000000000000"], 1),
    ];
    let mut arena = arena(following())?;
    for (what, segments, expected) in rows {
        let agent = arena.agent(0)?;
        let mut talk = Talk::opened(&arena, web())?;
        talk.say(&arena, GET)?;
        for segment in segments {
            talk.hear(&arena, segment)?;
        }
        assert_eq!(arena.maps.ledger(agent.slot)?.auth_total[0], expected, "{what}");
    }
    Ok(())
}

#[test]
fn a_remote_fails_an_agent_no_more_often_than_it_asks() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    for _ in 0..50 {
        talk.hear(&arena, DENIED)?;
    }
    assert_eq!(failures(&arena, &agent)?, [], "unasked");
    talk.say(&arena, GET)?;
    for _ in 0..50 {
        talk.hear(&arena, DENIED)?;
    }
    assert_eq!(failures(&arena, &agent)?, [(Http401, 1)], "asked once");
    Ok(())
}

#[test]
fn segments_out_of_order_repeated_or_overlapping_count_nothing_twice() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    talk.say(&arena, GET)?;
    let at = |talk: &Talk, from: usize, to: usize| Segment {
        direction: Inbound,
        sequence: talk.remote.wrapping_add(from as u32),
        acknowledgment: talk.agent,
        flags: flags::ACK,
        payload: &DENIED[from..to],
    };
    talk.send(&arena, at(&talk, 20, 30))?;
    assert_eq!(failures(&arena, &agent)?, [], "the line itself is missing");
    for (from, to) in [(0, 5), (0, 5), (3, 9), (2, 20), (0, 30), (0, 30)] {
        talk.send(&arena, at(&talk, from, to))?;
    }
    talk.remote = talk.remote.wrapping_add(DENIED.len() as u32);
    talk.say(&arena, GET)?;
    talk.hear(&arena, OK)?;
    assert_eq!(failures(&arena, &agent)?, [(Http401, 1)]);
    assert_eq!(arena.maps.ledger(agent.slot)?.responses_total, 2);
    Ok(())
}

#[test]
fn pipelined_requests_are_each_counted_and_each_met() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    for _ in 0..3 {
        talk.say(&arena, GET)?;
    }
    for _ in 0..5 {
        talk.hear(&arena, DENIED)?;
    }
    let ledger = arena.maps.ledger(agent.slot)?;
    assert_eq!((ledger.requests_total, ledger.auth_total[0], ledger.responses_total), (3, 3, 1));
    Ok(())
}

#[test]
fn a_request_that_hides_its_method_is_still_answered_for() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    for _ in 0..4 {
        talk.begin_to_say(&arena, b"G")?;
        talk.say(&arena, &GET[1..])?;
        talk.hear(&arena, DENIED)?;
    }
    assert_eq!(failures(&arena, &agent)?, [(Http401, 4)]);
    Ok(())
}

#[test]
fn a_refusal_and_a_reset_are_of_their_kind_and_cannot_be_faked() -> Result<()> {
    let mut arena = arena(following())?;
    let spoofed = |talk: &Talk, sequence: u32, acknowledgment: u32| Segment {
        direction: Inbound,
        sequence: talk.remote.wrapping_add(sequence),
        acknowledgment: talk.agent.wrapping_add(acknowledgment),
        flags: flags::RST,
        payload: b"",
    };
    let agent = arena.agent(0)?;
    let mut talk = Talk::new(web());
    talk.knock(&arena)?;
    talk.send(&arena, spoofed(&talk, 0, 1))?;
    assert_eq!(failures(&arena, &agent)?, [], "of another SYN");
    talk.reset(&arena)?;
    talk.reset(&arena)?;
    assert_eq!(failures(&arena, &agent)?, [(Refused, 1)]);
    assert_eq!(flow_count(&arena, &agent), 0, "it is over");

    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    talk.say(&arena, b"hello")?;
    talk.send(&arena, spoofed(&talk, 1, 0))?;
    assert_eq!(failures(&arena, &agent)?, [], "beside the window");
    talk.reset(&arena)?;
    assert_eq!(failures(&arena, &agent)?, [(ResetBeforeData, 1)]);

    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    talk.say(&arena, GET)?;
    talk.hear(&arena, OK)?;
    talk.reset(&arena)?;
    assert_eq!(failures(&arena, &agent)?, [], "after data");
    assert_eq!(flow_count(&arena, &agent), 0);
    Ok(())
}

#[test]
fn a_tls_alert_that_refuses_the_agent_counts_within_the_handshake() -> Result<()> {
    let hello = [&[22, 3, 1, 0, 100, 1][..], &[0; 100]].concat();
    let alert = |description: u8| [21, 3, 3, 0, 2, 2, description];
    let rows = [
        ("access denied", alert(49), 1),
        ("an unknown authority", alert(48), 1),
        ("a certificate is required", alert(116), 1),
        ("the end", alert(0), 0),
    ];
    let mut arena = arena(following())?;
    for (what, alert, expected) in rows {
        let agent = arena.agent(0)?;
        let mut talk = Talk::opened(&arena, Flow::to(stranger(1), 443))?;
        talk.say(&arena, &hello)?;
        talk.hear(&arena, &[&[22, 3, 3, 0, 90, 2][..], &[0; 90]].concat())?;
        talk.say(&arena, &[&[22, 3, 3, 0, 70, 11][..], &[0; 70]].concat())?;
        talk.hear(&arena, &alert)?;
        assert_eq!(arena.maps.ledger(agent.slot)?.auth_total[TlsAlert as usize], expected, "{what}");
        for _ in 0..8 {
            talk.say(&arena, &[&[23, 3, 3, 0, 70][..], &[0; 70]].concat())?;
            talk.hear(&arena, &[&[23, 3, 3, 0, 70][..], &[0; 70]].concat())?;
        }
        talk.say(&arena, &[&[23, 3, 3, 0, 70][..], &[0; 70]].concat())?;
        talk.hear(&arena, &alert)?;
        assert_eq!(arena.maps.ledger(agent.slot)?.auth_total[TlsAlert as usize], expected, "later: {what}");
    }
    Ok(())
}

#[test]
fn a_protected_alert_that_overtakes_the_first_request_is_a_refusal_and_a_later_one_an_end() -> Result<()> {
    let record = |kind: u8, length: u8| [&[kind, 3, 3, 0, length][..], &vec![7; length.into()]].concat();
    let mut arena = arena(following())?;
    for (what, answers, expected) in [("at once", 0, 1), ("after an answer", 1, 0)] {
        let agent = arena.agent(0)?;
        let mut talk = Talk::opened(&arena, Flow::to(stranger(1), 443))?;
        talk.say(&arena, &[&[22, 3, 1, 0, 100, 1][..], &[0; 100]].concat())?;
        talk.hear(&arena, &record(22, 90))?;
        talk.say(&arena, &record(23, 70))?;
        let certificate_ends = talk.agent;
        talk.say(&arena, &record(23, 40))?;
        for _ in 0..answers {
            talk.hear(&arena, &record(23, 60))?;
            talk.say(&arena, &record(23, 40))?;
        }
        let alert = Segment {
            direction: Inbound,
            sequence: talk.remote,
            acknowledgment: if answers == 0 { certificate_ends } else { talk.agent },
            flags: flags::ACK,
            payload: &record(23, 19),
        };
        talk.send(&arena, alert)?;
        assert_eq!(arena.maps.ledger(agent.slot)?.auth_total[TlsAlert as usize], expected, "{what}");
    }
    Ok(())
}

#[test]
fn a_change_of_cipher_between_two_pieces_of_a_greeting_hides_no_refusal() -> Result<()> {
    let record = |kind: u8, length: u8| [&[kind, 3, 3, 0, length][..], &vec![7; length.into()]].concat();
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, Flow::to(stranger(1), 443))?;
    talk.say(&arena, &record(22, 100))?;
    talk.hear(&arena, &record(22, 90))?;
    talk.say(&arena, &[20, 3, 3, 0, 1, 1])?;
    talk.hear(&arena, &record(23, 200))?;
    talk.say(&arena, &record(23, 70))?;
    talk.hear(&arena, &record(23, 19))?;
    let ledger = arena.maps.ledger(agent.slot)?;
    assert_eq!(ledger.auth_total[TlsAlert as usize], 1);
    assert_eq!(arena.maps.times.get(&agent.slot, 0)?.iter().sum::<u32>(), 2, "both answers, and no piece");
    Ok(())
}

#[test]
fn response_times_are_what_lies_between_question_and_answer() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, Flow::to(stranger(1), 4000))?;
    // The exact times lie between these, however slow the machine is.
    let (mut least, mut most) = (Vec::new(), Vec::new());
    for wait_ms in [1, 3, 9, 27] {
        let before = std::time::Instant::now();
        talk.say(&arena, b"question")?;
        let asked = std::time::Instant::now();
        // Not a wait for something to happen: this is the delay that is to be measured.
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        least.push(asked.elapsed().as_nanos() as u64);
        talk.hear(&arena, b"answer")?;
        most.push(before.elapsed().as_nanos() as u64);
        talk.hear(&arena, b"the rest of it")?;
    }
    least.sort_unstable();
    most.sort_unstable();
    let times = arena.maps.times.get(&agent.slot, 0)?;
    assert_eq!(times.iter().sum::<u32>(), 4);
    for (index, per_mille) in [250, 500, 750, 1000].into_iter().enumerate() {
        let told = quantile_ns(&times, 0, per_mille).unwrap_or(0);
        let slack = |exact: u64| (exact / 20).max(200_000);
        let (least, most) = (least[index], most[index]);
        assert!(told + slack(least) >= least && told <= most + slack(most), "{told}: {least} to {most}");
    }
    let key = Flow::to(stranger(1), 4000).opened(&agent, TCP);
    let endpoint = arena.maps.responses.get(&key, 0)?;
    assert_eq!((endpoint.count, endpoint.times.iter().sum::<u32>()), (4, 4));
    Ok(())
}

#[test]
fn what_answers_nothing_is_no_response() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, Flow::to(stranger(1), 4000))?;
    let responses = |arena: &Arena| arena.maps.ledger(agent.slot).map(|ledger| ledger.responses_total);
    talk.hear(&arena, b"a greeting")?;
    talk.hear(&arena, b"and more")?;
    assert_eq!(responses(&arena)?, 0, "server push");
    talk.say(&arena, b"question")?;
    let again = Segment {
        direction: Outbound,
        sequence: talk.agent.wrapping_sub(8),
        acknowledgment: talk.remote,
        flags: flags::ACK,
        payload: b"question",
    };
    let keep_alive = Segment { sequence: talk.agent.wrapping_sub(1), payload: b"", ..again };
    let pushed = Segment {
        direction: Inbound,
        sequence: talk.remote,
        acknowledgment: talk.agent.wrapping_sub(8),
        flags: flags::ACK,
        payload: b"sent before it was asked",
    };
    for segment in [again, keep_alive, pushed, again] {
        talk.send(&arena, segment)?;
    }
    assert_eq!(responses(&arena)?, 0, "retransmission, keep-alive, push");
    talk.remote = talk.remote.wrapping_add(pushed.payload.len() as u32);
    talk.hear(&arena, b"answer")?;
    assert_eq!(responses(&arena)?, 1);
    talk.send(&arena, again)?;
    talk.hear(&arena, b"more")?;
    assert_eq!(responses(&arena)?, 1);
    Ok(())
}

#[test]
fn a_dns_answer_is_one_by_its_id() -> Result<()> {
    let message = |id: u8, response: bool| {
        let flags = if response { 0x81 } else { 0x01 };
        [&[0, id, flags, 0, 0, 1, 0, u8::from(response), 0, 0, 0, 0][..], b"\x01a\0\0\x01\0\x01"].concat()
    };
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let flow = Flow::to(stranger(9), 53);
    for id in [1, 2] {
        arena.send(flow.udp(Outbound, &message(id, false)))?;
    }
    arena.send(flow.udp(Outbound, &message(1, false)))?;
    for (id, responses) in [(7, 0), (2, 0), (1, 1), (1, 1)] {
        arena.receive(flow.udp(Inbound, &message(id, true)))?;
        assert_eq!(arena.maps.ledger(agent.slot)?.responses_total, responses, "after {id}");
    }
    let ledger = arena.maps.ledger(agent.slot)?;
    assert_eq!(ledger.requests_total, 2, "a query that is sent again is one");
    let (_, found) = arena.maps.flows.iter().flatten().find(|(key, _)| key.slot() == agent.slot).unwrap();
    assert_eq!(Sent(found.sent).spoken(), Language::Dns);
    Ok(())
}

#[test]
fn requests_are_what_can_be_read_else_connections() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    for port in 0..5 {
        Talk::opened(&arena, Flow { local_port: 41_000 + port, ..Flow::to(stranger(1), 4000) })?;
    }
    assert_eq!(arena.maps.ledger(agent.slot)?.requests_total, 5, "connections");
    let mut talk = Talk::opened(&arena, web())?;
    for _ in 0..7 {
        talk.say(&arena, GET)?;
        talk.hear(&arena, OK)?;
    }
    assert_eq!(arena.maps.ledger(agent.slot)?.requests_total, 12, "the first is the connection's");
    let ledger = arena.maps.ledger(agent.slot)?;
    assert_eq!(ledger.anomalous_total, 12, "nothing is typical");
    Ok(())
}

#[test]
fn anomalous_requests_are_those_to_strangers_and_those_denied() -> Result<()> {
    let mut arena = arena(following())?;
    let std::net::IpAddr::V4(known) = stranger(1) else { unreachable!("strangers are IPv4") };
    let any = PortRule { kinds: OPENED, protocol: ANY_PROTOCOL, first: 0, last: u16::MAX };
    arena.expect(0, &[rule(known, 32, any)])?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    for answer in [OK, DENIED, OK] {
        talk.say(&arena, GET)?;
        talk.hear(&arena, answer)?;
    }
    assert_eq!(arena.maps.ledger(agent.slot)?.anomalous_total, 1, "the denied one");
    Talk::opened(&arena, Flow::to(stranger(2), 80))?;
    assert_eq!(arena.maps.ledger(agent.slot)?.anomalous_total, 2, "and the stranger");
    let probed = arena.agent_in(State::HalfOpen, Mode::Enforce, 0)?;
    Talk::new(Flow::to(stranger(3), 80)).knock(&arena)?;
    assert_eq!(arena.maps.ledger(probed.slot)?.anomalous_total, 1, "and what violates probation");
    Ok(())
}

#[test]
fn weights_make_of_kinds_what_the_limit_counts() -> Result<()> {
    let mut auth_weights_centi = [0; 8];
    auth_weights_centi[Http401 as usize] = 50;
    let profile = Profile { auth_weights_centi, max_auth_failures_centi: 200, ..following() };
    let mut arena = arena(profile)?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    let mut fates = Vec::new();
    for _ in 0..5 {
        talk.say(&arena, GET)?;
        fates.push(talk.hear(&arena, DENIED)?);
    }
    assert_eq!(fates, [vec![Fate::Passed; 4], vec![Fate::Dropped]].concat(), "five halves are more than two");
    let trip = arena.maps.ledger(agent.slot)?.trip;
    assert_eq!((trip.cause, trip.auth_failures_centi), (Cause::AuthLimit as u8, 250));
    assert_eq!(talk.say(&arena, GET)?, Fate::Dropped, "the circuit is open");
    Ok(())
}

#[test]
fn two_signals_at_half_strength_trip_on_the_packet_that_joins_them() -> Result<()> {
    let profile = Profile {
        anomalous_auth_failures_centi: 200,
        anomalous_deviation_100us: 100,
        normal_response_100us: 10_000,
        quarantine_threshold: 400,
        ..following()
    };
    let mut arena = arena(profile)?;
    let agent = arena.agent(0)?;
    // Ten answers at once, where a second is normal: a deviation, worth 0.2.
    let mut quick = Talk::opened(&arena, Flow::to(stranger(1), 4000))?;
    for _ in 0..10 {
        quick.say(&arena, b"question")?;
        assert_eq!(quick.hear(&arena, b"answer")?, Fate::Passed);
    }
    let mut talk = Talk::opened(&arena, web())?;
    for _ in 0..2 {
        talk.say(&arena, GET)?;
        assert_eq!(talk.hear(&arena, DENIED)?, Fate::Passed, "at the threshold");
    }
    talk.say(&arena, GET)?;
    assert_eq!(talk.hear(&arena, DENIED)?, Fate::Dropped, "the third failure is worth 0.3");
    let trip = arena.maps.ledger(agent.slot)?.trip;
    assert_eq!((trip.cause, trip.direction), (Cause::Risk as u8, Inbound as u8));
    assert_eq!((trip.terms[0], trip.terms[3], trip.terms[7]), (300, 200, 500), "{:?}", trip.terms);

    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    for _ in 0..5 {
        talk.say(&arena, GET)?;
        assert_eq!(talk.hear(&arena, DENIED)?, Fate::Passed, "failures alone do not");
    }
    assert_eq!(arena.maps.ledger(agent.slot)?.trip_seq, 0);
    Ok(())
}

#[test]
fn a_deviation_over_its_limit_trips_by_itself_and_one_of_few_answers_does_not() -> Result<()> {
    let profile = Profile { max_deviation_100us: 5_000, normal_response_100us: 10_000, ..following() };
    let mut arena = arena(profile)?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, Flow::to(stranger(1), 4000))?;
    for answer in 1..=10 {
        talk.say(&arena, b"question")?;
        let expected = if answer < 10 { Fate::Passed } else { Fate::Dropped };
        assert_eq!(talk.hear(&arena, b"answer")?, expected, "answer {answer}");
    }
    assert_eq!(arena.maps.ledger(agent.slot)?.trip.cause, Cause::DeviationLimit as u8);
    Ok(())
}

#[test]
fn reported_failures_come_on_top_of_those_that_the_kernel_sees() -> Result<()> {
    let mut arena = arena(Profile { max_auth_failures_centi: 500, ..following() })?;
    let agent = arena.agent(0)?;
    let slow = SlowSignals { auth_failures: 4, ..SlowSignals::default() };
    arena.signals(agent.slot, slow, coarse_ns() + 60_000_000_000)?;
    let mut talk = Talk::opened(&arena, web())?;
    talk.say(&arena, GET)?;
    assert_eq!(talk.hear(&arena, DENIED)?, Fate::Passed);
    talk.say(&arena, GET)?;
    assert_eq!(talk.hear(&arena, DENIED)?, Fate::Dropped);
    assert_eq!(arena.maps.ledger(agent.slot)?.trip.auth_failures_centi, 600);
    Ok(())
}

#[test]
fn a_new_epoch_forgets_what_was_counted() -> Result<()> {
    let mut arena = arena(Profile { max_auth_failures_centi: 200, ..following() })?;
    let mut agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    for _ in 0..3 {
        talk.say(&arena, GET)?;
        talk.hear(&arena, DENIED)?;
    }
    assert_eq!(arena.maps.ledger(agent.slot)?.trip_seq, 1);
    arena.release(&mut agent)?;
    for expected in [Fate::Passed, Fate::Passed, Fate::Dropped] {
        talk.say(&arena, GET)?;
        assert_eq!(talk.hear(&arena, DENIED)?, expected);
    }
    Ok(())
}

#[test]
fn nothing_is_followed_where_the_profile_does_not_ask_for_it() -> Result<()> {
    let mut arena = arena(calm())?;
    let quiet = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    talk.say(&arena, GET)?;
    talk.hear(&arena, DENIED)?;
    assert_eq!(flow_count(&arena, &quiet), 0);
    assert_eq!(failures(&arena, &quiet)?, []);

    let mut read_ports = [PortRange::NONE; 8];
    read_ports[3] = PortRange { from: 8000, to: 8100 };
    arena.install(0, &Profile { read_ports, ..following() })?;
    for (port, expected) in [(7999, 0), (8000, 1), (8100, 1), (8101, 0)] {
        let agent = arena.agent(0)?;
        let mut talk = Talk::opened(&arena, Flow::to(stranger(1), port))?;
        talk.say(&arena, GET)?;
        talk.hear(&arena, DENIED)?;
        let ledger = arena.maps.ledger(agent.slot)?;
        assert_eq!((ledger.auth_total[0], ledger.responses_total), (expected, 1), "port {port}");
    }
    Ok(())
}

#[test]
fn connections_end_and_find_no_room_beyond_their_cap() -> Result<()> {
    const CAP: u32 = 10;
    let mut arena = Arena::sized(Sizes::default())?;
    arena.install(0, &Profile { flow_cap: CAP, ..following() })?;
    let agent = arena.agent(0)?;
    let flow = |n: u16| Flow { local_port: 30_000 + n, ..web() };
    for n in 0..3 * CAP as u16 {
        let mut talk = Talk::opened(&arena, flow(n))?;
        talk.close(&arena)?;
    }
    let ledger = arena.maps.ledger(agent.slot)?;
    assert_eq!((ledger.flows_inserted, ledger.flows_ended, ledger.flow_overflow), (30, 30, 0));
    for n in 0..CAP as u16 + 2 {
        assert_eq!(Talk::new(flow(n)).knock(&arena)?, Fate::Passed);
    }
    assert_eq!(flow_count(&arena, &agent), CAP as usize);
    assert_eq!(arena.maps.ledger(agent.slot)?.flow_overflow, 2);
    // What the daemon removes makes room.
    let idle: Vec<_> = arena.maps.flows.keys().flatten().collect();
    arena.maps.flows.remove(&idle[0])?;
    arena.maps.change_policy(agent.slot, |policy| policy.flows_removed += 1)?;
    Talk::new(flow(50)).knock(&arena)?;
    assert_eq!(flow_count(&arena, &agent), CAP as usize);
    Ok(())
}

#[test]
fn ports_that_are_used_again_are_another_connection() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let mut talk = Talk::opened(&arena, web())?;
    talk.say(&arena, b"\x16\x03\x01\x00\x04hell")?;
    let mut again = Talk { agent: 7_000, remote: 9_000, ..Talk::new(web()) };
    again.knock(&arena)?;
    again.accept(&arena)?;
    again.say(&arena, GET)?;
    again.hear(&arena, DENIED)?;
    assert_eq!(failures(&arena, &agent)?, [(Http401, 1)]);
    let (_, found) = arena.maps.flows.iter().flatten().find(|(key, _)| key.slot() == agent.slot).unwrap();
    assert_eq!((Sent(found.sent).spoken(), Asked(found.asked).count()), (Language::Http1, 1));
    assert_eq!((Answered(found.answered).count(), Statuses(found.statuses).latest()), (1, 401));
    Ok(())
}

#[test]
fn what_is_spoken_with_http2_or_in_a_language_of_its_own_is_sampled() -> Result<()> {
    let mut arena = arena(following())?;
    let agent = arena.agent(0)?;
    let frame =
        |kind: u8, payload: &[u8]| [&[0, 0, payload.len() as u8, kind, 4, 0, 0, 0, 1], payload].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut talk = Talk::opened(&arena, web())?;
    talk.say(&arena, &[&preface[..], &frame(4, b""), &frame(1, b"\x82")].concat())?;
    talk.hear(&arena, &frame(4, b""))?;
    talk.hear(&arena, &[frame(4, b""), frame(1, b"\x48\x03401")].concat())?;
    talk.say(&arena, &[frame(1, b"\x82"), frame(1, b"\x82")].concat())?;
    let samples = arena.maps.samples()?;
    assert_eq!(samples.len(), 1);
    assert_eq!(
        (samples[0].language, samples[0].ordinal, samples[0].flow.slot()),
        (Language::Http2 as u8, 0, agent.slot)
    );
    let headers = frame(1, b"\x48\x03401");
    assert_eq!(&samples[0].bytes[..usize::from(samples[0].length)], &headers[..]);
    assert_eq!(arena.maps.ledger(agent.slot)?.requests_total, 3);

    let mut talk = Talk::opened(&arena, Flow::to(stranger(1), 6379))?;
    for _ in 0..12 {
        talk.say(&arena, b"AUTH guess\r\n")?;
        talk.hear(&arena, b"-WRONGPASS invalid username-password pair\r\n")?;
    }
    let samples = arena.maps.samples()?;
    assert_eq!(samples.iter().map(|sample| sample.ordinal).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(samples[0].bytes.starts_with(b"-WRONGPASS"));
    assert_eq!(arena.maps.ledger(agent.slot)?.samples_lost, 0);
    Ok(())
}
