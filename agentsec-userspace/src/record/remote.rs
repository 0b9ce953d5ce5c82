//! Calls to servers outside this host, over HTTP and HTTPS, each bounded in time and in what it may answer.

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The longest answer that is read.
const ANSWER_BYTES: usize = 64 * 1024;
/// How much of an answer is quoted in an error.
const QUOTE_CHARS: usize = 200;
/// Idle connections are kept this long.
const IDLE: Duration = Duration::from_secs(90);

/// Connections to servers, by TLS where the URL says so.
pub type Connections<B> = Pool<HttpsConnector<HttpConnector>, B>;

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Connections<Full<Bytes>>,
    timeout: Duration,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The media type without parameters, in lower case; empty if there is none.
    pub media_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The beginning of the body, fit to be shown.
    #[must_use]
    pub fn quote(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().next().unwrap_or_default();
        let plain = |character: char| if character.is_control() { '?' } else { character };
        line.chars().take(QUOTE_CHARS).map(plain).collect()
    }
}

impl Client {
    /// A client that trusts the system's certificates, and those in `ca_file`.
    ///
    /// # Errors
    ///
    /// When that file cannot be read or has none.
    pub fn new(ca_file: Option<&Path>, timeout: Duration) -> Result<Self> {
        Ok(Self { pool: connections(ca_file)?, timeout })
    }

    /// Posts `body` and reads the answer; redirections are not followed.
    ///
    /// # Errors
    ///
    /// When there is no whole answer in time.
    pub async fn post(&self, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Result<Answer> {
        let mut request = Request::post(url)
            .header(header::USER_AGENT, concat!("agentsec/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).context("making the request")?;
        let answered = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        answered.map_err(|_| anyhow!("no answer within {:?}", self.timeout))?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let response = self.pool.request(request).await.map_err(|error| anyhow!(causes(&error)))?;
        let status = response.status();
        let named = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = named.and_then(|named| named.split(';').next()).unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow!("reading the answer: {error}"))?.to_bytes().to_vec();
        Ok(Answer { status, media_type, body })
    }
}

/// Connections that trust the system's certificates, and those in `ca_file`.
///
/// # Errors
///
/// When that file cannot be read or has none.
pub fn connections<B>(ca_file: Option<&Path>) -> Result<Connections<B>>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing versions of TLS")?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    let mut builder = Pool::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(1);
    Ok(builder.build(connector))
}

/// A system without certificates is no mistake until a server has to be believed.
fn roots(ca_file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let Some(path) = ca_file else { return Ok(roots) };
    let read = CertificateDer::pem_file_iter(path).with_context(|| format!("reading {}", path.display()))?;
    let mut found = 0;
    for certificate in read {
        let certificate = certificate.map_err(|error| anyhow!("{}: {error}", path.display()))?;
        roots.add(certificate).with_context(|| format!("{}: a certificate", path.display()))?;
        found += 1;
    }
    if found == 0 {
        return Err(anyhow!("{}: there is no certificate in it", path.display()));
    }
    Ok(roots)
}

/// An error and what caused it, in one line.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The header in a file that only its owner may read: one line `Name: value`.
///
/// # Errors
///
/// When it cannot be read, others can read it, or it is not one header.
pub fn header_in(path: &Path) -> Result<(String, String)> {
    let text = private_text(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let (name, value) = line.split_once(':').unwrap_or_default();
    let value = value.trim();
    let fits = header::HeaderName::from_bytes(name.as_bytes()).is_ok() && !value.is_empty();
    if !fits || header::HeaderValue::from_str(value).is_err() {
        return Err(anyhow!("{}: it is not one line `Name: value`", path.display()));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The text of a file that only its owner may read.
///
/// # Errors
///
/// When it cannot be read, or others can read it.
pub fn private_text(path: &Path) -> Result<String> {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    let opened = std::fs::File::open(path).and_then(|file| {
        let mode = file.metadata()?.mode();
        let mut text = String::new();
        file.take(ANSWER_BYTES as u64).read_to_string(&mut text)?;
        Ok((mode, text))
    });
    let (mode, text) = opened.with_context(|| format!("reading {}", path.display()))?;
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Err(anyhow!("{}: others can use it (mode {mode:03o}, allowed is 600)", path.display()));
    }
    Ok(text)
}
