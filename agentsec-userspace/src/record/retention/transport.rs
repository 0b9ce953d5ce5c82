//! HTTP for the object store, by the same client as everything else that calls outside.

use crate::record::remote::{self, Connections};
use async_trait::async_trait;
use http_body_util::BodyExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use std::path::PathBuf;
use std::time::Duration;

/// Makes clients.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let pool = remote::connections(self.ca_file.as_deref())
            .map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })?;
        Ok(HttpClient::new(Service { pool, timeout: self.timeout }))
    }
}

#[derive(Debug)]
struct Service {
    pool: Connections<HttpRequestBody>,
    timeout: Duration,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = tokio::time::timeout(self.timeout, self.pool.request(request)).await;
        let answered = answered.map_err(|elapsed| HttpError::new(HttpErrorKind::Timeout, elapsed))?;
        let response = answered.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        let (parts, body) = response.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}
