//! The client side of the socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::error::ErrorBody;
use super::request::{RequestError, RequestErrorCode};
use super::server::SOCKET_NAME;

/// The most that an answer may take; following events is exempt after its head.
const PATIENCE: Duration = Duration::from_secs(15);
const ANSWER_BYTES: usize = 64 << 20;

/// Speaks to the daemon whose run directory it was given.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens.
    NotRunning {
        /// Where.
        socket: PathBuf,
    },
    /// The socket's file may not be opened.
    PermissionDenied {
        /// Which.
        socket: PathBuf,
    },
    /// The daemon said no.
    Api(RequestError),
    /// The daemon said something that cannot be understood, or stopped in the middle of it.
    Protocol(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning { socket } => write!(out, "no daemon answers on {}", socket.display()),
            Self::PermissionDenied { socket } => write!(out, "permission denied on {}", socket.display()),
            Self::Api(error) => error.fmt(out),
            Self::Protocol(what) => write!(out, "the daemon's answer could not be read: {what}"),
        }
    }
}

impl std::error::Error for ClientError {}

fn protocol(error: impl fmt::Display) -> ClientError {
    ClientError::Protocol(error.to_string())
}

impl Client {
    /// For the socket in `run_dir`.
    #[must_use]
    pub fn new(run_dir: &Path) -> Self {
        Self { socket: run_dir.join(SOCKET_NAME) }
    }

    /// Whether a daemon answers, refusals included.
    pub async fn is_served(&self) -> bool {
        !matches!(self.connect().await, Err(ClientError::NotRunning { .. }))
    }

    /// The JSON at `path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.answer(Method::GET, path, Bytes::new()).await
    }

    /// What the daemon answers to `body`.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(protocol)?;
        self.answer(Method::POST, path, body.into()).await
    }

    /// What the daemon answers to bytes that are no JSON.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T, ClientError> {
        self.answer(Method::PUT, path, body).await
    }

    /// The body at `path`, piece by piece.
    pub async fn stream(&self, path: &str) -> Result<Pieces, ClientError> {
        let response = in_time(self.send(Method::GET, path, Bytes::new())).await?;
        Ok(Pieces(succeeded(response).await?.into_body()))
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        in_time(async {
            let response = succeeded(self.send(method, path, body).await?).await?;
            let body = whole(response.into_body()).await?;
            serde_json::from_slice(&body).map_err(protocol)
        })
        .await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(self.connect().await?)).await.map_err(protocol)?;
        // It ends with the answer, whose error the caller sees.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agentsec")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(protocol)?;
        sender.send_request(request).await.map_err(protocol)
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.socket).await.map_err(|error| {
            let socket = self.socket.clone();
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning { socket }
                }
                io::ErrorKind::PermissionDenied => ClientError::PermissionDenied { socket },
                _ => ClientError::Protocol(format!("connecting to {}: {error}", socket.display())),
            }
        })
    }
}

/// A body that arrives piece by piece.
pub struct Pieces(Incoming);

impl Pieces {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame.map_err(protocol)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let too_late = || {
        let message = format!("the daemon did not answer within {} s", PATIENCE.as_secs());
        ClientError::Api(RequestError::new(RequestErrorCode::Unavailable, message))
    };
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(too_late()))
}

/// The response itself if it is a success, else its error.
async fn succeeded(response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let status = response.status();
    let body = whole(response.into_body()).await?;
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => Err(ClientError::Api(body.error)),
        Err(_) => Err(ClientError::Protocol(format!("HTTP status {status}"))),
    }
}

async fn whole(body: Incoming) -> Result<Bytes, ClientError> {
    Ok(Limited::new(body, ANSWER_BYTES).collect().await.map_err(protocol)?.to_bytes())
}

/// `text` as one segment of a path or one value of a query.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                safe.push(char::from(byte))
            }
            _ => safe.push_str(&format!("%{byte:02X}")),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(escaped("crawler-7"), "crawler-7");
        assert_eq!(escaped("a/b?c d ü"), "a%2Fb%3Fc%20d%20%C3%BC");
    }
}
