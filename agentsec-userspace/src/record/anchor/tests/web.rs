//! A server that takes a POST.

use super::server::Server;
use super::{Log, runtime};
use crate::record::anchor::Fault;
use crate::record::anchor::http::HttpAnchor;
use crate::record::remote::Client;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use base64::Engine as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn place(anchor: &HttpAnchor, log: &Log, ca_file: Option<&Path>, timeout: Duration) -> Result<(), String> {
    runtime().block_on(async {
        let client = Client::new(ca_file, timeout).unwrap();
        anchor.place(&client, &log.newest()).await.map_err(|fault| match fault {
            Fault::Failed(error) => format!("{error:#}"),
            Fault::Contradicted(contradiction) => panic!("{contradiction}"),
        })
    })
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn the_note_is_posted_with_the_header_of_a_private_file() {
    let log = Log::of(3);
    let server = Server::start(|_| StatusCode::CREATED.into_response());
    let header = log.state_dir().join("header");
    std::fs::write(&header, "Authorization: Bearer secret\n").unwrap();
    std::fs::set_permissions(&header, PermissionsExt::from_mode(0o644)).unwrap();
    let anchor = HttpAnchor { url: server.url(), header_file: Some(header.clone()) };
    let error = place(&anchor, &log, None, LONG).unwrap_err();
    assert!(error.contains("others can use it (mode 644, allowed is 600)"), "{error}");
    assert_eq!(server.requests(), 0);
    std::fs::set_permissions(&header, PermissionsExt::from_mode(0o600)).unwrap();
    place(&anchor, &log, None, LONG).unwrap();
    let (path, headers, body) = server.seen.lock().unwrap().pop().unwrap();
    assert_eq!((path.as_str(), &headers["authorization"]), ("/log", &"Bearer secret".parse().unwrap()));
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(body, log.newest().signed);
    std::fs::write(&header, "no header\n").unwrap();
    assert!(place(&anchor, &log, None, LONG).unwrap_err().contains("`Name: value`"));
}

#[test]
fn what_the_server_says_is_told_and_redirections_are_not_followed() {
    let log = Log::of(3);
    let other = Server::start(|_| StatusCode::OK.into_response());
    let target = other.url();
    let mut answers = vec![
        (StatusCode::TEMPORARY_REDIRECT, [("location", target)], "there\u{7}\nmore").into_response(),
        (StatusCode::FORBIDDEN, "go away").into_response(),
    ];
    let server = Server::start(move |_| answers.remove(0));
    let anchor = HttpAnchor { url: server.url(), header_file: None };
    let error = place(&anchor, &log, None, LONG).unwrap_err();
    assert!(error.contains("307") && error.contains("not followed") && error.ends_with("there?"), "{error}");
    let error = place(&anchor, &log, None, LONG).unwrap_err();
    assert_eq!(error, "the server answered 403 Forbidden: go away");
    assert_eq!(other.requests(), 0);
}

#[test]
fn nobody_there_a_server_that_says_nothing_and_one_that_says_too_much_fail_in_time() {
    let log = Log::of(3);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let anchor = HttpAnchor { url: format!("http://{address}/"), header_file: None };
    let error = place(&anchor, &log, None, Duration::from_millis(300)).unwrap_err();
    assert!(error.contains("no answer within 300ms"), "{error}");
    drop(listener);
    let error = place(&anchor, &log, None, LONG).unwrap_err();
    assert!(error.to_lowercase().contains("refused"), "{error}");
    let server = Server::start(|_| vec![b'x'; 1 << 20].into_response());
    let anchor = HttpAnchor { url: server.url(), header_file: None };
    assert!(place(&anchor, &log, None, LONG).unwrap_err().contains("length limit exceeded"));
}

/// Answers one request over TLS with the certificate.
fn serve_tls(listener: TcpListener, certificate: rcgen::CertifiedKey<rcgen::KeyPair>, accepts: usize) {
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    for _ in 0..accepts {
        let (socket, _) = listener.accept().unwrap();
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, socket);
        let mut bytes = [0; 4096];
        // Who does not trust the certificate goes away.
        if stream.read(&mut bytes).is_ok_and(|read| read > 0) {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        }
    }
}

#[test]
fn a_server_with_a_certificate_of_ones_own_is_believed_by_its_file_only() {
    let log = Log::of(3);
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca_file = log.state_dir().join("ca.pem");
    let encoded = base64::engine::general_purpose::STANDARD.encode(certificate.cert.der());
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    std::fs::write(&ca_file, pem).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || serve_tls(listener, certificate, 2));
    let anchor = HttpAnchor { url: format!("https://localhost:{port}/"), header_file: None };
    let error = place(&anchor, &log, None, LONG).unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    place(&anchor, &log, Some(&ca_file), LONG).unwrap();
    server.join().unwrap();
    std::fs::write(&ca_file, "nothing\n").unwrap();
    let error = format!("{:#}", Client::new(Some(&ca_file), LONG).unwrap_err());
    assert!(error.contains("no certificate"), "{error}");
}
