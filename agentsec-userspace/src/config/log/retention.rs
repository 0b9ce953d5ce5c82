//! `[log.retention]`: how much of the log stays here, and where the rest goes.

use super::super::section::absolute_path;
use super::{is_in_the_clear, url_of};
use crate::config::section::{Section, text};
use std::path::PathBuf;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// How long entries are kept, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// What stays; without a bound everything does.
    pub keep: KeepLog,
    /// Where older entries are shipped before they are removed here; `None` to remove them.
    pub ship_to: Option<Destination>,
    /// How often it is looked for what may go, nanoseconds.
    pub interval_ns: u64,
    /// The most that one request to the object store may take, nanoseconds.
    pub timeout_ns: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { keep: KeepLog::default(), ship_to: None, interval_ns: 3600 * SECOND, timeout_ns: 60 * SECOND }
    }
}

/// What of the log stays. An entry goes when either bound says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepLog {
    /// Entries younger than this, nanoseconds.
    pub age_ns: Option<u64>,
    /// The newest entries of so many bytes.
    pub bytes: Option<u64>,
}

impl KeepLog {
    /// Nothing ever goes.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.age_ns.is_none() && self.bytes.is_none()
    }
}

/// An object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A directory, which exists.
    Directory(PathBuf),
    /// A bucket.
    S3(S3Config),
}

/// A bucket of an S3 server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// Its name.
    pub bucket: String,
    /// What keys begin with; empty for nothing.
    pub prefix: String,
    /// The server, when it is not Amazon's.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// File of mode 0600 with the lines `AWS_ACCESS_KEY_ID=` and `AWS_SECRET_ACCESS_KEY=`.
    pub credentials_file: PathBuf,
    /// Certificates (PEM) that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// Reads `[log.retention]`.
pub(super) fn read(section: &Section<'_>) -> RetentionConfig {
    let default = RetentionConfig::default();
    let keep = section.section("keep");
    let kept = KeepLog {
        age_ns: keep.duration("age", 60 * SECOND..=36_500 * DAY),
        bytes: keep.bytes_within("bytes", 1 << 20..=1 << 50),
    };
    keep.finish();
    let config = RetentionConfig {
        keep: kept,
        ship_to: destination(section),
        interval_ns: section.duration("interval", SECOND..=7 * DAY).unwrap_or(default.interval_ns),
        timeout_ns: section.duration("timeout", SECOND..=3600 * SECOND).unwrap_or(default.timeout_ns),
    };
    section.finish();
    config
}

fn destination(section: &Section<'_>) -> Option<Destination> {
    let allowed = "an absolute path, or s3://BUCKET or s3://BUCKET/PREFIX";
    let to = section.parsed("ship_to", allowed, |value| {
        let text = text(value)?;
        match text.strip_prefix("s3://") {
            Some(rest) => bucket_of(rest).map(Place::Bucket),
            None => absolute_path(text).map(Place::Directory),
        }
    });
    let s3 = section.section("s3");
    let config = S3Config {
        bucket: String::new(),
        prefix: String::new(),
        endpoint: s3.parsed("endpoint", "an https URL, or an http URL of this host", |value| {
            let url = url_of(text(value)?)?;
            if is_in_the_clear(&url) {
                Err(format!("{url:?} would send entries in the clear"))
            } else {
                Ok(url)
            }
        }),
        region: s3.string("region", "the name of a region").unwrap_or_else(|| "us-east-1".into()),
        credentials_file: s3.absolute("credentials_file").unwrap_or_default(),
        ca_file: s3.absolute("ca_file"),
    };
    s3.finish();
    match to? {
        Place::Directory(path) => Some(Destination::Directory(path)),
        Place::Bucket((bucket, prefix)) => {
            if config.credentials_file.as_os_str().is_empty()
                && let Some(node) = section.node("ship_to")
            {
                let message = "has no credentials".to_owned();
                let allowed = Some("with log.retention.s3.credentials_file".to_owned());
                section.report.problem(node.spot, &section.key("ship_to"), message, allowed);
            }
            Some(Destination::S3(S3Config { bucket, prefix, ..config }))
        }
    }
}

enum Place {
    Directory(PathBuf),
    Bucket((String, String)),
}

/// Name of the bucket, and the prefix without slashes around it.
fn bucket_of(rest: &str) -> Result<(String, String), String> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let fits = (3..=63).contains(&bucket.len()) && bucket.bytes().all(named);
    let prefix = prefix.trim_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let clean = prefix.bytes().all(plain) && !prefix.split('/').any(|part| part == "." || part == "..");
    if fits && clean {
        Ok((bucket.to_owned(), prefix.to_owned()))
    } else {
        Err(format!("is \"s3://{rest}\""))
    }
}
