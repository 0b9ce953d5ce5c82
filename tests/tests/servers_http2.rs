//! The scripted HTTP/2 server and its measuring client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::servers::http2::{self, Answer, Http2Server, Manner, Reply};
use agentsec_tests::servers::segments::{self, SYN};
use agentsec_tests::traffic::capture::{Capture, Keep};
use anyhow::Result;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const WHOLE: Keep = Keep { frames: 10_000, bytes: 2000 };
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn start(lab: &Lab, script: Vec<Reply>) -> Result<(Http2Server, SocketAddr)> {
    let server = Http2Server::start(&lab.world().namespace, (ANY4, 0), LONG, script)?;
    let address = SocketAddr::new(lab.world().v4.into(), server.address().port());
    Ok((server, address))
}

#[test]
fn statuses_and_grpc_statuses_come_on_one_plaintext_connection() -> Result<()> {
    let answers = [
        (Answer::Status(200), 200, None),
        (Answer::Status(401), 401, None),
        (Answer::Status(403), 403, None),
        (Answer::GrpcTrailersOnly(16), 200, Some(16)),
        (Answer::GrpcTrailersOnly(7), 200, Some(7)),
        (Answer::GrpcTrailersOnly(0), 200, Some(0)),
        (Answer::Grpc(16), 200, Some(16)),
        (Answer::Grpc(0), 200, Some(0)),
    ];
    for manner in [Manner::OneByOne, Manner::AllAtOnce] {
        let lab = Lab::routed(1)?;
        let (server, to) = start(&lab, answers.iter().map(|(answer, ..)| Reply::new(*answer)).collect())?;
        let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
        let measured = http2::ask(&lab.agent(0).namespace, to, 2 * answers.len(), manner, LONG)?;
        for (one, (answer, status, grpc)) in measured.iter().zip(answers.iter().cycle()) {
            assert_eq!((one.status, one.grpc_status), (Some(*status), *grpc), "{answer:?}, {manner:?}");
        }
        assert_eq!((measured.len(), server.requests()), (16, 16));
        let seen = segments::all(&capture.stop()?);
        let mut asked = seen.iter().filter(|segment| segment.to.1 == to.port());
        assert_eq!(asked.clone().filter(|segment| segment.flags & SYN != 0).count(), 1, "one connection");
        assert!(asked.any(|segment| segment.payload.starts_with(PREFACE)), "in the clear");
    }
    Ok(())
}

#[test]
fn a_slow_answer_is_measured_and_does_not_hold_up_the_others() -> Result<()> {
    let lab = Lab::routed(1)?;
    let pause = Duration::from_millis(80);
    let script = vec![
        Reply { pause, ..Reply::new(Answer::Status(200)) },
        Reply::new(Answer::GrpcTrailersOnly(16)),
        Reply::new(Answer::Never),
    ];
    let (server, to) = start(&lab, script)?;
    let timeout = Duration::from_millis(500);
    let measured = http2::ask(&lab.agent(0).namespace, to, 3, Manner::AllAtOnce, timeout)?;
    let answered: Vec<_> = measured.iter().map(|one| one.answered).collect();
    assert!(answered[0] >= Some(pause), "{answered:?}");
    assert!(answered[1].is_some() && answered[1] < answered[0], "{answered:?}");
    assert_eq!((answered[2], measured[2].status, server.requests()), (None, None, 3));
    Ok(())
}
