//! Shipping to a server that speaks as much of S3 as is asked of it, over real HTTP.

use super::{Site, at, keep, step, told};
use crate::config::log::{Destination, S3Config};
use crate::record::evidence::tiles::entries_in;
use crate::record::retention::service::{Done, Keeper};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

/// What the server has and how it behaves.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Bytes>,
    /// Answers that are errors before it works.
    failures: u32,
    /// It flips a bit of what it stores.
    corrupts: bool,
    unsigned: u32,
}

type Shared = Arc<Mutex<Bucket>>;

fn answer(bucket: &Shared, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
    let mut bucket = bucket.lock().unwrap();
    let signed = headers.get("authorization").and_then(|value| value.to_str().ok());
    if !signed.is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 Credential=key/")) {
        bucket.unsigned += 1;
        return StatusCode::FORBIDDEN.into_response();
    }
    if bucket.failures > 0 {
        bucket.failures -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let stamp = [("etag", "\"1\""), ("last-modified", "Tue, 14 Nov 2023 22:13:20 GMT")];
    let key = uri.path().to_owned();
    if *method == Method::PUT {
        let mut bytes = body.to_vec();
        if bucket.corrupts {
            bytes[0] ^= 1;
        }
        bucket.objects.insert(key, bytes.into());
        return (StatusCode::OK, stamp).into_response();
    }
    match bucket.objects.get(&key) {
        Some(bytes) => (StatusCode::OK, stamp, bytes.clone()).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>no</Message></Error>",
        )
            .into_response(),
    }
}

/// Serves until the test ends.
fn serve(bucket: &Shared) -> String {
    let bucket = Arc::clone(bucket);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let handle = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        let response = answer(&bucket, &method, &uri, &headers, body);
        async move { response }
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, Router::new().fallback(handle)).await.unwrap();
        });
    });
    format!("http://{address}")
}

fn keeper(site: &Site, endpoint: String) -> Keeper {
    let credentials = site.path().join("credentials");
    std::fs::write(&credentials, "AWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY=secret\n").unwrap();
    std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut config = keep(100);
    config.retention.ship_to = Some(Destination::S3(S3Config {
        bucket: "evidence".into(),
        prefix: "hosts/one".into(),
        endpoint: Some(endpoint),
        region: "us-east-1".into(),
        credentials_file: credentials,
        ca_file: None,
    }));
    Keeper::new(site.path(), config)
}

#[test]
fn bundles_are_put_with_a_signature_tried_again_and_read_back() {
    let site = Site::of(1000);
    let bucket = Shared::default();
    bucket.lock().unwrap().failures = 2;
    let mut keeper = keeper(&site, serve(&bucket));
    let intent = told(step(&mut keeper, at(2000)));
    assert_eq!((intent.to, intent.shipped_to.as_deref()), (768, Some("s3://evidence/hosts/one")));
    {
        let bucket = bucket.lock().unwrap();
        assert_eq!((bucket.unsigned, bucket.objects.len()), (0, 3 + 2));
        let first = bucket.objects.iter().find(|(key, _)| key.ends_with("/tile/entries/000")).unwrap();
        assert!(first.0.starts_with("/evidence/hosts/one/agentsec/host/"), "{}", first.0);
        assert_eq!(entries_in(first.1).unwrap().len(), 256);
    }
    site.record(&intent);
    assert_eq!(step(&mut keeper, at(2000)).unwrap(), Done::Removed);
    assert_eq!(site.check().removed, 768);
}

#[test]
fn a_server_that_stores_something_else_is_found_out_and_nothing_goes() {
    let site = Site::of(1000);
    let bucket = Shared::default();
    bucket.lock().unwrap().corrupts = true;
    let error = format!("{:#}", step(&mut keeper(&site, serve(&bucket)), at(2000)).unwrap_err());
    assert!(error.contains("what is read back is not what was sent"), "{error}");
    assert_eq!(site.first_left(), 0);
}
