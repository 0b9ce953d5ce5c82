use super::*;
use proptest::prelude::*;

fn segment(sequence: u32, acknowledgment: u32, payload: u32, flags: u8) -> Segment {
    Segment { sequence, acknowledgment, payload, flags: flags | tcp::ACK }
}

const PUSH: u8 = tcp::PSH;

/// A connection of which the handshake is over: the agent's next byte is 1,000, the remote's 5,000.
fn established() -> (Asking, Answered) {
    let syn = Segment { sequence: 999, flags: tcp::SYN, ..Segment::default() };
    let (asking, says) = Asking::default().tcp(&syn, Start::Unread, 0);
    assert_eq!(says, Says::Nothing);
    (asking, Answered::new(0, 5000))
}

#[test]
fn what_is_sent_after_an_answer_asks() {
    let (asking, answered) = established();
    let (asking, says) = asking.tcp(&segment(1000, 5000, 100, PUSH), Start::Unread, answered.count());
    assert_eq!((says, asking.answer), (Says::Asks, 5000));
    let (answered, hears) = answered.tcp(&segment(5000, 1100, 300, PUSH), asking.asked, true);
    assert_eq!(hears, Hears::Answer);
    let (answered, hears) = answered.tcp(&segment(5300, 1100, 300, PUSH), asking.asked, true);
    assert_eq!(hears, Hears::More, "the rest of the answer");
    let (asking, says) = asking.tcp(&segment(1100, 5600, 10, PUSH), Start::Unread, answered.count());
    assert_eq!((says, asking.answer, asking.asked.count()), (Says::Asks, 5600, 2));
}

#[test]
fn retransmissions_and_keep_alives_are_nothing_new() {
    let (asking, answered) = established();
    let asked = segment(1000, 5000, 100, PUSH);
    let (asking, _) = asking.tcp(&asked, Start::Unread, 0);
    for old in [asked, segment(1099, 5000, 0, 0), segment(1099, 5000, 1, 0), segment(1050, 5000, 50, PUSH)] {
        let (same, says) = asking.tcp(&old, Start::Request, 0);
        assert_eq!((same, says), (asking, Says::Nothing), "{old:?}");
    }
    let (answered, _) = answered.tcp(&segment(5000, 1100, 300, 0), asking.asked, true);
    let again = answered.tcp(&segment(5000, 1100, 300, 0), Asked::new(2, 1200), true);
    assert_eq!(again, (answered, Hears::Nothing), "a retransmission answers no later question");
}

#[test]
fn what_was_on_its_way_when_the_agent_asked_answers_nothing() {
    let (asking, answered) = established();
    let (asking, _) = asking.tcp(&segment(1000, 5000, 100, PUSH), Start::Unread, 0);
    let (answered, hears) = answered.tcp(&segment(5000, 1000, 40, PUSH), asking.asked, true);
    assert_eq!(hears, Hears::More, "a push does not acknowledge the question");
    let (answered, hears) = answered.tcp(&segment(5040, 1060, 40, PUSH), asking.asked, true);
    assert_eq!(hears, Hears::More, "nor one that acknowledges a part of it");
    let (_, hears) = answered.tcp(&segment(5080, 1100, 40, PUSH), asking.asked, true);
    assert_eq!(hears, Hears::Answer);
}

#[test]
fn an_upload_ends_where_it_is_pushed() {
    let (asking, _) = established();
    let (asking, says) = asking.tcp(&segment(1000, 5000, 1400, 0), Start::Unread, 0);
    assert_eq!(says, Says::Asks);
    let (asking, says) = asking.tcp(&segment(2400, 5000, 1400, 0), Start::Unread, 0);
    assert_eq!(says, Says::GoesOn { ends: false });
    let (asking, says) = asking.tcp(&segment(3800, 5000, 200, PUSH), Start::Unread, 0);
    assert_eq!((says, asking.asked), (Says::GoesOn { ends: true }, Asked::new(1, 4000)));
}

#[test]
fn of_pipelined_questions_the_first_keeps_its_time_and_one_answer_answers_all() {
    let (asking, answered) = established();
    let (asking, _) = asking.tcp(&segment(1000, 5000, 100, PUSH), Start::Unread, 0);
    let (asking, says) = asking.tcp(&segment(1100, 5000, 100, PUSH), Start::Unread, 0);
    assert_eq!((says, asking.asked), (Says::AsksMore, Asked::new(2, 1100)));
    let (answered, hears) = answered.tcp(&segment(5000, 1100, 50, PUSH), asking.asked, true);
    assert_eq!((hears, answered.count()), (Hears::Answer, 2));
    let (_, hears) = answered.tcp(&segment(5050, 1200, 50, PUSH), asking.asked, true);
    assert_eq!(hears, Hears::More, "the second one's time is not known");
}

#[test]
fn where_streams_share_a_connection_time_runs_from_the_latest_message() {
    let (asking, _) = established();
    let (asking, _) = asking.tcp(&segment(1000, 5000, 20, PUSH), Start::Shared, 0);
    let (asking, says) = asking.tcp(&segment(1020, 5000, 100, PUSH), Start::Shared, 0);
    assert_eq!((says, asking.asked), (Says::AsksAnew, Asked::new(2, 1120)));
}

#[test]
fn a_change_of_cipher_asks_nothing_once_within_the_handshake() {
    let (asking, answered) = established();
    let (asking, _) = asking.tcp(&segment(1000, 5000, 200, PUSH), Start::Request, 0);
    let (answered, _) = answered.tcp(&segment(5000, 1200, 90, PUSH), asking.asked, true);
    for (start, says) in [(Start::Handshake, Says::Nothing), (Start::Shared, Says::Asks)] {
        assert_eq!(asking.tcp(&segment(1200, 5090, 6, PUSH), start, 1).1, says, "{start:?}");
    }
    let (asking, _) = asking.tcp(&segment(1200, 5090, 6, PUSH), Start::Handshake, 1);
    let (answered, hears) = answered.tcp(&segment(5090, 1206, 900, PUSH), asking.asked, true);
    assert_eq!(hears, Hears::More, "the rest of the greeting");
    let (again, says) = asking.tcp(&segment(1206, 5990, 6, PUSH), Start::Handshake, 1);
    assert_eq!((says, again.answer), (Says::Asks, 5990), "an agent that sends all of its words in sixes");
    let (asking, says) = asking.tcp(&segment(1206, 5990, 74, PUSH), Start::Handshake, 1);
    assert_eq!((says, asking.answer), (Says::Asks, 5990));
    assert_eq!(answered.tcp(&segment(5990, 1280, 24, PUSH), asking.asked, true).1, Hears::Answer);
}

#[test]
fn a_request_that_can_be_read_begins_a_message_and_its_body_does_not() {
    let (asking, _) = established();
    let (asking, _) = asking.tcp(&segment(1000, 5000, 100, PUSH), Start::Request, 0);
    let (body, says) = asking.tcp(&segment(1100, 5000, 100, PUSH), Start::Rest, 0);
    assert_eq!((says, body.asked), (Says::GoesOn { ends: true }, Asked::new(1, 1200)));
    let (_, says) = asking.tcp(&segment(1100, 5000, 100, 0), Start::Request, 0);
    assert_eq!(says, Says::AsksMore, "pushed or not");
}

#[test]
fn an_agent_that_pushes_nothing_still_asks() {
    let (asking, _) = established();
    let (asking, _) = asking.tcp(&segment(1000, 5000, 100, 0), Start::Unread, 0);
    let (_, says) = asking.tcp(&segment(1100, 5050, 100, 0), Start::Unread, 1);
    assert_eq!(says, Says::Asks);
}

#[test]
fn sequence_numbers_wrap() {
    let syn = Segment { sequence: u32::MAX - 10, flags: tcp::SYN, ..Segment::default() };
    let (asking, _) = Asking::default().tcp(&syn, Start::Unread, 0);
    let (asking, says) = asking.tcp(&segment(u32::MAX - 9, 7, 100, PUSH), Start::Unread, 0);
    assert_eq!((says, asking.sent.end()), (Says::Asks, 90));
    let (_, says) = asking.tcp(&segment(u32::MAX - 9, 7, 100, PUSH), Start::Unread, 0);
    assert_eq!(says, Says::Nothing);
}

#[test]
fn a_datagram_with_a_name_is_answered_by_its_name_only() {
    let (asking, says) = Asking::default().udp(0x1_beef, 0);
    assert_eq!(says, Says::Asks);
    let (asking, says) = asking.udp(0x1_beef, 0);
    assert_eq!(says, Says::Nothing, "asked again");
    let (asking, says) = asking.udp(0x1_cafe, 0);
    assert_eq!(says, Says::AsksMore, "the other family");
    let answered = Answered::default();
    assert_eq!(answered.udp(0x1_cafe, asking.asked).1, Hears::More);
    let (answered, hears) = answered.udp(0x1_beef, asking.asked);
    assert_eq!(hears, Hears::Answer);
    assert_eq!(answered.udp(0x1_beef, asking.asked).1, Hears::More, "once");
}

fn line(text: &str) -> ([u8; 16], u32) {
    let mut bytes = [0; 16];
    let length = text.len().min(16);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    (bytes, length as u32)
}

#[test]
fn a_status_line_is_read_however_it_is_cut() {
    let whole = "HTTP/1.1 401 Unauthorized";
    for cut in 0..=12 {
        let (bytes, length) = line(&whole[..cut]);
        let (statuses, first) = Statuses::default().advance(&bytes, length);
        if cut == 12 {
            assert_eq!(first, Line::Status(401));
            continue;
        }
        assert_eq!((first, statuses.read()), (Line::Unfinished, cut as u32));
        let (bytes, length) = line(&whole[cut..]);
        assert_eq!(statuses.advance(&bytes, length).1, Line::Status(401), "cut at {cut}");
    }
    for foreign in
        ["HTTP/2 200 OK...", "HTTP/1.1  401 no", "http/1.1 401 OK ", "HTTP/1.1 4a1 OK ", "SSH-2.0-OpenSSH_"]
    {
        let (bytes, length) = line(foreign);
        assert_eq!(Statuses::default().advance(&bytes, length).1, Line::Foreign, "{foreign}");
    }
}

#[test]
fn a_status_line_is_looked_for_where_the_answer_begins() {
    let (one, none) = (Requests::new(1, 5000), Requests::new(0, 5000));
    let heard = Statuses::default().hearing();
    let at = |sequence, payload| segment(sequence, 1100, payload, 0);
    assert_eq!(heard.place(&at(5000, 300), none, 5000), None, "nothing was requested");
    assert_eq!(heard.place(&at(5000, 300), one, 5000), Some(0));
    assert_eq!(heard.place(&at(4990, 300), one, 4990), Some(10), "behind the end of what came before");
    assert_eq!(heard.place(&at(5300, 300), one, 5300), None, "in the body");
    let (bytes, _) = line("HTTP");
    let (begun, _) = heard.advance(&bytes, 4);
    assert_eq!(begun.place(&at(5004, 8), one, 5004), Some(0));
    assert_eq!(begun.place(&at(5002, 8), one, 5004), Some(2), "overlapping");
    assert_eq!(begun.place(&at(5005, 8), one, 5004), None, "out of order");
}

#[test]
fn a_request_meets_one_status_and_an_interim_one_before_it() {
    let requests = Requests::new(1, 5000);
    let statuses = Statuses::default().hearing().met(100, 1, false);
    assert_eq!((statuses.waiting(requests), statuses.latest()), (1, 100));
    assert_eq!(statuses.place(&segment(5025, 1100, 300, 0), requests, 5025), Some(0));
    let statuses = statuses.met(401, 1, false);
    assert_eq!((statuses.waiting(requests), statuses.latest()), (0, 401));
    assert_eq!(statuses.place(&segment(5325, 1100, 300, 0), requests, 5325), None);
}

#[test]
fn of_pipelined_requests_each_meets_one_status_at_the_begin_of_a_segment() {
    let requests = Requests::new(3, 5000);
    let mut statuses = Statuses::default().hearing();
    for (waiting, sequence) in [(3, 5000), (2, 5100), (1, 5200)] {
        assert_eq!(statuses.waiting(requests), waiting);
        assert_eq!(statuses.place(&segment(sequence, 1100, 100, 0), requests, sequence), Some(0));
        statuses = statuses.met(403, waiting, false);
    }
    assert_eq!(statuses.place(&segment(5300, 1100, 100, 0), requests, 5300), None);
}

#[test]
fn what_goes_on_inside_a_tunnel_is_not_read() {
    let statuses = Statuses::default();
    assert!(statuses.met(101, 1, false).is_tunnel());
    assert!(statuses.met(200, 1, true).is_tunnel());
    assert!(!statuses.met(200, 1, false).is_tunnel());
    assert!(!statuses.met(407, 1, true).is_tunnel());
}

#[test]
fn a_reset_counts_only_with_the_number_that_the_agent_waits_for() {
    let (asking, answered) = established();
    let syn_sent = Statuses::default();
    let refusal =
        |acknowledgment, flags| Segment { acknowledgment, flags: tcp::RST | flags, ..Segment::default() };
    assert_eq!(reset(&refusal(1000, tcp::ACK), asking.sent, Answered::default(), syn_sent), Reset::Refused);
    assert_eq!(reset(&refusal(1001, tcp::ACK), asking.sent, Answered::default(), syn_sent), Reset::Foreign);
    assert_eq!(reset(&refusal(1000, 0), asking.sent, Answered::default(), syn_sent), Reset::Foreign);
    let reached = syn_sent.reaching();
    assert_eq!(reset(&segment(5000, 0, 0, tcp::RST), asking.sent, answered, reached), Reset::BeforeData);
    assert_eq!(reset(&segment(5001, 0, 0, tcp::RST), asking.sent, answered, reached), Reset::Foreign);
    let heard = reached.hearing();
    assert_eq!(reset(&segment(5000, 0, 0, tcp::RST), asking.sent, answered, heard), Reset::Late);
}

#[test]
fn words_keep_their_parts_apart() {
    let sent = Sent::new(true, true).speaking(Language::Tls).connecting(true);
    assert_eq!((sent.language(), sent.is_connecting(), sent.is_midway()), (Language::Tls, true, true));
    assert_eq!(sent.speaking(Language::Http1).language(), Language::Http1);
    assert_eq!(Sent::new(false, false).speaking(Language::Http1).language(), Language::Other);
    let statuses = Statuses::default().hearing().met(403, 1, false).finishing();
    assert_eq!((statuses.count(), statuses.latest(), statuses.is_finished()), (1, 403, true));
    assert!(statuses.has_heard() && statuses.is_reached() && !statuses.is_tunnel());
}

#[test]
fn a_key_tells_agent_protocol_and_addresses_apart() {
    let [a, b] = [[0, 0, crate::endpoint::MAPPED, 0x0200_090a], [0, 0, crate::endpoint::MAPPED, 0x0300_090a]];
    let key = |slot, protocol, local| FlowKey::new(slot, protocol, local, (40_000, 443), b);
    let tcp = key(65_535, protocol::TCP, &a);
    assert_eq!((tcp.slot(), tcp.protocol()), (65_535, protocol::TCP));
    let udp = key(7, protocol::UDP, &a);
    assert_eq!((udp.slot(), udp.protocol()), (7, protocol::UDP));
    assert_ne!(key(7, protocol::UDP, &a), key(7, protocol::UDP, &b));
    assert_ne!(key(7, protocol::UDP, &a), key(7, protocol::TCP, &a));
}

#[test]
fn a_connection_is_settled_for_a_profile_and_a_second() {
    let word = Settled::to_word(7, 5 << 30);
    assert_ne!(Settled::to_word(0, 0), 0);
    assert_eq!(word, Settled::to_word(7, (6 << 30) - 1));
    assert_ne!(word, Settled::to_word(8, 5 << 30));
    assert_ne!(word, Settled::to_word(7, 6 << 30));
}

#[derive(Clone, Debug)]
enum Step {
    Agent { back: u32, payload: u32, pushed: bool, start: u8 },
    Remote { back: u32, payload: u32, acknowledges: u32, bytes: [u8; 16] },
}

fn any_step() -> impl Strategy<Value = Step> {
    let agent = (0..200u32, 0..3000u32, any::<bool>(), 0..5u8)
        .prop_map(|(back, payload, pushed, start)| Step::Agent { back, payload, pushed, start });
    let text = prop_oneof![Just(*b"HTTP/1.1 401 No\r"), Just(*b"HTTP/1.1 100 Go\r"), any::<[u8; 16]>()];
    let remote = (0..200u32, 0..3000u32, 0..3000u32, text)
        .prop_map(|(back, payload, acknowledges, bytes)| Step::Remote { back, payload, acknowledges, bytes });
    prop_oneof![agent, remote]
}

proptest! {
    /// Whatever a remote sends: it answers, and is counted for, no more often than the agent has asked.
    #[test]
    fn nobody_is_answered_more_often_than_he_asks(
        start: u32, remote_start: u32, steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let mut asking = Asking::default();
        let mut requests = Requests::default();
        let mut answered = Answered::new(0, remote_start);
        let mut statuses = Statuses::default().reaching();
        let (mut next, mut remote_next) = (start, remote_start);
        let (mut asks, mut answers, mut requested, mut counted) = (0u32, 0u32, 0u32, 0u32);
        for step in steps {
            match step {
                Step::Agent { back, payload, pushed, start } => {
                    let flags = if pushed { PUSH } else { 0 };
                    let segment = segment(next.wrapping_sub(back), remote_next, payload, flags);
                    let start = Start::from_byte(start);
                    let (after, says) = asking.tcp(&segment, start, answered.count());
                    asking = after;
                    asks += u32::from(says == Says::Asks);
                    if says != Says::Nothing && start == Start::Request {
                        requests = Requests::new(requests.count() + 1, asking.answer);
                        requested += 1;
                    }
                    next = asking.sent.end();
                }
                Step::Remote { back, payload, acknowledges, bytes } => {
                    let sequence = remote_next.wrapping_sub(back);
                    let segment = segment(sequence, next.wrapping_sub(acknowledges), payload, 0);
                    if let Some(offset) = statuses.place(&segment, requests, answered.heard()) {
                        prop_assert!(offset < payload);
                        let waiting = statuses.waiting(requests);
                        let (after, line) = statuses.advance(&bytes, (payload - offset).min(16));
                        statuses = after;
                        if let Line::Status(status) = line {
                            prop_assert!(status < 1000);
                            statuses = statuses.met(status, waiting, false);
                            counted += u32::from(status == 401);
                        }
                    }
                    let (after, hears) = answered.tcp(&segment, asking.asked, statuses.has_heard());
                    answered = after;
                    answers += u32::from(hears == Hears::Answer);
                    if hears != Hears::Nothing {
                        statuses = statuses.hearing();
                        remote_next = answered.heard();
                    }
                }
            }
            prop_assert!(answers <= asks, "{} answers to {} questions", answers, asks);
            prop_assert!(counted <= requested, "{} statuses for {} requests", counted, requested);
        }
    }
}
