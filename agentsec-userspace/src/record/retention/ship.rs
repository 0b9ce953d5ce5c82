//! Copying bundles to an object store, where they lie as in the log: `ORIGIN/tile/entries/…`.

use super::plan::bundle;
use super::transport::Connector;
use crate::config::log::{Destination, S3Config};
use crate::record::remote::private_text;
use anyhow::{Context as _, Result, anyhow};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Tries of one request.
const TRIES: usize = 4;

/// An object store, and what keys begin with.
#[derive(Clone, Debug)]
pub struct Store {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    timeout: Duration,
}

impl Store {
    /// Opens the store at `to`. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When the directory does not exist, or credentials cannot be read.
    pub fn open(to: &Destination, timeout: Duration) -> Result<Self> {
        let (store, prefix): (Arc<dyn ObjectStore>, _) = match to {
            Destination::Directory(path) => {
                let store = LocalFileSystem::new_with_prefix(path)
                    .with_context(|| format!("opening {}", path.display()))?;
                (Arc::new(store.with_fsync(true)), String::new())
            }
            Destination::S3(config) => (Arc::new(bucket(config, timeout)?), config.prefix.clone()),
        };
        Ok(Self { store, prefix, timeout })
    }

    /// Copies a bundle of the log `origin`, unless it is there already, and reads it back. Afterwards it is there.
    ///
    /// # Errors
    ///
    /// When it is not, or something else is in its place.
    pub async fn ship(&self, origin: &str, index: u64, bytes: &[u8]) -> Result<()> {
        self.put(&format!("{origin}/{}", bundle(index).path()), bytes).await
    }

    /// Copies a small file of the log `origin`.
    ///
    /// # Errors
    ///
    /// As [`Self::ship`].
    pub async fn ship_file(&self, origin: &str, name: &str, bytes: &[u8]) -> Result<()> {
        self.put(&format!("{origin}/{name}"), bytes).await
    }

    async fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let name = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        let key = Key::parse(&name).with_context(|| format!("{name} cannot be a key"))?;
        let put = async {
            if let Some(there) = self.read(&key).await? {
                return if there == bytes { Ok(()) } else { Err(anyhow!("another object is there")) };
            }
            self.store.put(&key, PutPayload::from(bytes.to_vec())).await?;
            match self.read(&key).await? {
                Some(there) if there == bytes => Ok(()),
                Some(_) => Err(anyhow!("what is read back is not what was sent")),
                None => Err(anyhow!("what was sent is not there")),
            }
        };
        // A request has its own limit; this bounds their sum.
        let shipped = tokio::time::timeout(self.timeout * 3 * TRIES as u32, put).await;
        let shipped = shipped.unwrap_or_else(|_| Err(anyhow!("it took too long")));
        shipped.with_context(|| format!("shipping {name}"))
    }

    async fn read(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        match self.store.get(key).await {
            Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn bucket(config: &S3Config, timeout: Duration) -> Result<object_store::aws::AmazonS3> {
    let credentials = credentials(&private_text(&config.credentials_file)?)
        .with_context(|| format!("{}", config.credentials_file.display()))?;
    let retry = RetryConfig { max_retries: TRIES - 1, retry_timeout: timeout * 2, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_access_key_id(&credentials["AWS_ACCESS_KEY_ID"])
        .with_secret_access_key(&credentials["AWS_SECRET_ACCESS_KEY"])
        .with_retry(retry)
        .with_http_connector(Connector { ca_file: config.ca_file.clone(), timeout });
    if let Some(token) = credentials.get("AWS_SESSION_TOKEN") {
        builder = builder.with_token(token);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    builder.build().context("opening the bucket")
}

/// `NAME=VALUE` lines; the two that are needed are there.
fn credentials(text: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once('=').ok_or_else(|| anyhow!("a line is not NAME=VALUE"))?;
        found.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        if found.get(name).is_none_or(String::is_empty) {
            return Err(anyhow!("{name} is not in it"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_say_what_is_missing() {
        let good = credentials("# ours\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY = b=c\n").unwrap();
        assert_eq!(good["AWS_SECRET_ACCESS_KEY"], "b=c");
        for (text, why) in [("", "AWS_ACCESS_KEY_ID"), ("AWS_ACCESS_KEY_ID=a", "SECRET"), ("a", "NAME=VALUE")]
        {
            assert!(credentials(text).unwrap_err().to_string().contains(why), "{text}");
        }
    }
}
