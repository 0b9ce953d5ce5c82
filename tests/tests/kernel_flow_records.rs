//! What the kernel tells of connections: each once, when it is over, and its first request.

use agentsec_common::agent::Direction::{Inbound, Outbound};
use agentsec_common::endpoint::EndpointKind;
use agentsec_common::flow::{
    Asked, FlowRecord, Language, OPENING_BYTES, OPENINGS_PER_SECOND, OpeningRecord, Sent, Statuses,
};
use agentsec_common::profile::{FOLLOW_FLOWS, PortRange, Profile, TELL_FLOWS};
use agentsec_tests::kernel_rig::frames::{Flow, address, stranger};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::talk::{Segment, Talk};
use agentsec_tests::kernel_rig::{Agent, Arena, Door, Sizes, Tally, coarse_ns, second};
use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

fn telling() -> Profile {
    Profile { flags: calm().flags | FOLLOW_FLOWS | TELL_FLOWS, ..calm() }
}

fn arena(profile: Profile) -> Result<Arena> {
    let mut arena = Arena::new()?;
    arena.install(0, &profile)?;
    Ok(arena)
}

/// A whole short connection.
fn converse(arena: &Arena, flow: Flow) -> Result<()> {
    let mut talk = Talk::opened(arena, flow)?;
    talk.say(arena, GET)?;
    talk.hear(arena, OK)?;
    talk.close(arena)
}

/// A connection that somebody else opens, who says `payload` first; the agent closes last.
fn accept(arena: &Arena, flow: Flow, payload: &[u8]) -> Result<()> {
    let talk = Talk::new(flow);
    let (theirs, ours, length) = (7000u32, 100u32, payload.len() as u32);
    let put = |direction, sequence, acknowledgment, flags, payload| {
        talk.send(arena, Segment { direction, sequence, acknowledgment, flags, payload }).map(drop)
    };
    put(Inbound, theirs, 0, SYN, b"")?;
    put(Outbound, ours, theirs + 1, SYN | ACK, b"")?;
    put(Inbound, theirs + 1, ours + 1, PSH | ACK, payload)?;
    put(Outbound, ours + 1, theirs + 1 + length, PSH | ACK, OK)?;
    put(Inbound, theirs + 1 + length, ours + 1 + OK.len() as u32, FIN | ACK, b"")?;
    put(Outbound, ours + 1 + OK.len() as u32, theirs + 2 + length, FIN | ACK, b"")
}

fn read(record: &OpeningRecord) -> &[u8] {
    &record.bytes[..record.length as usize]
}

fn is_of(record: &FlowRecord, agent: &Agent, flow: Flow) -> bool {
    let key = record.key;
    (key.slot(), key.local_port, key.remote_port) == (agent.slot, flow.local_port, flow.remote_port)
        && key.remote == address(flow.remote)
}

#[test]
fn a_connection_that_ends_is_told_once_with_every_byte_at_every_door() -> Result<()> {
    for door in Door::ALL {
        for remote in [stranger(1), "2001:db8::7".parse()?] {
            let mut arena = Arena::at(door)?;
            arena.install(0, &telling())?;
            let agent = arena.agent(0)?;
            let before = coarse_ns();
            let flow = Flow::to(remote, 80);
            converse(&arena, flow)?;
            let told = arena.maps.told()?;
            let [record] = told.ended.as_slice() else { panic!("{} at {door:?}", told.ended.len()) };
            assert!(is_of(record, &agent, flow), "{record:?}");
            assert_eq!(record.kind, EndpointKind::Opened as u64);
            assert!((before..=coarse_ns()).contains(&record.first_seen_ns));
            assert!((record.first_seen_ns..=coarse_ns()).contains(&record.last_seen_ns));
            assert_eq!(Sent(record.sent).spoken(), Language::Http1);
            assert_eq!((Asked(record.asked).count(), Statuses(record.statuses).latest()), (1, 200));
            assert_eq!(record.responses, 1);
            // The acknowledgement after the end is nobody's, but for its endpoint.
            let passed = |direction| arena.tally(&agent, direction).map(|tally: Tally| tally.passed);
            let (outbound, inbound) = (passed(Outbound)?, passed(Inbound)?);
            assert_eq!((record.packets[0] + 1, record.packets[1]), (outbound.1, inbound.1));
            assert_eq!(record.bytes[1], inbound.0);
            let header_bytes = outbound.0 - record.bytes[0];
            assert_eq!(outbound.0 - 5 * header_bytes, GET.len() as u64, "but for five headers");
            let [opening] = told.opened.as_slice() else { panic!("{}", told.opened.len()) };
            assert_eq!((read(opening), opening.total as usize), (GET, GET.len()));
            assert_eq!((opening.key, opening.first_seen_ns), (record.key, record.first_seen_ns));
            assert_eq!(arena.maps.told()?, Default::default(), "once");
        }
    }
    Ok(())
}

#[test]
fn resets_and_ports_that_are_used_again_end_a_connection_too() -> Result<()> {
    let mut arena = arena(telling())?;
    arena.agent(0)?;
    let flow = Flow::to(stranger(1), 80);
    let mut talk = Talk::opened(&arena, flow)?;
    talk.say(&arena, GET)?;
    talk.reset(&arena)?;
    assert_eq!(arena.maps.told()?.ended.len(), 1, "the remote resets");
    let mut refused = Talk::new(flow);
    refused.knock(&arena)?;
    refused.reset(&arena)?;
    let told = arena.maps.told()?.ended;
    assert_eq!((told.len(), told[0].packets), (1, [1, 1]), "refused");
    let talk = Talk::opened(&arena, flow)?;
    talk.send(
        &arena,
        Segment {
            direction: Outbound,
            sequence: talk.agent,
            acknowledgment: talk.remote,
            flags: RST | ACK,
            payload: b"",
        },
    )?;
    assert_eq!(arena.maps.told()?.ended.len(), 1, "the agent resets");
    Talk::opened(&arena, flow)?;
    let mut again = Talk::new(flow);
    again.agent = 5;
    again.knock(&arena)?;
    assert_eq!(arena.maps.told()?.ended.len(), 1, "the ports are used again");
    Ok(())
}

#[test]
fn what_an_agent_accepts_is_told_with_the_first_request_and_what_was_spoken() -> Result<()> {
    let tls = [0x16, 3, 1, 0, 100, 1, 0, 0, 96];
    for (payload, language, openings) in
        [(GET, Language::Http1, 1), (&tls[..], Language::Tls, 0), (b"hello", Language::Other, 0)]
    {
        let mut arena = arena(telling())?;
        let agent = arena.agent(0)?;
        let flow = Flow::from(stranger(3), 50_000, 8000);
        accept(&arena, flow, payload)?;
        let told = arena.maps.told()?;
        assert_eq!(told.ended.len(), 1);
        let record = told.ended[0];
        assert!(is_of(&record, &agent, flow));
        assert_eq!(record.kind, EndpointKind::Accepted as u64);
        assert_eq!(record.packets, [3, 3]);
        assert_eq!(Statuses(record.statuses).spoken(), language);
        assert_eq!(told.opened.iter().map(read).collect::<Vec<_>>(), vec![payload; openings]);
    }
    Ok(())
}

#[test]
fn only_the_first_request_in_plain_text_is_told_as_far_as_it_fits() -> Result<()> {
    let mut arena = arena(telling())?;
    arena.agent(0)?;
    let long = [b"POST /b HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 1300]].concat();
    let exact = [b"PUT /b HTTP/1.1\r\nX: ".as_slice(), &vec![b'y'; OPENING_BYTES - 20]].concat();
    let mut expected = Vec::new();
    for (index, (first, is_told)) in [
        (GET, true),
        (&long, true),
        (&exact, true),
        (b"\x16\x03\x01\x00\x01\x01", false),
        (b"EHLO a\r\n", false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut talk =
            Talk::opened(&arena, Flow { local_port: 41_000 + index as u16, ..Flow::to(stranger(1), 80) })?;
        talk.say(&arena, first)?;
        talk.hear(&arena, OK)?;
        talk.say(&arena, GET)?;
        if is_told {
            expected.push((first[..first.len().min(OPENING_BYTES)].to_vec(), first.len() as u32));
        }
    }
    let told = arena.maps.told()?;
    let found: Vec<_> = told.opened.iter().map(|record| (read(record).to_vec(), record.total)).collect();
    assert_eq!(found, expected);
    assert_eq!(told.ended.len(), 0, "all of them live");
    Ok(())
}

#[test]
fn what_is_not_to_be_read_or_not_to_be_told_is_not() -> Result<()> {
    let unread = Profile { read_ports: [PortRange::NONE; 8], ..telling() };
    let untold = Profile { flags: calm().flags | FOLLOW_FLOWS, ..calm() };
    for (profile, ended) in [(unread, 2), (untold, 0), (Profile { flags: calm().flags, ..calm() }, 0)] {
        let mut arena = arena(profile)?;
        arena.agent(0)?;
        converse(&arena, Flow::to(stranger(1), 80))?;
        accept(&arena, Flow::from(stranger(3), 50_000, 8000), GET)?;
        let told = arena.maps.told()?;
        assert_eq!((told.ended.len(), told.opened.len()), (ended, 0));
        assert_eq!(arena.maps.flows.keys().count(), 0);
    }
    Ok(())
}

#[test]
fn a_conversation_by_udp_counts_its_first_datagram() -> Result<()> {
    let mut arena = arena(telling())?;
    arena.agent(0)?;
    let flow = Flow::to(stranger(1), 9999);
    for _ in 0..2 {
        arena.send(flow.udp_of(Outbound, 100))?;
        arena.receive(flow.udp_of(Inbound, 300))?;
    }
    let (_, entry) = arena.maps.flows.iter().next().expect("an entry")?;
    assert_eq!((entry.bytes, entry.packets), ([200, 600], [2, 2]));
    let endpoint = arena.maps.endpoints.iter().next().expect("an endpoint")?.1;
    let untold: Vec<u64> = (0..2).map(|index| entry.bytes[index] - entry.told_bytes[index]).collect();
    let all: Vec<u64> = (0..2).map(|index| endpoint.bytes[index] + untold[index]).collect();
    assert_eq!(all, [200, 600], "and its endpoint counts it once");
    Ok(())
}

#[test]
fn a_full_ring_loses_records_counts_every_one_and_the_list_is_emptied_all_the_same() -> Result<()> {
    let mut arena = Arena::sized(Sizes { ring_bytes: 4096, ..Sizes::default() })?;
    arena.install(0, &Profile { read_ports: [PortRange::NONE; 8], ..telling() })?;
    let agent = arena.agent(0)?;
    for port in 0..100 {
        converse(&arena, Flow { local_port: 42_000 + port, ..Flow::to(stranger(1), 80) })?;
    }
    let ledger = arena.maps.ledger(agent.slot)?;
    let told = arena.maps.told()?.ended.len() as u64;
    // Each record has eight bytes before it.
    assert_eq!(told, 4096 / (size_of::<FlowRecord>() as u64 + 8));
    assert_eq!((told + ledger.flow_records_lost, ledger.flows_ended), (100, 100));
    assert_eq!(arena.maps.flows.keys().count(), 0);
    converse(&arena, Flow::to(stranger(1), 80))?;
    assert_eq!(arena.maps.told()?.ended.len(), 1, "it takes more once it is read");
    Ok(())
}

#[test]
fn first_requests_beyond_the_budget_are_counted() -> Result<()> {
    const SENT: u32 = OPENINGS_PER_SECOND + 200;
    let mut arena = arena(telling())?;
    let agent = arena.agent(0)?;
    let before = second();
    for port in 0..SENT as u16 {
        let flow = Flow { local_port: 20_000 + port, ..Flow::to(stranger(1), 80) };
        Talk::opened(&arena, flow)?.say(&arena, GET)?;
    }
    let seconds = (second() - before + 1) as usize;
    let told = arena.maps.told()?.opened.len();
    let lost = arena.maps.ledger(agent.slot)?.openings_lost as usize;
    assert_eq!(told + lost, SENT as usize);
    let budget = OPENINGS_PER_SECOND as usize;
    assert!((budget..=seconds * budget).contains(&told), "{told} in {seconds} seconds");
    Ok(())
}

#[test]
fn nobody_is_woken_before_the_ring_is_half_full() -> Result<()> {
    let mut arena = Arena::sized(Sizes { ring_bytes: 16_384, ..Sizes::default() })?;
    arena.install(0, &Profile { read_ports: [PortRange::NONE; 8], ..telling() })?;
    arena.agent(0)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let interest = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
    epoll.add(arena.maps.flow_records_fd(), interest)?;
    let woken = |epoll: &Epoll, patience: u16| -> Result<usize> {
        Ok(epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::from(patience))?)
    };
    let half = 16_384 / 2 / (size_of::<FlowRecord>() + 8);
    for port in 0..half as u16 {
        converse(&arena, Flow { local_port: 42_000 + port, ..Flow::to(stranger(1), 80) })?;
    }
    assert_eq!(woken(&epoll, 0)?, 0);
    converse(&arena, Flow::to(stranger(1), 80))?;
    converse(&arena, Flow::to(stranger(1), 80))?;
    assert_eq!(woken(&epoll, 5000)?, 1);
    assert_eq!(arena.maps.told()?.ended.len(), half + 2);
    Ok(())
}
