//! `[log]`: where the forensic log is anchored outside this host, how much of it stays here, and where events go that it
//! does not take.

pub mod anchors;
mod dead_letters;
pub mod retention;

pub use anchors::{AnchorConfig, AnchorPlace, AnchorsConfig};
pub use dead_letters::DeadLettersConfig;
pub use retention::{Destination, KeepLog, RetentionConfig, S3Config};

use super::section::Section;

/// Everything about the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// Where its checkpoints are anchored.
    pub anchors: AnchorsConfig,
    /// How much of it stays on this host.
    pub retention: RetentionConfig,
    /// Where events are kept, on another disk, while it takes none; `None` for in memory only.
    pub dead_letters: Option<DeadLettersConfig>,
}

/// Reads `[log]`.
pub(super) fn read(section: &Section<'_>) -> LogConfig {
    let config = LogConfig {
        anchors: anchors::read(&section.section("anchors")),
        retention: retention::read(&section.section("retention")),
        dead_letters: dead_letters::read(section),
    };
    section.finish();
    config
}

/// An `http` or `https` URL without credentials, query and fragment.
fn url_of(text: &str) -> Result<String, String> {
    let uri: hyper::Uri = text.parse().map_err(|error| format!("{text:?} is no URL: {error}"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    if !matches!(scheme, "http" | "https") || uri.host().is_none_or(str::is_empty) {
        return Err(format!("is {text:?}"));
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err("holds credentials, which the configuration is no place for".into());
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(format!("{text:?} has a query or a fragment"));
    }
    Ok(text.to_owned())
}

/// Whether what is sent to this URL can be read on the way.
fn is_in_the_clear(url: &str) -> bool {
    let Ok(uri) = url.parse::<hyper::Uri>() else { return true };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    uri.scheme_str() != Some("https") && !local
}
