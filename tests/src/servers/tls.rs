//! TLS servers that want to know who their client is, and clients that they refuse.
//!
//! What a refusal looks like from outside depends on the version. In TLS 1.2 the alert crosses in the clear. In TLS 1.3
//! the server refuses after its keys are in place: its alert is encrypted, and looks like any other record.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, ServerConfig, ServerConnection, Stream,
    SupportedProtocolVersion,
};

use super::certificates::{Authority, Identity};
use super::service::Service;
use super::stream::Peer;
use crate::netns::Namespace;

/// What a server answers to a client that it accepts.
pub const WELCOME: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: agentsec.test\r\n\r\n";
/// The name in every server's certificate.
pub(super) const NAME: &str = "agentsec.test";

/// The one version that a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

impl Version {
    fn supported(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::V12 => &rustls::version::TLS12,
            Self::V13 => &rustls::version::TLS13,
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Starts a server that answers [`WELCOME`] to clients with a certificate of `clients`, and refuses all others. Its
/// own certificate is one of `clients` too. Each record of its crosses by itself, with time for the client to say what it
/// has to say in between: that is how a greeting arrives which is longer than a segment.
pub fn requiring_certificate(
    namespace: &Namespace,
    address: impl Into<SocketAddr>,
    longest: Duration,
    clients: &Authority,
    version: Version,
) -> Result<Service> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()?), provider()).build()?;
    let Identity { certificate, key } = clients.issue(NAME)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version.supported()])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)?;
    let config = Arc::new(config);
    Service::start(namespace, address, longest, move |mut peer| {
        let mut tls = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        let served = welcome(&mut Stream::new(&mut tls, &mut ByRecord(&mut peer)));
        // Closing before the client has read everything would reset the connection, and the alert with it.
        peer.close_writing()?;
        peer.wait_for_close()?;
        served
    })
}

/// How long a record waits for what the client says to the one before.
const BETWEEN_RECORDS: Duration = Duration::from_millis(3);

/// What is written to it crosses by itself.
struct ByRecord<'a>(&'a mut Peer);

impl Read for ByRecord<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for ByRecord<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_segment(bytes)?;
        self.0.pause(BETWEEN_RECORDS);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn welcome(stream: &mut Stream<'_, ServerConnection, ByRecord<'_>>) -> io::Result<()> {
    stream.read_exact(&mut [0; REQUEST.len()])?;
    stream.write_all(WELCOME)?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// Starts a server that reads the client's first flight and answers with a fatal alert in the clear: every alert that
/// some implementation may send.
pub fn alerting(
    namespace: &Namespace,
    address: impl Into<SocketAddr>,
    longest: Duration,
    alert: AlertDescription,
) -> Result<Service> {
    Service::start(namespace, address, longest, move |mut peer| {
        let mut header = [0; 5];
        peer.read_exact(&mut header)?;
        let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        peer.read_exact(&mut hello)?;
        peer.write_segment(&plain_alert(alert))?;
        peer.close_writing()?;
        peer.wait_for_close()
    })
}

/// The record of a fatal alert as it crosses in the clear.
#[must_use]
pub fn plain_alert(alert: AlertDescription) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, u8::from(alert)]
}

/// How a client fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was answered.
    Welcome {
        /// From when the request was handed to the kernel to the first byte of the answer.
        first_byte: Duration,
    },
    /// The server sent this alert.
    Refused(AlertDescription),
}

/// A client that trusts servers of `servers` and shows `identity`, or nothing.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Makes one that speaks both versions.
    pub fn new(servers: &Authority, identity: Option<&Identity>) -> Result<Self> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(servers.roots()?);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(Identity { certificate, key }) => {
                builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key())?
            }
        };
        Ok(Self { config: Arc::new(config) })
    }

    /// Connects from inside `namespace`, asks, and tells how it fared; anything but an answer or an alert is an error.
    pub fn visit(&self, namespace: &Namespace, to: SocketAddr, longest: Duration) -> Result<Fate> {
        let mut peer =
            Peer::connect(namespace, to, longest).with_context(|| format!("connecting to {to}"))?;
        let name = ServerName::try_from(NAME)?;
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name)?;
        match ask(&mut Stream::new(&mut tls, &mut peer)) {
            Ok(first_byte) => Ok(Fate::Welcome { first_byte }),
            Err(error) => match alert_of(&error) {
                Some(alert) => Ok(Fate::Refused(alert)),
                None => Err(error).context("neither an answer nor an alert"),
            },
        }
    }
}

fn ask(stream: &mut Stream<'_, ClientConnection, Peer>) -> io::Result<Duration> {
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(stream.sock)?;
    }
    let written = Instant::now();
    stream.write_all(REQUEST)?;
    stream.read_exact(&mut [0])?;
    let first_byte = written.elapsed();
    stream.read_exact(&mut [0; WELCOME.len() - 1])?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(first_byte)
}

fn alert_of(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}
