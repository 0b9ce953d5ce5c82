//! Logins in other protocols than HTTP: both sides hold the conversation that is written down, each answer in a
//! segment of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::servers::logins::{Ending, Protocol};
use agentsec_tests::servers::segments;
use agentsec_tests::traffic::capture::{Capture, Keep};
use anyhow::{Context, Result};

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const WHOLE: Keep = Keep { frames: 10_000, bytes: 2000 };

#[test]
fn every_login_goes_as_it_is_written_down() -> Result<()> {
    let lab = Lab::routed(1)?;
    let pause = Duration::from_millis(3);
    for protocol in Protocol::ALL {
        for ending in [Ending::Accepted, Ending::Refused, Ending::OtherError] {
            let what = format!("{protocol:?} {ending:?}");
            let dialogue = protocol.login(ending);
            let server = dialogue.serve(&lab.world().namespace, (ANY4, protocol.port()), LONG, pause)?;
            let to = SocketAddr::new(lab.world().v4.into(), protocol.port());
            let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
            let times = dialogue.hold(&lab.agent(0).namespace, to, LONG).with_context(|| what.clone())?;
            assert_eq!(times.len(), dialogue.turns.len(), "{what}");
            assert!(times.iter().all(|time| *time >= pause), "{what}: {times:?}");
            let said = segments::payloads_from(&capture.stop()?, to.port());
            let greeting = Some(dialogue.greeting).filter(|greeting| !greeting.is_empty());
            let answers = dialogue.turns.into_iter().map(|turn| turn.gets);
            assert_eq!(said, greeting.into_iter().chain(answers).collect::<Vec<_>>(), "{what}");
            assert_eq!(server.stop(), 1, "{what}");
        }
    }
    Ok(())
}

#[test]
fn a_client_that_says_something_else_is_left() -> Result<()> {
    let lab = Lab::routed(1)?;
    let redis = Protocol::Redis.login(Ending::Refused);
    let server = redis.serve(&lab.world().namespace, (ANY4, 0), LONG, Duration::ZERO)?;
    let to = SocketAddr::new(lab.world().v4.into(), server.address().port());
    let mut other = redis.clone();
    other.turns[0].says[0] = b'!';
    assert!(other.hold(&lab.agent(0).namespace, to, LONG).is_err());
    assert!(redis.hold(&lab.agent(0).namespace, to, LONG).is_ok());
    Ok(())
}
