//! Logins in other protocols than HTTP: both sides hold the conversation that is written down, each answer in a
//! segment of its own.

use std::fs;
use std::io::BufRead;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::servers::logins::{Ending, Protocol};
use agentsec_tests::servers::segments;
use agentsec_tests::traffic::capture::{Capture, Keep};
use anyhow::{Context, Result, ensure};

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

/// What tshark calls a refused login.
fn refusal_by_tshark(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Redis => "resp.error contains WRONGPASS",
        Protocol::PostgreSql => "pgsql.code == \"28P01\"",
        Protocol::MySql => "mysql.error_code == 1045",
        Protocol::Smtp => "smtp.response.code == 535",
        Protocol::Ftp => "ftp.response.code == 530",
        Protocol::Imap => "imap.response.status == \"NO\" && imap.response contains AUTHENTICATIONFAILED",
        Protocol::Pop3 => "pop.response.indicator == \"-ERR\" && pop.response.description contains AUTH",
        Protocol::Ldap => "ldap.bindResponse_element && ldap.resultCode == 49",
    }
}

/// How many packets of a capture tshark finds by this filter.
fn found_by_tshark(capture: &Path, filter: &str) -> Result<usize> {
    let output = Command::new("tshark").arg("-n").arg("-r").arg(capture).args(["-Y", filter]).output();
    let output = output.context("starting tshark")?;
    ensure!(output.status.success(), "{filter}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout.lines().count())
}

#[test]
fn tshark_reads_every_login_as_what_it_is() -> Result<()> {
    let lab = Lab::routed(1)?;
    let directory = tempfile::tempdir()?;
    for ending in [Ending::Accepted, Ending::Refused, Ending::OtherError] {
        let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
        for protocol in Protocol::ALL {
            let dialogue = protocol.login(ending);
            let at = (ANY4, protocol.port());
            let _server = dialogue.serve(&lab.world().namespace, at, LONG, Duration::ZERO)?;
            let to = SocketAddr::new(lab.world().v4.into(), protocol.port());
            dialogue.hold(&lab.agent(0).namespace, to, LONG)?;
        }
        let file = directory.path().join(format!("{ending:?}.pcap"));
        fs::write(&file, capture.stop()?.to_pcap())?;
        assert_eq!(found_by_tshark(&file, "_ws.malformed")?, 0, "{ending:?}");
        if ending == Ending::Refused {
            for protocol in Protocol::ALL {
                assert_eq!(found_by_tshark(&file, refusal_by_tshark(protocol))?, 1, "{protocol:?}");
            }
        } else {
            let any = Protocol::ALL.map(|protocol| format!("({})", refusal_by_tshark(protocol))).join(" || ");
            assert_eq!(found_by_tshark(&file, &any)?, 0, "{ending:?}");
        }
    }
    Ok(())
}
