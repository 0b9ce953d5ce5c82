//! `[bundles]`: evidence bundles, what they may take, and for whom they are encrypted.

use super::section::{Section, text};
use super::source::Value;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
const MEGABYTE: u64 = 1_000_000;

/// Evidence bundles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundlesConfig {
    /// Whether a trip makes one.
    pub enabled: bool,
    /// Public keys of age that they are encrypted to; with none they are kept in clear.
    pub recipients: Vec<String>,
    /// The most that one part may take, nanoseconds.
    pub part_timeout_ns: u64,
    /// How long those wait who destroy evidence, nanoseconds.
    pub wait_ns: u64,
    /// Bytes of one bundle.
    pub max_bundle_bytes: u64,
    /// How many are kept.
    pub max_count: u32,
    /// Bytes of all that are kept.
    pub max_bytes: u64,
    /// After how long one is removed, nanoseconds; `None` for never.
    pub expire_ns: Option<u64>,
}

impl Default for BundlesConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            recipients: Vec::new(),
            part_timeout_ns: 5 * SECOND,
            wait_ns: 2 * SECOND,
            max_bundle_bytes: 32 * MEGABYTE,
            max_count: 1000,
            max_bytes: 1000 * MEGABYTE,
            expire_ns: Some(90 * DAY),
        }
    }
}

/// Reads `[bundles]`.
pub(super) fn read(section: &Section<'_>) -> BundlesConfig {
    let default = BundlesConfig::default();
    let config = BundlesConfig {
        enabled: section.boolean("enabled").unwrap_or(default.enabled),
        recipients: read_recipients(section),
        part_timeout_ns: section
            .duration("part_timeout", SECOND / 10..=60 * SECOND)
            .unwrap_or(default.part_timeout_ns),
        wait_ns: section.duration("wait", 0..=60 * SECOND).unwrap_or(default.wait_ns),
        max_bundle_bytes: section
            .bytes_within("max_bundle", MEGABYTE..=1000 * MEGABYTE)
            .unwrap_or(default.max_bundle_bytes),
        max_count: section.integer("max_count", 1..=100_000).unwrap_or(default.max_count),
        max_bytes: section
            .bytes_within("max_size", MEGABYTE..=1_000_000 * MEGABYTE)
            .unwrap_or(default.max_bytes),
        expire_ns: section.expiry("expire").unwrap_or(default.expire_ns),
    };
    section.finish();
    config
}

/// Each is tried here, so that no trip finds out that it is none.
fn read_recipients(section: &Section<'_>) -> Vec<String> {
    let allowed = "a list of public keys of age, such as \"age1…\", as `age-keygen` prints them";
    let recipients = section.parsed("recipients", allowed, |value| {
        let Value::Array(items) = value else { return Err(format!("is {}", value.kind())) };
        let each = |item: &super::source::Node| {
            let key = text(&item.value)?;
            if key.starts_with("AGE-SECRET-KEY") {
                return Err("has a secret key, which must not be on this host".to_owned());
            }
            let parsed = key.parse::<age::x25519::Recipient>();
            parsed.map(|_| key.to_owned()).map_err(|why| format!("has {key:?} ({why})"))
        };
        items.iter().map(each).collect()
    });
    recipients.unwrap_or_default()
}
