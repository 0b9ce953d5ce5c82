//! What the kernel programs keep of an agent's latest packets.

use std::collections::BTreeSet;
use std::thread;

use agentsec::recorder::{About, Recording, pcapng_of};
use agentsec_common::agent::Direction::{self, Inbound, Outbound};
use agentsec_common::packet::protocol;
use agentsec_common::policy::{Mode, State};
use agentsec_common::profile::Profile;
use agentsec_common::recorder::{Entry, Fate, Link, Orders, is_busy, sequence_of, writing};
use agentsec_tests::kernel_rig::frames::{AGENT4, Flow, flags, packet, path, stranger, with};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::table::typical;
use agentsec_tests::kernel_rig::{Agent, Arena, Door, Skb};
use agentsec_tests::traffic::frames::{VLAN, tagged};
use anyhow::Result;

const ETHERNET: usize = 14;

const ALWAYS: Orders = Orders {
    recorder: 3,
    on: true,
    payload: false,
    snap_bytes: 128,
    depth_log2: 4,
    one_in: 1,
    generation: 9,
};

fn arena() -> Result<Arena> {
    let mut arena = Arena::new()?;
    arena.install(0, &calm())?;
    Ok(arena)
}

fn recorded_agent(arena: &mut Arena, orders: Orders) -> Result<Agent> {
    let agent = arena.agent(0)?;
    arena.record(agent.slot, orders)?;
    Ok(agent)
}

fn bytes(entry: &Entry) -> &[u8] {
    &entry.data[..usize::from(entry.captured)]
}

/// A UDP datagram whose ports tell which one it is.
fn numbered(direction: Direction, number: u16) -> Vec<u8> {
    Flow { local_port: 10_000 + number, ..Flow::to(stranger(1), 9) }.udp(direction, b"secret payload")
}

fn numbers(entries: &[Entry]) -> Vec<u16> {
    let port = |entry: &Entry| u16::from_be_bytes([entry.data[34], entry.data[35]]) - 10_000;
    entries.iter().map(port).collect()
}

#[test]
fn the_latest_packets_are_kept_in_their_order_and_older_ones_make_room() -> Result<()> {
    let mut arena = arena()?;
    let agent = recorded_agent(&mut arena, ALWAYS)?;
    for number in 0..40 {
        arena.send(numbered(Outbound, number))?;
        let kept = numbers(&arena.recorded(agent.slot, ALWAYS)?);
        let expected: Vec<u16> = (0..=number).rev().take(16).rev().collect();
        assert_eq!(kept, expected, "after {number}");
    }
    let entries = arena.recorded(agent.slot, ALWAYS)?;
    assert_eq!(
        entries.iter().map(|entry| sequence_of(entry.word)).collect::<Vec<_>>(),
        (25..=40).collect::<Vec<_>>()
    );
    assert!(entries.iter().all(|entry| !is_busy(entry.word)));
    assert!(entries.is_sorted_by_key(|entry| entry.at_ns), "time runs backwards");
    let ledger = arena.maps.ledger(agent.slot)?;
    assert_eq!((ledger.recorded, ledger.recorder_lost), (40, 0));
    Ok(())
}

#[test]
fn an_entry_says_what_the_packet_was_and_shows_its_headers_only() -> Result<()> {
    let mut arena = arena()?;
    let agent = recorded_agent(&mut arena, ALWAYS)?;
    let frame = Flow::to(stranger(1), 443).tcp(Inbound, flags::ACK, &[0x55; 1000]);
    arena.receive(frame.clone())?;
    let [entry] = arena.recorded(agent.slot, ALWAYS)?[..] else { panic!("one entry") };
    assert_eq!(bytes(&entry), &frame[..54], "Ethernet, IPv4 and TCP");
    assert!(entry.data[54..].iter().all(|&byte| byte == 0), "payload is in the entry");
    assert_eq!((entry.length, entry.wire_bytes, entry.packets), (1054, 1054, 1));
    assert_eq!((entry.slot, entry.epoch, entry.generation), (agent.slot, agent.control.epoch, 9));
    assert_eq!((entry.direction, entry.fate, entry.tripped), (Inbound as u8, Fate::Passed as u8, 0));
    assert_eq!((entry.state, entry.mode), (State::Closed as u8, Mode::Enforce as u8));
    assert_eq!((entry.link, entry.vlan_protocol, entry.one_in), (Link::Ethernet as u8, 0, 1));
    Ok(())
}

#[test]
fn payload_is_recorded_up_to_the_bytes_that_are_wanted_and_only_if_it_is() -> Result<()> {
    let mut arena = arena()?;
    let agent = arena.agent(0)?;
    for (snap_bytes, payload, length, expected) in [
        (128, true, 1000, 128),
        (128, true, 100, 100),
        (64, true, 1000, 64),
        (100, true, 101, 100),
        (64, false, 1000, 54),
        (128, true, 54, 54),
        (128, true, 57, 57),
    ] {
        let orders = Orders { payload, snap_bytes, ..ALWAYS };
        arena.record(agent.slot, orders)?;
        let filler: Vec<u8> = (0..length - 54).map(|index| index as u8).collect();
        let frame = Flow::to(stranger(1), 443).tcp(Outbound, flags::ACK, &filler);
        arena.send(frame.clone())?;
        let entries = arena.recorded(agent.slot, orders)?;
        let entry = entries.last().expect("an entry");
        assert_eq!(bytes(entry), &frame[..expected], "{snap_bytes} {payload} {length}");
    }
    Ok(())
}

#[test]
fn the_packet_that_trips_is_the_last_one_and_nothing_is_recorded_while_open() -> Result<()> {
    for one_in in [1, 16_383] {
        let mut arena = Arena::new()?;
        arena.install(0, &Profile { max_volume: 3_000, ..calm() })?;
        let orders = Orders { one_in, ..ALWAYS };
        let mut agent = recorded_agent(&mut arena, orders)?;
        for number in 0..60 {
            arena.send(numbered(Outbound, number))?;
        }
        let entries = arena.recorded(agent.slot, orders)?;
        let trip = arena.maps.ledger(agent.slot)?.trip;
        let last = entries.last().expect("the packet that tripped");
        assert_eq!((last.tripped, last.fate, last.state), (1, Fate::Dropped as u8, State::Closed as u8));
        assert_eq!(numbers(&entries).last().copied(), Some((3_000 / trip.packet_bytes) as u16));
        assert_eq!(trip.local_port, 10_000 + numbers(&entries).last().unwrap());
        assert!(last.exact == 1 && last.at_ns >= trip.at_ns);
        assert_eq!(entries.iter().filter(|entry| entry.tripped == 1).count(), 1);
        if one_in == 1 {
            assert_eq!(entries.len(), 16, "what came before is there as well");
        }
        // The daemon may write what it likes: nothing is recorded until the circuit closes.
        arena.record(agent.slot, ALWAYS)?;
        arena.send(numbered(Outbound, 99))?;
        arena.receive(numbered(Inbound, 98))?;
        assert_eq!(arena.recorded(agent.slot, orders)?, entries);
        arena.release(&mut agent)?;
        arena.send(numbered(Outbound, 77))?;
        assert_eq!(
            numbers(&arena.recorded(agent.slot, ALWAYS)?).last(),
            Some(&77),
            "after the release it goes on"
        );
    }
    Ok(())
}

#[test]
fn drops_of_probation_and_what_shadow_mode_lets_pass_are_marked() -> Result<()> {
    let mut arena = arena()?;
    arena.expect(0, &typical())?;
    for (state, mode, fate) in [
        (State::HalfOpen, Mode::Enforce, Some(Fate::Dropped)),
        (State::HalfOpen, Mode::Shadow, Some(Fate::WouldDrop)),
        (State::HalfOpen, Mode::Exempt, Some(Fate::Passed)),
        (State::Open, Mode::Enforce, None),
    ] {
        let agent = arena.agent_in(state, mode, 0)?;
        arena.record(agent.slot, ALWAYS)?;
        arena.send(numbered(Outbound, 1))?;
        let entries = arena.recorded(agent.slot, ALWAYS)?;
        let found: Vec<_> = entries.iter().map(|entry| (entry.fate, entry.state, entry.mode)).collect();
        let expected: Vec<_> = fate.map(|fate| (fate as u8, state as u8, mode as u8)).into_iter().collect();
        assert_eq!(found, expected, "{state:?} {mode:?}");
    }
    Ok(())
}

#[test]
fn off_records_nothing_and_one_in_sixteen_about_a_sixteenth() -> Result<()> {
    const PACKETS: u32 = 20_000;
    let mut arena = arena()?;
    let skb = Skb::from(numbered(Outbound, 1));
    for (orders, expected) in [
        (Orders { on: false, ..ALWAYS }, 0..=0),
        (Orders { one_in: 16, ..ALWAYS }, 1_000..=1_500),
        (Orders { one_in: 2, ..ALWAYS }, 9_500..=10_500),
        (ALWAYS, u64::from(PACKETS)..=u64::from(PACKETS)),
    ] {
        let agent = recorded_agent(&mut arena, orders)?;
        arena.maps.change_policy(agent.slot, |policy| policy.recorder_salt = 0x1234_5678_9abc_def1)?;
        arena.run_repeatedly(Outbound, &skb, PACKETS)?;
        let recorded = arena.maps.ledger(agent.slot)?.recorded;
        assert!(expected.contains(&recorded), "{recorded} of {PACKETS} with one in {}", orders.one_in);
    }
    Ok(())
}

#[test]
fn recorders_and_generations_of_agents_do_not_mix() -> Result<()> {
    let mut arena = arena()?;
    let first = recorded_agent(&mut arena, ALWAYS)?;
    arena.send(numbered(Outbound, 1))?;
    let second = recorded_agent(&mut arena, Orders { recorder: 4, ..ALWAYS })?;
    (2..30).try_for_each(|number| arena.send(numbered(Outbound, number)).map(drop))?;
    assert_eq!(numbers(&arena.recorded(first.slot, ALWAYS)?), [1]);
    // The same recorder again, of another agent; the same slot again, in another generation.
    arena.record(second.slot, ALWAYS)?;
    arena.send(numbered(Outbound, 50))?;
    assert_eq!(numbers(&arena.recorded(second.slot, ALWAYS)?), [50]);
    assert_eq!(arena.recorded(second.slot, Orders { generation: 10, ..ALWAYS })?, []);
    // One beyond the array records nothing and harms nothing.
    arena.record(second.slot, Orders { recorder: 1 << 16, depth_log2: 12, ..ALWAYS })?;
    arena.send(numbered(Outbound, 51))?;
    Ok(())
}

#[test]
fn short_jumbo_fragmented_and_odd_frames_are_recorded_as_far_as_their_headers_are_known() -> Result<()> {
    let flow = Flow::to(stranger(1), 443);
    let segment = flow.tcp(Outbound, flags::ACK, &[0x55; 200]);
    let options = {
        let mut rest = vec![0, 0, 0, 1, 0, 0, 0, 0, 0x80, flags::ACK, 0xff, 0xff, 0, 0, 0, 0];
        rest.extend([1; 12]);
        packet(
            Outbound,
            flow.remote,
            protocol::TCP,
            &[&flow.ports(Outbound)[..], &rest, &[0x55; 40]].concat(),
        )
    };
    let rows: [(&str, Vec<u8>, usize); 9] = [
        ("no more than an Ethernet header", path(Outbound).frame(0x9000, &[]), 14),
        ("an unknown ethertype", path(Outbound).frame(0x88b5, &[0x55; 60]), 14),
        ("ARP", path(Outbound).arp_request(AGENT4, AGENT4), 42),
        ("half a TCP header", segment[..44].to_vec(), 34),
        ("TCP with options", options, 66),
        ("a later fragment", with(&segment, ETHERNET + 6, &[0, 0x10]), 34),
        ("behind a tag", tagged(&segment, VLAN, 7), 58),
        ("a jumbo frame", flow.tcp(Outbound, flags::ACK, &[0x55; 3_000]), 54),
        ("a TCP header that says it is longer than it is", with(&segment, ETHERNET + 32, &[0xf0]), 94),
    ];
    let mut arena = arena()?;
    for (what, frame, expected) in rows {
        let agent = recorded_agent(&mut arena, ALWAYS)?;
        arena.send(frame.clone())?;
        let [entry] = arena.recorded(agent.slot, ALWAYS)?[..] else { panic!("one entry: {what}") };
        assert_eq!(bytes(&entry), &frame[..expected], "{what}");
        assert_eq!(entry.length as usize, frame.len(), "{what}");
    }
    Ok(())
}

#[test]
fn a_super_packet_tells_what_it_becomes() -> Result<()> {
    let mut arena = arena()?;
    let agent = recorded_agent(&mut arena, ALWAYS)?;
    let frame = Flow::to(stranger(1), 443).tcp(Outbound, flags::ACK, &[0; 3000]);
    arena.send(Skb::from(frame).segmented(1000, 3))?;
    let [entry] = arena.recorded(agent.slot, ALWAYS)?[..] else { panic!("one entry") };
    assert_eq!((entry.length, entry.packets, entry.wire_bytes), (3054, 3, 3000 + 3 * 54));
    Ok(())
}

#[test]
fn every_door_records_and_says_what_it_sees() -> Result<()> {
    for door in Door::ALL {
        let mut arena = Arena::at(door)?;
        arena.install(0, &calm())?;
        let agent = recorded_agent(&mut arena, ALWAYS)?;
        let (out, inward) = (numbered(Outbound, 1), numbered(Inbound, 2));
        arena.send(out.clone())?;
        arena.receive(inward.clone())?;
        let entries = arena.recorded(agent.slot, ALWAYS)?;
        let [first, second] = entries[..] else { panic!("{door:?}: {} entries", entries.len()) };
        let (link, skipped) = match door {
            Door::Cgroup => (Link::Ip, ETHERNET),
            Door::Interface | Door::Link => (Link::Ethernet, 0),
        };
        assert_eq!((first.link, second.link), (link as u8, link as u8), "{door:?}");
        assert_eq!((first.direction, second.direction), (Outbound as u8, Inbound as u8), "{door:?}");
        assert_eq!(bytes(&first), &out[skipped..ETHERNET + 28], "{door:?}");
        assert_eq!(bytes(&second), &inward[skipped..ETHERNET + 28], "{door:?}");
        // Before the stack there is nothing to record: what is not OPEN passes on to the link's other program.
        if door == Door::Link {
            arena.run_before_stack(&out)?;
            assert_eq!(arena.recorded(agent.slot, ALWAYS)?.len(), 2);
        }
        let recording = Recording::read("a", &entries, agentsec::clock::now());
        assert_eq!((recording.packets.len(), recording.torn), (2, 0));
        assert_eq!(recording.packets[0].headers().source_port, 10_001);
        assert!(pcapng_of(&recording, &About::default()).is_ok());
    }
    Ok(())
}

#[test]
fn a_place_that_another_cpu_still_writes_to_is_left_alone_and_the_packet_is_counted() -> Result<()> {
    let mut arena = arena()?;
    let agent = recorded_agent(&mut arena, ALWAYS)?;
    arena.send(numbered(Outbound, 1))?;
    let index = ALWAYS.index(1);
    let unfinished = Entry { word: writing(1), ..arena.maps.records.get(&index, 0)? };
    arena.maps.records.set(index, unfinished, 0)?;
    // Once round, and on.
    (2..=18).try_for_each(|number| arena.send(numbered(Outbound, number)).map(drop))?;
    assert_eq!(arena.maps.records.get(&index, 0)?, unfinished);
    let ledger = arena.maps.ledger(agent.slot)?;
    assert_eq!((ledger.recorded, ledger.recorder_lost), (18, 1));
    let mut kept = arena.recorded(agent.slot, ALWAYS)?;
    kept.retain(|entry| !is_busy(entry.word));
    assert_eq!(numbers(&kept), (3..=16).chain([18]).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn cpus_that_race_for_places_leave_each_entry_one_packets() -> Result<()> {
    const EACH: u32 = 30_000;
    let mut arena = arena()?;
    let orders = Orders { payload: true, ..ALWAYS };
    let agent = recorded_agent(&mut arena, orders)?;
    // Each thread's frames are of one byte throughout, and of another length.
    let frame = |n: u8| Flow::to(stranger(n.into()), 9).udp(Outbound, &vec![n; 60 + usize::from(n)]);
    thread::scope(|scope| {
        let arena = &arena;
        let threads: Vec<_> = (1..=4)
            .map(|n| scope.spawn(move || arena.run_repeatedly(Outbound, &Skb::from(frame(n)), EACH)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic").map(drop))
    })?;
    let entries = arena.recorded(agent.slot, orders)?;
    let ledger = arena.maps.ledger(agent.slot)?;
    assert_eq!(ledger.recorded, 4 * u64::from(EACH));
    let sequences: BTreeSet<u64> = entries.iter().map(|entry| sequence_of(entry.word)).collect();
    assert_eq!(sequences.len(), entries.len());
    for entry in &entries {
        let n = entry.data[42];
        let expected = frame(n);
        assert_eq!(bytes(entry), &expected[..expected.len().min(128)], "of two packets");
        assert_eq!(entry.length as usize, expected.len(), "of two packets");
        assert!(!is_busy(entry.word));
    }
    Ok(())
}
