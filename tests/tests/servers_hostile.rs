//! The server made of packets: what is on the wire is its script, and what a client's kernel makes of it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::servers::dns::{Answer, DnsProbe, DnsServer, Reply};
use agentsec_tests::servers::hostile::{Forged, HostileServer, Injector, Script};
use agentsec_tests::servers::http_probe::HttpProbe;
use agentsec_tests::servers::http_server::{self, ScriptedHttp};
use agentsec_tests::servers::segments::{self, RST};
use agentsec_tests::traffic::capture::{Capture, Keep};
use anyhow::{Context, Result};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const WHOLE: Keep = Keep { frames: 10_000, bytes: 2000 };
const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
const FORGED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

#[test]
fn segments_out_of_order_doubled_and_overlapping_are_one_answer_to_the_client() -> Result<()> {
    let in_order = || Forged::stream(GOOD, 7);
    let mut reversed = in_order();
    reversed.reverse();
    let doubled = in_order().into_iter().flat_map(|one| [one.clone(), one]).collect();
    let overlapping = vec![
        Forged::data(0, &GOOD[..20]),
        Forged::data(10, &GOOD[10..30]),
        // A lie about what the client has already.
        Forged::data(0, &FORGED[..30]),
        Forged::data(-10, *b"0123456789"),
        Forged::data(25, &GOOD[25..]),
    ];
    // The one before its beginning and the one beyond its window say 401 too: no client ever reads them.
    let outside = [vec![Forged::data(-1000, FORGED), Forged::data(1 << 24, FORGED)], in_order()].concat();
    let cases = [
        ("in order", in_order()),
        ("reversed", reversed),
        ("doubled", doubled),
        ("overlapping", overlapping),
        ("outside", outside),
    ];
    let lab = Lab::routed(1)?;
    for (what, answer) in cases {
        let script = Script { greeting: Vec::new(), answers: vec![answer.clone(), in_order()] };
        let server = HostileServer::start(&lab, LONG, script)?;
        let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
        let mut probe = HttpProbe::connect(&lab.agent(0).namespace, server.address(), LONG)?;
        for time in ["first", "second"] {
            let measured = probe.get("/").with_context(|| format!("{what}, the {time} time"))?;
            assert_eq!((measured.status, measured.body.as_slice()), (200, &b"0123456789"[..]), "{what}");
        }
        assert_eq!(server.requests(), 2, "{what}");
        let payloads = segments::payloads_from(&capture.stop()?, server.address().port());
        let scripted: Vec<_> = answer.into_iter().chain(in_order()).map(|one| one.payload).collect();
        assert_eq!(payloads, scripted, "{what}");
    }
    Ok(())
}

#[test]
fn refusals_that_nobody_asked_for_arrive_before_any_request() -> Result<()> {
    let lab = Lab::routed(1)?;
    let flood = (0..40).map(|index| Forged::data(index * FORGED.len() as i32, FORGED)).collect();
    let script = Script { greeting: flood, answers: vec![Forged::stream(GOOD, 1000)] };
    let server = HostileServer::start(&lab, LONG, script)?;
    let mut probe = HttpProbe::connect(&lab.agent(0).namespace, server.address(), LONG)?;
    assert_eq!(probe.take_unsolicited(40 * FORGED.len())?, FORGED.repeat(40));
    assert_eq!(probe.get("/")?.status, 200);
    Ok(())
}

#[test]
fn only_a_reset_with_the_right_number_ends_a_connection() -> Result<()> {
    let lab = Lab::routed(1)?;
    let wrong = [Forged::reset(1 << 20), Forged::reset(-5), Forged::reset(1000)];
    let harmless = [&wrong[..], &Forged::stream(GOOD, 1000)].concat();
    let script = Script { greeting: Vec::new(), answers: vec![harmless, vec![Forged::reset(0)]] };
    let server = HostileServer::start(&lab, LONG, script)?;
    let mut probe = HttpProbe::connect(&lab.agent(0).namespace, server.address(), LONG)?;
    assert_eq!(probe.get("/")?.status, 200);
    assert_eq!(probe.get("/").expect_err("it is reset").kind(), ErrorKind::ConnectionReset);
    Ok(())
}

#[test]
fn somebody_in_between_cannot_reset_a_real_server_blindly() -> Result<()> {
    let lab = Lab::routed(1)?;
    let script = http_server::Script::statuses(&[200]);
    let server = ScriptedHttp::start(&lab.world().namespace, (ANY4, 0), LONG, script)?;
    let to = SocketAddr::new(lab.world().v4.into(), server.address().port());
    let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
    let mut probe = HttpProbe::connect(&lab.agent(0).namespace, to, LONG)?;
    assert_eq!(probe.get("/")?.status, 200);
    let seen = segments::all(&capture.stop()?);
    let last = seen.iter().rfind(|segment| segment.from.1 == to.port() && !segment.payload.is_empty());
    let last = last.context("the server has answered")?;
    let reset = |number: u32| segments::Segment {
        sequence: last.end().wrapping_add(number),
        flags: RST,
        payload: Vec::new(),
        ..last.clone()
    };
    let injector = Injector::open(lab.world())?;
    let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
    for number in [1 << 20, 1 << 28, 77, u32::MAX - 1000] {
        injector.send(&reset(number))?;
    }
    assert_eq!(probe.get("/")?.status, 200);
    let seen = segments::all(&capture.stop()?);
    assert_eq!(seen.iter().filter(|segment| segment.flags == RST).count(), 4, "they arrived");
    injector.send(&reset(last.payload.len() as u32))?;
    assert_eq!(probe.take_unsolicited(1).expect_err("it is reset").kind(), ErrorKind::ConnectionReset);
    Ok(())
}

#[test]
fn a_flood_of_dns_answers_arrives_in_the_name_of_the_server() -> Result<()> {
    // Fewer than fill the socket's buffer: then the real answer would be lost, as it is for any client.
    const COUNT: u64 = 150;
    let lab = Lab::routed(1)?;
    let server =
        DnsServer::start(&lab.world().namespace, (ANY4, 53), LONG, vec![Reply::new(Answer::Address)])?;
    let (from, agent) = ((lab.world().v4, server.address().port()), lab.agent(0));
    let to = SocketAddr::new(from.0.into(), from.1);
    let mut probe = DnsProbe::open(&agent.namespace, to, Duration::from_millis(200))?;
    // An answer to nothing: only its head.
    let answer = [0xff, 0xff, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0];
    let capture = Capture::start(&agent.namespace, "eth0", LONG, Keep::default())?;
    let flood = Injector::open(lab.world())?;
    let sent = flood.flood_datagrams(from, (agent.v4, probe.port()?), &answer, COUNT, LONG)?.wait();
    capture.wait_for_arriving(COUNT, LONG)?;
    assert_eq!(sent, COUNT);
    assert!(probe.ask("real.example.test")?.answered.is_some(), "the real answer comes through");
    assert_eq!(probe.strangers(), COUNT, "after all the others");
    assert_eq!(capture.stop()?.arriving.frames, COUNT + 1);
    Ok(())
}
