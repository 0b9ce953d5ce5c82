//! TLS servers that require a certificate: which alert a client gets, and what of it can be read on the wire.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use agentsec_tests::lab::Lab;
use agentsec_tests::scene::LONG;
use agentsec_tests::servers::certificates::Authority;
use agentsec_tests::servers::segments;
use agentsec_tests::servers::tls::{Fate, TlsClient, Version, alerting, plain_alert, requiring_certificate};
use agentsec_tests::traffic::capture::{Capture, Keep};
use anyhow::Result;
use rustls::AlertDescription;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const WHOLE: Keep = Keep { frames: 10_000, bytes: 2000 };

#[test]
fn a_server_refuses_everybody_but_clients_of_its_authority() -> Result<()> {
    let (ours, foreign) = (Authority::new("ours")?, Authority::new("foreign")?);
    let (good, stranger) = (ours.issue("client.test")?, foreign.issue("client.test")?);
    let cases = [
        ("a good certificate", Some(&good), None),
        ("no certificate", None, Some(AlertDescription::CertificateRequired)),
        ("a foreign certificate", Some(&stranger), Some(AlertDescription::UnknownCA)),
    ];
    for version in [Version::V12, Version::V13] {
        let lab = Lab::routed(1)?;
        let server = requiring_certificate(&lab.world().namespace, (ANY4, 0), LONG, &ours, version)?;
        let to = SocketAddr::new(lab.world().v4.into(), server.address().port());
        for (what, identity, refused) in cases {
            let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
            let fate = TlsClient::new(&ours, identity)?.visit(&lab.agent(0).namespace, to, LONG)?;
            let bytes = segments::payloads_from(&capture.stop()?, to.port()).concat();
            let Some(alert) = refused else {
                assert!(matches!(fate, Fate::Welcome { .. }), "{what}, {version:?}: {fate:?}");
                continue;
            };
            assert_eq!(fate, Fate::Refused(alert), "{what}, {version:?}");
            let readable = bytes.windows(7).any(|window| window == plain_alert(alert));
            assert_eq!(readable, version == Version::V12, "{what}: only TLS 1.2 refuses in the clear");
        }
        assert_eq!(server.stop(), 3);
    }
    Ok(())
}

#[test]
fn any_alert_can_come_in_the_clear_as_the_answer_to_a_hello() -> Result<()> {
    let ours = Authority::new("ours")?;
    let alerts = [
        AlertDescription::HandshakeFailure,
        AlertDescription::BadCertificate,
        AlertDescription::CertificateExpired,
        AlertDescription::UnknownCA,
        AlertDescription::AccessDenied,
        AlertDescription::ProtocolVersion,
        AlertDescription::UnknownPSKIdentity,
        AlertDescription::CertificateRequired,
    ];
    let lab = Lab::routed(1)?;
    for alert in alerts {
        let server = alerting(&lab.world().namespace, (ANY4, 0), LONG, alert)?;
        let to = SocketAddr::new(lab.world().v4.into(), server.address().port());
        let capture = Capture::start(&lab.agent(0).namespace, "eth0", LONG, WHOLE)?;
        let fate = TlsClient::new(&ours, None)?.visit(&lab.agent(0).namespace, to, LONG)?;
        assert_eq!(fate, Fate::Refused(alert));
        let payloads = segments::payloads_from(&capture.stop()?, to.port());
        assert_eq!(payloads, [plain_alert(alert)], "one segment with nothing else");
    }
    Ok(())
}
