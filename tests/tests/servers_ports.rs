//! Ports that turn clients away: what the client counts is what is on the wire.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::servers::ports::{Receptions, RefusingPort, ResetAfter, resetting, visit};
use agentsec_tests::servers::segments::{self, ACK, RST};
use agentsec_tests::traffic::capture::{Capture, Keep};
use agentsec_tests::traffic::tcp::TcpSink;
use anyhow::Result;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const WHOLE: Keep = Keep { frames: 10_000, bytes: 2000 };
const COUNT: usize = 25;

#[test]
fn a_port_that_is_taken_but_not_listened_on_refuses_everybody() -> Result<()> {
    let lab = Lab::routed(1)?;
    let port = RefusingPort::take(&lab.world().namespace, (ANY4, 0))?;
    let to = SocketAddr::new(lab.world().v4.into(), port.address().port());
    let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
    let receptions = visit(&lab.agent(0).namespace, to, COUNT, b"hello", LONG);
    assert_eq!(receptions, Receptions { refused: COUNT as u64, ..Receptions::default() });
    let seen = segments::all(&capture.stop()?);
    let resets = seen.iter().filter(|segment| segment.from.1 == to.port());
    assert_eq!(resets.filter(|segment| segment.flags == RST | ACK).count(), COUNT);
    assert!(TcpSink::start(&lab.world().namespace, port.address(), LONG).is_err(), "nobody else can have it");
    Ok(())
}

#[test]
fn resets_before_and_after_data_are_told_apart() -> Result<()> {
    let count = COUNT as u64;
    let cases = [
        (ResetAfter::Accepting, Receptions { reset_before_data: count, ..Receptions::default() }),
        (ResetAfter::Request, Receptions { reset_before_data: count, ..Receptions::default() }),
        (
            ResetAfter::Data(b"+OK ready\r\n".to_vec()),
            Receptions { reset_after_data: count, ..Receptions::default() },
        ),
    ];
    for (after, expected) in cases {
        let lab = Lab::routed(1)?;
        let what = format!("{after:?}");
        let server = resetting(&lab.world().namespace, (ANY4, 0), LONG, after)?;
        let to = SocketAddr::new(lab.world().v4.into(), server.address().port());
        let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
        assert_eq!(visit(&lab.agent(0).namespace, to, COUNT, b"hello", LONG), expected, "{what}");
        assert_eq!(server.stop(), count, "{what}");
        let seen = segments::all(&capture.stop()?);
        let mine = |segment: &&segments::Segment| segment.from.1 == to.port();
        assert!(seen.iter().filter(mine).filter(|segment| segment.flags & RST != 0).count() >= COUNT);
        let data = seen.iter().filter(mine).filter(|segment| !segment.payload.is_empty()).count() as u64;
        assert_eq!(data, expected.reset_after_data, "{what}");
    }
    Ok(())
}

#[test]
fn a_sink_never_answers_and_a_nobody_is_silent() -> Result<()> {
    let lab = Lab::routed(1)?;
    let sink = TcpSink::start(&lab.world().namespace, (ANY4, 0), LONG)?;
    let to = SocketAddr::new(lab.world().v4.into(), sink.address().port());
    let receptions = visit(&lab.agent(0).namespace, to, 2, b"hello", Duration::from_millis(100));
    assert_eq!(receptions, Receptions { silent: 2, ..Receptions::default() });
    assert_eq!(sink.stop(), 10);
    Ok(())
}
