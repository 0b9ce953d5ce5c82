//! The same way for every packet, whichever door it comes in by: interface, shared link, cgroup.

use agentsec::kernel::OBJECT;
use agentsec_common::agent::Direction::{self, Inbound, Outbound};
use agentsec_common::agent::{Identity, LINK_BITS, LinkAddress, LinkIpv4};
use agentsec_common::maps::TELLS_NAMESPACE;
use agentsec_common::packet::Class;
use agentsec_common::policy::{Mode, State};
use agentsec_tests::kernel_rig::frames::{AGENT4, Flow, address, flags};
use agentsec_tests::kernel_rig::profiles::calm;
use agentsec_tests::kernel_rig::table::{Row, rows, typical};
use agentsec_tests::kernel_rig::{Arena, Door, Fate, LOOPBACK, Tally};
use anyhow::{Context, Result, ensure};
use aya::EbpfLoader;
use aya::maps::lpm_trie::Key;
use aya::programs::Program;

const STATES: [State; 3] = [State::Closed, State::HalfOpen, State::Open];

fn arena(door: Door) -> Result<Arena> {
    let mut arena = Arena::at(door)?;
    arena.install(0, &calm())?;
    arena.expect(0, &typical())?;
    Ok(arena)
}

/// Runs a row in a state; `seen` bytes are counted, or none when the door does not know whose the frame is.
fn check(arena: &mut Arena, row: &Row, state: State, seen: Option<u64>) -> Result<()> {
    let agent = arena.agent_in(state, Mode::Enforce, 0)?;
    let fate = match row.direction {
        Outbound => arena.send(row.frame.as_slice())?,
        Inbound => arena.receive(row.frame.as_slice())?,
    };
    let tally = arena.tally(&agent, row.direction)?;
    let (expected, counted) = match seen {
        None => (Fate::Passed, Tally::default()),
        Some(bytes) if row.is_dropped(state) => {
            (Fate::Dropped, Tally { dropped: (bytes, 1), ..Tally::default() })
        }
        Some(bytes) => (Fate::Passed, Tally { passed: (bytes, 1), ..Tally::default() }),
    };
    ensure!(fate == expected, "{fate:?}, not {expected:?}");
    ensure!(tally == counted, "counted as {tally:?}, not {counted:?}");
    Ok(())
}

/// Whether a frame carries the agent's address where a link's programs look for it, read without their parser.
fn names_agent(row: &Row) -> bool {
    let is_tag = |at: usize| matches!(row.frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
    let at = 12 + 4 * (0..2).take_while(|tag| is_tag(12 + 4 * tag)).count();
    let Some(ethertype) = row.frame.get(at..at + 2) else { return false };
    let (offset, length) = match (ethertype, row.direction) {
        ([0x08, 0x00], Outbound) => (12, 4),
        ([0x08, 0x00], Inbound) => (16, 4),
        ([0x86, 0xdd], Outbound) => (8, 16),
        ([0x86, 0xdd], Inbound) => (24, 16),
        _ => return false,
    };
    let Some(found) = row.frame.get(at + 2 + offset..at + 2 + offset + length) else { return false };
    found == AGENT4.octets() || found == agentsec_tests::kernel_rig::frames::AGENT6.octets()
}

#[test]
fn on_a_shared_link_every_frame_with_the_agents_address_meets_the_verdict_of_the_table() -> Result<()> {
    let mut arena = arena(Door::Link)?;
    let mut named = 0;
    for row in rows() {
        for state in STATES {
            let seen = names_agent(&row).then_some(row.frame.len() as u64);
            named += usize::from(seen.is_some());
            check(&mut arena, &row, state, seen).with_context(|| {
                format!("{} {:?}, {state:?}: {:02x?}", row.what, row.direction, row.frame)
            })?;
        }
    }
    ensure!(named > 60, "only {named} frames were the agent's");
    Ok(())
}

#[test]
fn in_a_cgroup_every_packet_meets_the_verdict_of_the_table_and_counts_without_its_link_header() -> Result<()>
{
    const LINK_HEADER: u64 = 14;
    let mut arena = arena(Door::Cgroup)?;
    let is_packet = |row: &Row| {
        matches!(row.class, Class::Ipv4 | Class::Ipv6 | Class::Fragment)
            && [[0x08, 0x00], [0x86, 0xdd]].contains(&[row.frame[12], row.frame[13]])
    };
    let mut packets = 0;
    for row in rows().into_iter().filter(is_packet) {
        for state in STATES {
            packets += 1;
            check(&mut arena, &row, state, Some(row.frame.len() as u64 - LINK_HEADER)).with_context(
                || format!("{} {:?}, {state:?}: {:02x?}", row.what, row.direction, row.frame),
            )?;
        }
    }
    ensure!(packets > 60, "only {packets} packets");
    Ok(())
}

fn syn(direction: Direction) -> Vec<u8> {
    Flow::to([10, 9, 0, 10], 443).tcp(direction, flags::SYN, &[])
}

#[test]
fn the_outermost_cgroup_of_an_agent_owns_what_is_below_it() -> Result<()> {
    let mut arena = arena(Door::Cgroup)?;
    let inner = arena.agent(0)?;
    let outer = arena.agent(0)?;
    let ids = arena.cgroups().to_vec();
    let word = |agent: &agentsec_tests::kernel_rig::Agent, level| Identity::of(agent.slot).to_word_at(level);
    arena.maps.cgroups.insert(ids[2], word(&inner, 3), 0)?;
    arena.ask_again()?;
    arena.send(syn(Outbound))?;
    assert_eq!(arena.tally(&inner, Outbound)?.passed.1, 1, "alone, it is the inner one's");
    arena.maps.cgroups.insert(ids[0], word(&outer, 1), 0)?;
    arena.look_for(0b1010, false)?;
    arena.send(syn(Outbound))?;
    assert_eq!(arena.tally(&inner, Outbound)?.passed.1, 1, "an agent cannot become another below itself");
    assert_eq!(arena.tally(&outer, Outbound)?.passed.1, 1);
    arena.maps.cgroups.remove(&ids[0])?;
    arena.maps.cgroups.remove(&ids[2])?;
    arena.ask_again()?;
    assert_eq!(arena.send(syn(Outbound))?, Fate::Passed, "what is no agent's is none of our business");
    assert_eq!(arena.maps.strays()?.unidentified_packets, 0);
    Ok(())
}

#[test]
fn a_level_without_agents_is_not_looked_at() -> Result<()> {
    let mut arena = arena(Door::Cgroup)?;
    let agent = arena.agent_in(State::Open, Mode::Enforce, 0)?;
    assert_eq!(arena.send(syn(Outbound))?, Fate::Dropped);
    arena.look_for(1 << 1 | 1 << 16, false)?;
    assert_eq!(arena.send(syn(Outbound))?, Fate::Passed);
    assert_eq!(arena.tally(&agent, Outbound)?.dropped.1, 1);
    Ok(())
}

#[test]
fn an_interface_of_an_agents_own_has_precedence_over_addresses_behind_it() -> Result<()> {
    let mut arena = arena(Door::Link)?;
    let agent = arena.agent_in(State::Open, Mode::Enforce, 0)?;
    assert_eq!(arena.send(syn(Outbound))?, Fate::Dropped);
    arena.identify(LOOPBACK, Identity::of(77))?;
    assert_eq!(arena.send(syn(Outbound))?, Fate::Passed, "the interface's own programs judge it");
    assert_eq!(arena.tally(&agent, Outbound)?.dropped.1, 1);
    Ok(())
}

#[test]
fn the_longest_prefix_owns_an_address_and_the_address_itself_comes_first() -> Result<()> {
    let mut arena = arena(Door::Link)?;
    let (wide, narrow, exact) = (arena.agent(0)?, arena.agent(0)?, arena.agent(0)?);
    let own = LinkIpv4 { ifindex: LOOPBACK, address: u32::from_ne_bytes(AGENT4.octets()) };
    arena.maps.ipv4.remove(&own)?;
    let prefix = |ifindex: u32, length: u32| {
        let data = LinkAddress { ifindex: ifindex.to_be(), address: address(AGENT4.into()) };
        Key::new(LINK_BITS + 96 + length, data)
    };
    let count = |arena: &Arena| -> Result<[u64; 3]> {
        Ok([
            arena.tally(&wide, Outbound)?.passed.1,
            arena.tally(&narrow, Outbound)?.passed.1,
            arena.tally(&exact, Outbound)?.passed.1,
        ])
    };
    let word = |slot| Identity::of(slot).to_word() as u32;
    arena.maps.prefixes.insert(&prefix(LOOPBACK, 8), word(wide.slot), 0)?;
    arena.maps.prefixes.insert(&prefix(LOOPBACK + 1, 32), word(exact.slot), 0)?;
    arena.send(syn(Outbound))?;
    assert_eq!(count(&arena)?, [0, 0, 0], "nobody said that there are prefixes");
    arena.look_for(0, true)?;
    arena.send(syn(Outbound))?;
    assert_eq!(count(&arena)?, [1, 0, 0], "another link's prefixes are another link's");
    arena.maps.prefixes.insert(&prefix(LOOPBACK, 24), word(narrow.slot), 0)?;
    arena.send(syn(Outbound))?;
    assert_eq!(count(&arena)?, [1, 1, 0]);
    arena.maps.ipv4.insert(own, Identity::of(exact.slot).to_word(), 0)?;
    arena.send(syn(Outbound))?;
    assert_eq!(count(&arena)?, [1, 1, 1]);
    Ok(())
}

#[test]
fn before_the_stack_only_an_open_agents_frames_are_dropped_and_only_they_count() -> Result<()> {
    let mut arena = arena(Door::Link)?;
    let frame = syn(Outbound);
    for (state, mode, fate) in [
        (State::Closed, Mode::Enforce, Fate::Passed),
        (State::HalfOpen, Mode::Enforce, Fate::Passed),
        (State::Open, Mode::Shadow, Fate::Passed),
        (State::Open, Mode::Exempt, Fate::Passed),
        (State::Open, Mode::Enforce, Fate::Dropped),
    ] {
        let agent = arena.agent_in(state, mode, 0)?;
        // Twice, since the first one in a second is read for the notice.
        for _ in 0..2 {
            assert_eq!(arena.run_before_stack(&frame)?, fate, "{state:?} {mode:?}");
        }
        let dropped = if fate == Fate::Dropped { (2 * frame.len() as u64, 2) } else { (0, 0) };
        assert_eq!(
            arena.tally(&agent, Outbound)?,
            Tally { dropped, ..Tally::default() },
            "{state:?} {mode:?}"
        );
        assert_eq!(arena.run_before_stack(&syn(Inbound))?, Fate::Passed, "somebody else has sent it");
    }
    Ok(())
}

#[test]
fn every_program_passes_this_kernels_verifier_with_and_without_what_it_may_not_have() -> Result<()> {
    for told in [0u8, 1] {
        let mut loader = EbpfLoader::new();
        loader.override_global(TELLS_NAMESPACE, &told, true);
        let mut object = loader.load(OBJECT)?;
        for (name, program) in object.programs_mut() {
            let loaded = match program {
                Program::SchedClassifier(program) => program.load(),
                Program::Xdp(program) => program.load(),
                // Refused on kernels that do not tell, which is why it is a constant.
                Program::CgroupSkb(_) if told == 1 => continue,
                Program::CgroupSkb(program) => program.load(),
                // A kernel that is locked down refuses it; tried where it is attached.
                Program::Lsm(_) => continue,
                _ => panic!("{name} is of no kind that is expected"),
            };
            loaded.with_context(|| name.to_owned())?;
        }
    }
    Ok(())
}
