//! The scripted DNS responder and the measuring client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::servers::delays::jittered;
use agentsec_tests::servers::dns::{ADDRESS4, ADDRESS6, Answer, DnsProbe, DnsServer, Reply};
use anyhow::{Context, Result};
use simple_dns::RCODE;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const SHORT: Duration = Duration::from_millis(200);

fn start(lab: &Lab, script: Vec<Reply>) -> Result<(DnsServer, SocketAddr)> {
    let server = DnsServer::start(&lab.world().namespace, (ANY4, 53), LONG, script)?;
    let address = SocketAddr::new(lab.world().v4.into(), server.address().port());
    Ok((server, address))
}

#[test]
fn both_addresses_are_asked_for_at_once_on_one_socket() -> Result<()> {
    let lab = Lab::routed(1)?;
    // The second answer overtakes the first.
    let script = Reply::delayed(&[Duration::from_millis(60), Duration::ZERO]);
    let (server, to) = start(&lab, script)?;
    let mut probe = DnsProbe::open(&lab.agent(0).namespace, to, LONG)?;
    let lookups = probe.ask_both("api.example.test")?;
    let addresses: Vec<_> = lookups.iter().flat_map(|lookup| lookup.addresses.clone()).collect();
    assert_eq!(addresses, [IpAddr::from(ADDRESS4), ADDRESS6.into()]);
    let [first, second] = [&lookups[0], &lookups[1]].map(|lookup| lookup.answered);
    assert!(first.context("answered")? >= Duration::from_millis(60));
    assert!(second < first, "{second:?} against {first:?}");
    assert_eq!((server.questions(), probe.strangers()), (2, 0));
    Ok(())
}

#[test]
fn every_question_waits_as_long_as_its_delay_says() -> Result<()> {
    let lab = Lab::routed(1)?;
    let delays = jittered(6, 20, Duration::from_millis(1), Duration::from_millis(10));
    let (_server, to) = start(&lab, Reply::delayed(&delays))?;
    let mut probe = DnsProbe::open(&lab.agent(0).namespace, to, LONG)?;
    for delay in delays {
        let answered = probe.ask("slow.example.test")?.answered.context("answered")?;
        assert!(answered >= delay, "{answered:?} for a delay of {delay:?}");
    }
    Ok(())
}

#[test]
fn a_name_can_be_unknown_its_answer_lost_doubled_or_under_another_id() -> Result<()> {
    let lab = Lab::routed(1)?;
    let script = vec![
        Reply::new(Answer::Error(RCODE::NameError)),
        Reply::new(Answer::Lost),
        Reply { times: 3, ..Reply::new(Answer::Address) },
        Reply::new(Answer::Misnumbered),
    ];
    let (server, to) = start(&lab, script)?;
    let mut probe = DnsProbe::open(&lab.agent(0).namespace, to, SHORT)?;
    let unknown = probe.ask("nobody.example.test")?;
    assert_eq!((unknown.code, unknown.addresses.len()), (Some(RCODE::NameError), 0));
    let lost = probe.ask("lost.example.test")?;
    assert_eq!((lost.answered, lost.code), (None, None));
    assert_eq!(probe.ask("thrice.example.test")?.addresses, [IpAddr::from(ADDRESS4)]);
    probe.listen_on()?;
    assert_eq!(probe.strangers(), 2, "the second and third answer come when nobody waits for them");
    assert_eq!(probe.ask("other.example.test")?.answered, None);
    assert_eq!((probe.strangers(), server.questions()), (3, 4));
    Ok(())
}
