//! The scripted HTTP server and the measuring client: what the client sees is what the script says, and what
//! is on the wire is cut as the script cuts it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::servers::delays::{jittered, with_outliers};
use agentsec_tests::servers::http_answer::{Answer, Ending};
use agentsec_tests::servers::http_probe::{HttpProbe, Measured};
use agentsec_tests::servers::http_server::{Script, ScriptedHttp};
use agentsec_tests::servers::segments::{self, Segment};
use agentsec_tests::servers::statistics::{nearest_rank, within_5_percent_or_200us};
use agentsec_tests::traffic::capture::{Capture, Captured, Keep};
use anyhow::{Context, Result};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const WHOLE: Keep = Keep { frames: 10_000, bytes: 2000 };
const FORGED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

fn start(lab: &Lab, script: Script) -> Result<(ScriptedHttp, SocketAddr)> {
    let server = ScriptedHttp::start(&lab.world().namespace, (ANY4, 0), LONG, script)?;
    let address = SocketAddr::new(lab.world().v4.into(), server.address().port());
    Ok((server, address))
}

fn probe(lab: &Lab, to: SocketAddr) -> Result<HttpProbe> {
    Ok(HttpProbe::connect(&lab.agent(0).namespace, to, LONG)?)
}

fn statuses(measured: &[Measured]) -> Vec<u16> {
    measured.iter().map(|one| one.status).collect()
}

/// What the client's interface sees of a server with this script while a client asks so often.
fn captured(script: Script, asks: usize) -> Result<(Captured, Vec<Measured>, u16)> {
    let lab = Lab::routed(1)?;
    let (_server, to) = start(&lab, script)?;
    let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
    let measured = probe(&lab, to)?.get_many("/", asks)?;
    Ok((capture.stop()?, measured, to.port()))
}

#[test]
fn a_kept_connection_is_answered_by_the_script_again_and_again() -> Result<()> {
    let lab = Lab::routed(1)?;
    let (server, to) = start(&lab, Script::statuses(&[200, 401, 403, 407]))?;
    let measured = probe(&lab, to)?.get_many("/", 10)?;
    assert_eq!(statuses(&measured), [200, 401, 403, 407, 200, 401, 403, 407, 200, 401]);
    assert_eq!(statuses(&probe(&lab, to)?.get_many("/", 2)?), [200, 401], "each connection begins anew");
    assert_eq!((server.connections(), server.requests()), (2, 12));
    Ok(())
}

#[test]
fn every_kind_of_body_arrives_whole() -> Result<()> {
    let lab = Lab::routed(1)?;
    let chunks = [&b"first "[..], FORGED, b" last"];
    let long = vec![b'x'; 300_000];
    let answers = [
        Answer::new(200).body(FORGED),
        Answer::new(200).chunked(&chunks).cut_before(FORGED),
        Answer::new(403).body(long.clone()),
        Answer::new(401).body(""),
        Answer::new(200).body_until_close(FORGED.repeat(3)),
    ];
    let (_server, to) = start(&lab, Script::new(answers))?;
    let measured = probe(&lab, to)?.get_many("/", 5)?;
    assert_eq!(statuses(&measured), [200, 200, 403, 401, 200]);
    let expected = [FORGED.to_vec(), chunks.concat(), long, Vec::new(), FORGED.repeat(3)];
    for (one, body) in measured.iter().zip(expected) {
        assert!(one.body == body, "a body of {} bytes came as {}", body.len(), one.body.len());
    }
    Ok(())
}

#[test]
fn an_interim_answer_comes_before_the_pause_and_the_final_one_after_it() -> Result<()> {
    let lab = Lab::routed(1)?;
    let pause = Duration::from_millis(30);
    let (_server, to) = start(&lab, Script::new([Answer::new(401).continue_first().pause(pause)]))?;
    let measured = probe(&lab, to)?.post("/login", b"user=root")?;
    assert_eq!((measured.interim, measured.status), (vec![100], 401));
    assert!(measured.whole >= pause, "{:?}", measured.whole);
    assert!(measured.first_byte < measured.whole);
    Ok(())
}

#[test]
fn a_status_line_is_on_the_wire_in_the_pieces_that_the_script_cuts() -> Result<()> {
    let answer = Answer::new(401).body("no").cut_at(&[1, 5, 9, 10, 12]);
    let (captured, measured, port) = captured(Script::new([answer]), 20)?;
    assert_eq!(statuses(&measured), [401; 20]);
    let payloads = segments::payloads_from(&captured, port);
    assert_eq!(payloads.len(), 20 * 6);
    for pieces in payloads.chunks(6) {
        assert_eq!(pieces[..5], [&b"H"[..], b"TTP/", b"1.1 ", b"4", b"01"]);
        assert_eq!(pieces[5], b" Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    }
    Ok(())
}

#[test]
fn a_body_has_a_forged_status_line_exactly_where_a_segment_begins() -> Result<()> {
    let body = [b"some text ", FORGED, b" and more"].concat();
    let (captured, measured, port) =
        captured(Script::new([Answer::new(200).body(body).cut_before(FORGED)]), 5)?;
    assert_eq!(statuses(&measured), [200; 5]);
    let payloads = segments::payloads_from(&captured, port);
    assert_eq!(payloads.len(), 10);
    assert_eq!(payloads.iter().filter(|payload| payload.starts_with(FORGED)).count(), 5);
    Ok(())
}

#[test]
fn an_absurd_header_line_spans_many_segments() -> Result<()> {
    let absurd = "y".repeat(100_000);
    let (captured, measured, port) =
        captured(Script::new([Answer::new(407).header("X-Absurd", &absurd)]), 2)?;
    assert_eq!(statuses(&measured), [407, 407]);
    let payloads = segments::payloads_from(&captured, port);
    assert!(payloads.len() > 2 * 100_000 / 1460, "{} segments", payloads.len());
    Ok(())
}

#[test]
fn pipelined_requests_are_answered_in_order_one_by_one_or_in_one_segment() -> Result<()> {
    for (batch, segments_expected) in [(1, 4), (4, 1), (2, 2)] {
        let lab = Lab::routed(1)?;
        let (server, to) = start(&lab, Script::statuses(&[200, 401, 403, 200]).batch(batch))?;
        let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
        let measured = probe(&lab, to)?.pipeline("/", 4)?;
        assert_eq!(statuses(&measured), [200, 401, 403, 200], "batches of {batch}");
        assert_eq!(server.requests(), 4);
        let captured = capture.stop()?;
        assert_eq!(segments::payloads_from(&captured, to.port()).len(), segments_expected, "of {batch}");
        let asked =
            segments::all(&captured).iter().filter(|segment| segment.payload.starts_with(b"GET")).count();
        assert_eq!(asked, 4, "each request has a segment of its own");
    }
    Ok(())
}

#[test]
fn a_server_says_what_nobody_asked_for() -> Result<()> {
    let lab = Lab::routed(1)?;
    let script = Script::new([Answer::new(200).then_push(FORGED)]).greeting(FORGED, 50);
    let (_server, to) = start(&lab, script)?;
    let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
    let mut probe = probe(&lab, to)?;
    assert_eq!(probe.take_unsolicited(50 * FORGED.len())?, FORGED.repeat(50));
    assert_eq!(probe.get("/")?.status, 200);
    assert_eq!(probe.take_unsolicited(FORGED.len())?, FORGED);
    assert_eq!(probe.get("/")?.status, 200, "the pushed bytes are not the next answer");
    let payloads = segments::payloads_from(&capture.stop()?, to.port());
    assert!(payloads.iter().filter(|payload| *payload == FORGED).count() >= 51);
    Ok(())
}

#[test]
fn a_slow_server_takes_as_long_as_its_delays_say() -> Result<()> {
    let lab = Lab::routed(1)?;
    let (short, long) = (Duration::from_millis(2), Duration::from_millis(12));
    for delays in [jittered(4, 20, short, long), with_outliers(20, short, 5, Duration::from_millis(60))] {
        let (_server, to) = start(&lab, Script::new(Answer::delayed(200, &delays)))?;
        let measured = probe(&lab, to)?.get_many("/", 20)?;
        for (one, delay) in measured.iter().zip(&delays) {
            assert!(one.first_byte >= *delay, "{:?} for a delay of {delay:?}", one.first_byte);
        }
        // Half of them: a busy machine makes some late, but not most of them by the range of the delays.
        let close = |(one, delay): &(&Measured, &Duration)| one.first_byte < **delay + long;
        assert!(measured.iter().zip(&delays).filter(close).count() >= 10, "{measured:?}");
    }
    Ok(())
}

#[test]
fn a_server_that_never_answers_leaves_its_client_waiting() -> Result<()> {
    let lab = Lab::routed(1)?;
    let (server, to) = start(&lab, Script::new([Answer::new(200), Answer::never()]))?;
    let mut probe = HttpProbe::connect(&lab.agent(0).namespace, to, Duration::from_millis(300))?;
    assert_eq!(probe.get("/")?.status, 200);
    let error = probe.get("/").expect_err("nobody answers this");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(server.requests(), 2, "it was asked");
    Ok(())
}

#[test]
fn an_answer_can_end_its_connection_in_order_or_by_a_reset() -> Result<()> {
    let lab = Lab::routed(1)?;
    for (ending, kind) in
        [(Ending::Close, ErrorKind::UnexpectedEof), (Ending::Reset, ErrorKind::ConnectionReset)]
    {
        let (_server, to) = start(&lab, Script::new([Answer::new(403).then(ending)]))?;
        let mut probe = probe(&lab, to)?;
        assert_eq!(probe.get("/")?.status, 403);
        let error = probe.take_unsolicited(1).expect_err("the connection has ended");
        assert_eq!(error.kind(), kind);
    }
    Ok(())
}

#[test]
fn the_client_measures_what_is_on_its_interface() -> Result<()> {
    const ASKS: usize = 100;
    /// How much the clock of the frames may be corrected against the client's meanwhile.
    const CLOCKS: Duration = Duration::from_micros(50);
    let lab = Lab::routed(1)?;
    let delays = jittered(11, ASKS, Duration::from_millis(10), Duration::from_millis(30));
    let (_server, to) = start(&lab, Script::new(Answer::delayed(200, &delays)))?;
    let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
    let measured = probe(&lab, to)?.get_many("/", ASKS)?;
    let told: Vec<_> = measured.iter().map(|one| one.first_byte).collect();
    let seen = waits(&capture.stop()?, to.port())?;
    assert_eq!(seen.len(), ASKS);
    // A busy machine wakes the client late, and how late says nothing about the client: so no more is asked of most
    // than that they are not less than what the interface saw, and of the quickest tenth that they are the same.
    let early = told.iter().zip(&seen).find(|(told, seen)| **told + CLOCKS < **seen);
    assert_eq!(early, None, "told less than seen");
    let late: Vec<_> = told.iter().zip(&seen).map(|(told, seen)| told.saturating_sub(*seen)).collect();
    let late = nearest_rank(&late, 100).context("a rank")?;
    let quickest = delays.iter().min().context("a delay")?;
    assert!(within_5_percent_or_200us(*quickest + late, *quickest), "{late:?} late");
    Ok(())
}

/// From each frame with data to `port` to the next with data from it, by the kernel's timestamps.
fn waits(captured: &Captured, port: u16) -> Result<Vec<Duration>> {
    let mut asked = None;
    let mut waits = Vec::new();
    for frame in &captured.frames {
        let Some(segment) = Segment::parse(&frame.bytes).filter(|segment| !segment.payload.is_empty()) else {
            continue;
        };
        if segment.to.1 == port {
            asked = Some(frame.at);
        } else if let Some(asked) = asked.take() {
            waits.push(frame.at.duration_since(asked)?);
        }
    }
    Ok(waits)
}
